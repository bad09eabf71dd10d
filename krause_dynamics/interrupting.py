"""Ctrl-C between two steps instead of inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While open, the first Ctrl-C only sets `reason`, so that a loop can end with what it has; the second one raises.

    Signals reach the main thread only; elsewhere nothing changes.

    Attributes:
        reason: ``"interrupted"`` after Ctrl-C, else ``None``.
    """

    reason: str | None = None

    def __enter__(self) -> Interrupts:
        self._old: Any = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None:
            raise KeyboardInterrupt
        self.reason = "interrupted"
