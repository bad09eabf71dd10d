"""Ctrl-C between two steps instead of inside one; and callers, such as sweeps, that want none of that."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While open, the first Ctrl-C only sets `reason`, so that a loop can end with what it has; the second one raises.

    Signals reach the main thread only; elsewhere, and where a caller has its own handler, nothing changes.

    Attributes:
        reason: ``"interrupted"`` after Ctrl-C, else ``None``.
    """

    reason: str | None = None

    def __enter__(self) -> Interrupts:
        self._old: Any = None
        if _is_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
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


@contextmanager
def raising() -> Iterator[None]:
    """Ctrl-C raises at once, also inside runs: many runs in a row must not take a shortened one for a result."""
    if not _is_main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def ignore() -> None:
    """For worker processes: Ctrl-C is for the parent, which stops handing out work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
