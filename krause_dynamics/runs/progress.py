"""A progress bar with the time left, in terminals and notebooks (rich draws in both)."""

from __future__ import annotations

import time
from typing import Any

REFRESH = 0.1  # seconds between two drawings


class ProgressBar:
    """A callback ``bar(t, t_end)``; ``kd.simulate(..., progress=True)`` makes one, a sweep counts its runs with one.

    Args:
        label: Words left of the bar.
    """

    def __init__(self, label: str = "simulate") -> None:
        self._label = label
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0

    def __call__(self, done: float, total: float) -> None:
        now = time.monotonic()
        if done < total and now < self._next:
            return
        self._next = now + REFRESH
        bar = self._bar if self._bar is not None else self._open(total)
        bar.update(self._task, completed=done)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self, total: float) -> Any:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = bar = Progress(*columns)
        self._task = bar.add_task(self._label, total=total)
        bar.start()
        return bar
