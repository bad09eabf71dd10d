"""The one loop: step, keep, stop, report, write and resume. A model supplies a stepper and words, not a loop."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from krause_dynamics._array import Array, like, to_numpy
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.runs.events import Watch
from krause_dynamics.runs.interrupting import Interrupts, Terminated
from krause_dynamics.runs.recording import Record
from krause_dynamics.runs.resuming import RunFile, random_state, restore_random_state
from krause_dynamics.trajectory import Trajectory

logger = logging.getLogger(__name__)

Stop = Callable[[float, Array, Array], str | None]
OnSave = Callable[[float, Array], None]


class GivenUp(Exception):
    """A signal came inside a long step; the stepper stays where it was and ends the run as interrupted."""


class StepFailed(RuntimeError):
    """A step could not be taken; the loop turns it into `SimulationDiverged` with what was computed so far.

    Attributes:
        reason: In one word, ``meta["stopped"]`` of that trajectory.
    """

    def __init__(self, message: str, reason: str = "diverged") -> None:
        super().__init__(message)
        self.reason = reason


class Stepper(ABC):
    """What advances one run: it holds all that changes from step to step beside time and state.

    Attributes:
        taken: Number of steps so far (of a model that can rest: those in which something moved).
        ended: Why nothing can change any more, or ``None``.
    """

    taken: int = 0
    ended: str | None = None

    @abstractmethod
    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        """One step from ``t``, never beyond ``limit``: the new time and state.

        Raises:
            StepFailed: There is no next state.
        """

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on beside t, x and `arrays`: JSON-ready numbers."""
        return {"taken": self.taken}

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays that the next step depends on beside x, under names that `Run` does not use."""
        return {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """The inverse of `state` and `arrays`."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class Run:
    """A run while it goes on; what changes travels through the checkpoint file.

    Attributes:
        stepper: What advances it.
        record: What is kept, and when.
        x: The state.
        end: Latest time.
        at_end: Why it ends there.
        goes_on: Whether a run that came to `end` may go on from its file to a later one.
        stop: Asked after every step.
        on_save: Told of every state kept.
        progress: As in `kd.simulate`.
        label: Words beside its bar.
        watch: Events, or ``None``.
        file: Checkpoint file, or ``None``.
        rng: What the stepper draws from, or ``None``.
        memories: Functions of the caller that remember something.
        is_finite: Asked of every state that is to be kept, or ``None``.
        t: Time.
        reason: Why it ended.
    """

    stepper: Stepper
    record: Record
    x: Array
    end: float
    at_end: str = "t_end"
    goes_on: bool = False
    stop: Stop | None = None
    on_save: OnSave | None = None
    progress: bool | Progress = False
    label: str = "simulate"
    watch: Watch | None = None
    file: RunFile | None = None
    rng: Any = None
    memories: list[Any] = field(default_factory=list)
    is_finite: Callable[[Array], bool] | None = None
    t: float = 0.0
    reason: str | None = None

    def finish(self, trajectory: Callable[[str], Trajectory]) -> Trajectory:
        """Resume from the file, go on to the end, and return ``trajectory(reason)``.

        Raises:
            SimulationDiverged: A step failed.
            Terminated: SIGTERM came; the file is written, and the exception holds the trajectory.
            ValueError: The file belongs to another run.
        """
        self._resume()
        try:
            if self.progress:
                with drawn(self.progress, self.label) as report:
                    terminated = self._go(report)
            else:
                terminated = self._go(None)
        except StepFailed as error:
            raise SimulationDiverged(str(error), trajectory(error.reason)) from error
        result = trajectory(self.reason or self.at_end)
        if terminated:
            raise Terminated(result=result)
        return result

    def _go(self, report: Progress | None) -> bool:
        """Step from one state that is to be kept to the next, until there is a reason to end; whether SIGTERM came."""
        due = self.record.after(self.t)
        # Overflow is reported once, by SimulationDiverged with the trajectory, not by warnings from inside.
        with Interrupts() as interrupts, np.errstate(over="ignore", invalid="ignore"):
            while self.reason is None:
                if self.t < self.end:
                    self._step(min(due, self.end))
                    if report is not None:
                        report(self.t, self.end)
                if self.reason is None:
                    self.reason = self.at_end if self.t >= self.end else interrupts.reason
                if self.t >= due or self.reason is not None:
                    self._arrive(landed=self.t >= due)
                    due = self.record.after(self.t)
                elif self.file is not None and self.file.due():
                    self._write(None)
        if self.reason == "interrupted":
            logger.warning("interrupted at t = %g of %g; the trajectory ends there", self.t, self.end)
        return interrupts.terminated

    def _step(self, limit: float) -> None:
        t, previous = self.t, self.x
        self.t, self.x = self.stepper.step(t, previous, limit)
        self.reason = self.stepper.ended
        ended = None if self.watch is None else self.watch.step(t, previous, self.t, self.x)
        if ended is not None:
            self.t, self.x, name = ended
            self.reason = f"event: {name}"
        elif self.stop is not None and self.reason is None:
            self.reason = self.stop(self.t, self.x, previous)

    def _arrive(self, *, landed: bool) -> None:
        """At a state that is to be kept, or at the end.

        A state kept only because the run was interrupted, or came to an end that may be moved, is no part of the run
        that goes on: the file is written without it.
        """
        passing = self.reason == "interrupted" or (self.goes_on and self.reason == self.at_end)
        final = self.reason is not None and not passing
        if landed or final:
            self._keep(last=final)
        if self.file is not None and (self.reason is not None or self.file.due()):
            self._write(None if passing else self.reason)
        if passing and self.record.times[-1] != self.t:
            self._keep(last=True)

    def _keep(self, *, last: bool) -> None:
        if self.is_finite is not None and not self.is_finite(self.x):
            raise StepFailed(f"positions became infinite before t = {self.t:g}; reduce dt, or use kd.Adaptive()")
        if self.record.add(self.t, self.x, last=last) and self.on_save is not None:
            self.on_save(self.t, self.x)

    def _write(self, reason: str | None) -> None:
        assert self.file is not None
        header = {
            "t": self.t,
            "reason": reason,
            "stepper": self.stepper.state(),
            "record": self.record.state(),
            "random": random_state(self.rng),
            "events": None if self.watch is None else self.watch.state(),
            "memories": [memory.state() for memory in self.memories],
        }
        try:
            self.file.write(header, {"x": to_numpy(self.x), **self.record.arrays(), **self.stepper.arrays()})
        except OSError as error:  # a full disk: what is computed is worth more than the file
            warnings.warn(
                f"checkpoint {self.file.path} could not be written at t = {self.t:g} ({error}); the run goes on, "
                "and tries again",
                RuntimeWarning,
                stacklevel=2,
            )

    def _resume(self) -> None:
        """Continue from the checkpoint file, where there is one.

        Raises:
            ValueError: The file belongs to another run, or is damaged.
        """
        found = None if self.file is None else self.file.read()
        if found is None:
            return
        try:
            self._restore(*found)
        except Exception as error:
            assert self.file is not None
            raise ValueError(
                f"checkpoint must be a file written by a run, {self.file.path} is damaged "
                f"({type(error).__name__}: {error}); it was left as it is: choose another path, or delete it"
            ) from error

    def _restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.t, self.reason = header["t"], header["reason"]
        self.x = like(arrays.pop("x"), self.x)
        self.record.restore(header.get("record", {}), arrays)
        self.stepper.restore(header["stepper"], arrays)
        restore_random_state(self.rng, header["random"])
        if self.watch is not None:
            self.watch.restore(header["events"])
        for memory, state in zip(self.memories, header["memories"], strict=True):
            memory.restore(state)
