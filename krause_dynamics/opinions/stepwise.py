"""Synchronous steps of any rule, through a plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._array import Array
from krause_dynamics.aggregate import plan
from krause_dynamics.dynamics import target
from krause_dynamics.dynamics.returned import returned
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.opinions.disturbances import TruthSeeking
from krause_dynamics.opinions.model import Model
from krause_dynamics.runs.loop import GivenUp, StepFailed, Stepper
from krause_dynamics.runs.resuming import random_state, restore_random_state


class Stepwise(Stepper):
    """Any rule, all agents at once, through a plan; a period of two is recognised."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        self.model, self.rng, self._tolerance = model, rng, tolerance
        self._before: np.ndarray | None = None
        self._limits = _limits(model, x)
        self._plan = plan(model.rule, x, log_mass=self._log_mass(x), impl=impl)
        self.impl = self._plan.impl

    @property
    def form(self) -> str:
        """Name of the form that computes the means."""
        return self.impl

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        """One unit of time; of a deterministic run, one in which nothing moves ends it and is not counted."""
        before = random_state(self.rng)
        try:
            new = self._unit(t, x)
        except GivenUp:  # as if the unit had never begun: the run goes on from here to the same numbers
            restore_random_state(self.rng, before)
            self.ended = "interrupted"
            return t, x
        moved = motion(new, x)
        if moved <= self._tolerance and self.model.is_deterministic and self._rests(t, new):
            self.ended = "frozen"
            return t, x
        self.taken += int(moved > self._tolerance)
        if not np.isfinite(moved):
            raise StepFailed(f"opinions became infinite after {t + 1:g} steps")
        if self.model.is_deterministic and self._returns(new, moved):
            self.ended = "period of two"
        self._before = x
        return t + 1, new

    def arrays(self) -> dict[str, np.ndarray]:
        return {} if self._before is None else {"before": self._before}

    def restore(self, state: dict[str, int], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        self._before = arrays.get("before")

    def _unit(self, t: float, x: np.ndarray) -> np.ndarray:
        """One unit of time, noise included."""
        return self._disturb(x, self.target(t, x))

    def _rests(self, t: float, x: np.ndarray) -> bool:
        return True

    def _returns(self, new: np.ndarray, moved: float) -> bool:
        """Whether this is the state before the last, while the last was another."""
        if self._before is None or moved <= self._tolerance:
            return False
        return motion(new, self._before) <= self._tolerance

    def _disturb(self, x: np.ndarray, new: np.ndarray) -> np.ndarray:
        new = new if self.model.noise is None else self.model.noise.disturb(new, self.rng)
        return new if self.model.fixed is None else np.where(self.model.fixed[:, None], x, new)

    def target(self, t: float, x: np.ndarray) -> np.ndarray:
        """Where the deterministic synchronous rule moves everybody: (n, d)."""
        new = target(self.model.rule, self._plan(x, log_mass=self._log_mass(x)), x, np)
        external = self.model.external
        if isinstance(external, TruthSeeking):
            new = external.mix(new)
        elif external is not None:
            new = new + returned("external", external(int(t), x), x, broadcasts=True)
        return new if self.model.fixed is None else np.where(self.model.fixed[:, None], x, new)

    def _log_mass(self, x: np.ndarray) -> np.ndarray | None:
        """Per capita, masses must sum to one; a mean does not mind."""
        if self.model.masses is None and not self.model.rule.normalised:
            return np.full(x.shape[0], -np.log(x.shape[0]))
        return self.model.log_mass


def motion(new: np.ndarray, x: np.ndarray) -> float:
    """Largest move of a coordinate; what is within rounding of the coordinate itself is none."""
    move = np.abs(new - x)
    return float(np.where(move <= 2 * np.finfo(float).eps * np.abs(x), 0.0, move).max())


def _limits(model: Model, x: np.ndarray) -> np.ndarray:
    """What each agent compares with: the radius on a line, its square in more dimensions, (n,)."""
    radii = np.broadcast_to(np.asarray(model.within.radius, np.float64), (x.shape[0],))
    return np.ascontiguousarray(Ball.of(model.within, radii, x.shape[1]).limits)
