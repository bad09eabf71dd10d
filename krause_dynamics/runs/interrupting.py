"""Ctrl-C and SIGTERM between two steps instead of inside one; and callers, such as sweeps, that want none of that."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

TERMINATED = 128 + signal.SIGTERM  # exit status, as a shell gives it to what a signal ended
INTERRUPTED = 128 + signal.SIGINT


class Terminated(SystemExit):
    """SIGTERM ends the program with status 143, after what is finished has been kept.

    Attributes:
        result: What had been computed until then, a `Trajectory` or a Dataset, or ``None``.
        told: How to go on, for who answers the user.
    """

    def __init__(self, told: str = "", result: Any = None) -> None:
        super().__init__(TERMINATED)
        self.told, self.result = told, result


_open: list[Interrupts] = []  # those that listen, the latest last


def asked() -> bool:
    """Whether a signal waits for the end of a step: a long step asks, so that it may be given up."""
    return bool(_open) and _open[-1].reason is not None


class Interrupts:
    """While open, the first Ctrl-C or SIGTERM only sets `reason`, so that a loop ends with what it has; a next raises.

    Signals reach the main thread only; elsewhere, and where a caller has its own handler, nothing changes.

    Attributes:
        reason: ``"interrupted"`` after a signal, else ``None``.
        terminated: Whether the signal was SIGTERM.
    """

    reason: str | None = None
    terminated: bool = False

    def __enter__(self) -> Interrupts:
        self._old: dict[int, Any] = {}
        if _is_main_thread():
            for number, usual in _USUAL.items():
                if signal.getsignal(number) in usual:
                    self._old[number] = signal.signal(number, self._note)
            _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        if self in _open:
            _open.remove(self)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.reason, self.terminated = "interrupted", number == signal.SIGTERM


@contextmanager
def raising() -> Iterator[None]:
    """Signals raise at once, also inside runs: many runs in a row must not take a shortened one for a result."""
    if not _is_main_thread():
        yield
        return
    old = {signal.SIGINT: signal.signal(signal.SIGINT, _interrupt)}
    if signal.getsignal(signal.SIGTERM) in _USUAL[signal.SIGTERM]:
        old[signal.SIGTERM] = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def terminating() -> Iterator[None]:
    """For commands: SIGTERM raises `Terminated`, where no run takes it between two of its steps."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ignore() -> None:
    """For worker processes: Ctrl-C is for the parent, which stops handing out work; SIGTERM ends them at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """A handler that a run may replace by its own."""
    raise Terminated


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(TERMINATED)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


# Handlers that a run may replace: those of Python, and that of our commands.
_USUAL: dict[int, tuple[Any, ...]] = {
    signal.SIGINT: (signal.default_int_handler,),
    signal.SIGTERM: (signal.SIG_DFL, leave),
}
