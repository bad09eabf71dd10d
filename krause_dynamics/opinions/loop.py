"""The loop of a discrete run: advance, keep states, ask the stop rule, write and resume from a checkpoint file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics.opinions.engines import Engine
from krause_dynamics.opinions.result import Record
from krause_dynamics.runs.interrupting import Interrupts
from krause_dynamics.runs.resuming import RunFile, random_state, restore_random_state

Stop = Callable[[float, Any, Any], str | None]
OnSave = Callable[[float, np.ndarray], None]


@dataclass
class Loop:
    """What changes while a run goes on; all of it travels through the checkpoint file.

    Attributes:
        engine: The state that advances.
        record: The states kept.
        rng: What it draws from, or ``None``.
        file: The checkpoint file, or ``None``.
    """

    engine: Engine
    record: Record
    rng: np.random.Generator | None
    file: RunFile | None

    def run(self, stop: Stop | None, max_steps: int, on_save: OnSave | None) -> str:
        """Advance until a reason to end, and return it."""
        ended = self._resume()
        if ended is not None:
            return ended
        with Interrupts() as interrupts, np.errstate(over="ignore", invalid="ignore"):
            while True:
                reason = self._advance(stop, max_steps) or interrupts.reason
                if reason == "diverged":
                    return reason
                self._keep(on_save, last=reason is not None)
                if self.file is not None and (reason is not None or self.file.due()):
                    self._write(reason)
                if reason is not None:
                    return reason

    def _advance(self, stop: Stop | None, max_steps: int) -> str | None:
        """To the next state that somebody wants to see; why the run ends there, if it does."""
        engine = self.engine
        if engine.time >= max_steps:
            return "max_steps"
        previous = engine.positions if stop is not None else None
        watched = stop is not None or self.file is not None
        engine.advance(1 if watched else min(self.record.until_next(engine.time), max_steps - engine.time))
        if not engine.is_finite:
            return "diverged"
        reason = engine.ended
        if stop is not None and reason is None:
            reason = stop(float(engine.time), engine.positions, previous)
        return "max_steps" if reason is None and engine.time >= max_steps else reason

    def _keep(self, on_save: OnSave | None, *, last: bool) -> None:
        if not self.record.wants(self.engine.time, last=last):
            return
        x = self.engine.positions.astype(self.record.states[0].dtype, copy=False)
        if self.record.keep(self.engine.time, x, last=last) and on_save is not None:
            on_save(float(self.engine.time), x)

    def _write(self, reason: str | None) -> None:
        assert self.file is not None
        header = {
            "reason": None if reason in ("interrupted", "max_steps") else reason,  # such a run may go on
            "time": self.engine.time,
            "steps": self.engine.steps,
            "stride": self.record.stride,
            "random": random_state(self.rng),
        }
        record = {"times": np.asarray(self.record.times), "states": np.stack(self.record.states)}
        self.file.write(header, {**record, **self.engine.arrays()})

    def _resume(self) -> str | None:
        """Continue from the file, where there is one; why the run in it had ended, if it had."""
        found = None if self.file is None else self.file.read()
        if found is None:
            return None
        header, arrays = found
        self.record.times, self.record.states = arrays.pop("times").tolist(), list(arrays.pop("states"))
        self.record.stride = header["stride"]
        self.engine.restore(arrays, header["time"], header["steps"])
        restore_random_state(self.rng, header["random"])
        return header["reason"]  # type: ignore[no-any-return]
