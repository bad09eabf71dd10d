"""A progress bar with the time left, in terminals and notebooks (rich draws in both)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

REFRESH = 0.1  # seconds between two drawings

Progress = Callable[[float, float], Any]


class ProgressBar:
    """A callback ``bar(done, total)``: ``kd.simulate(..., progress=True)`` makes one, a sweep counts its runs with one.

    It is drawn on the standard error, so that what a command prints can be piped; a notebook shows it in the cell.

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
        from rich.console import Console
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
        self._bar = bar = Progress(*columns, console=Console(stderr=True))
        self._task = bar.add_task(self._label, total=total)
        bar.start()
        return bar


def _silent(done: float, total: float) -> None:
    """No bar."""


@contextmanager
def drawn(progress: bool | Progress, label: str) -> Iterator[Progress]:
    """What ``progress=`` asks for: a bar that is closed in the end, the caller's function, or nothing.

    Raises:
        TypeError: Neither true or false nor a function.
    """
    if progress is False:
        yield _silent
        return
    if callable(progress):
        yield progress
        return
    if progress is not True:
        raise TypeError(f"progress must be True, False or a function progress(done, total), got {progress!r}")
    bar = ProgressBar(label)
    try:
        yield bar
    finally:
        bar.close()


def counted(items: Sequence[Any], progress: bool | Progress, label: str) -> Iterator[Any]:
    """The items one by one, each told to what ``progress=`` asks for (see `drawn`) when it is done."""
    with drawn(progress, label) as bar:
        for done, item in enumerate(items):
            bar(done, len(items))
            yield item
        bar(len(items), len(items))
