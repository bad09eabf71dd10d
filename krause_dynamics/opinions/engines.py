"""What advances a run by one unit of time, and the compiled plans of the classical rule."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from krause_dynamics.forms.near import sorted1d
from krause_dynamics.forms.near.cloud import Cloud
from krause_dynamics.forms.near.line import SortedLine
from krause_dynamics.forms.near.search import Ball
from krause_dynamics.opinions.model import Model


class Engine(ABC):
    """A state that advances.

    Attributes:
        time: Units of time so far (a unit in which nothing moves ends a deterministic run and is not counted).
        steps: Units in which some coordinate moved by more than the tolerance.
        ended: Why the run cannot change any more, or ``None``.
        impl: What computes the means.
    """

    time: int = 0
    steps: int = 0
    ended: str | None = None
    impl: str

    @abstractmethod
    def advance(self, steps: int) -> None:
        """At most ``steps`` units of time; fewer when the run ends."""

    @property
    @abstractmethod
    def positions(self) -> np.ndarray:
        """All opinions: (n, d)."""

    @property
    def is_finite(self) -> bool:
        """Whether no opinion ran away; means of finite opinions cannot."""
        return True

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint file must hold beside `time` and `steps`."""

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray], time: int, steps: int) -> None:
        """Continue from `arrays` of an engine of the same model and start."""


class PlanEngine(Engine):
    """The classical rule through a compiled plan with merging atoms (`SortedLine`, `Cloud`)."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float) -> None:
        self.plan: SortedLine | Cloud
        if x.shape[1] == 1:
            radius = float(sorted1d.effective_radius(model.within))
            self.plan, self.impl = SortedLine(x[:, 0], radius, tolerance, masses=model.masses), "sorted1d"
        else:
            ball = Ball.of(model.within, np.atleast_1d(np.asarray(model.within.radius, np.float64)), x.shape[1])
            self.plan, self.impl = Cloud(x, ball, tolerance, masses=model.masses), "neighbours"

    def advance(self, steps: int) -> None:
        self.steps = self.time = self.time + self.plan.advance(steps)
        self.ended = "frozen" if self.plan.frozen else None

    def arrays(self) -> dict[str, np.ndarray]:
        return self.plan.arrays()

    def restore(self, arrays: dict[str, np.ndarray], time: int, steps: int) -> None:
        self.plan.restore(arrays, steps)
        self.time, self.steps = time, steps

    @property
    def positions(self) -> np.ndarray:
        return self.plan.positions.reshape(self.plan.owner.size, -1)
