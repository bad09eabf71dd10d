"""Synchronous steps of any rule, through `aggregate` or lists of links."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics.aggregate import plan
from krause_dynamics.forms.near import neighbours, sorted1d
from krause_dynamics.forms.near.search import Ball
from krause_dynamics.interaction import Aggregate, Flat, Others, Request
from krause_dynamics.opinions import sequential_kernels
from krause_dynamics.opinions.disturbances import TruthSeeking
from krause_dynamics.opinions.engines import Engine
from krause_dynamics.opinions.model import Model

SMALL = 128  # below this the dense reference takes a step sooner than sorting and searching


class Stepwise(Engine):
    """Any rule, all agents at once, through `aggregate`; a period of two is recognised."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        self.model, self.rng, self._tolerance = model, rng, tolerance
        self._x = x
        self._before: np.ndarray | None = None
        self._limits = _limits(model, x)
        self._bounds, self._heard = _lists(model.adjacency)
        self.impl = self._choose(x, impl)

    @property
    def positions(self) -> np.ndarray:
        return self._x

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self._x).all())

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            x = self._x
            new = self._unit(x)
            moved = motion(new, x)
            if moved <= self._tolerance and self.model.is_deterministic and self._rests(new):
                self.ended = "frozen"
                return
            if self.model.is_deterministic and self._returns(new, moved):
                self.ended = "period of two"
            self._before, self._x, self.time = x, new, self.time + 1
            self.steps += moved > self._tolerance
            if self.ended or not np.isfinite(moved):
                return

    def arrays(self) -> dict[str, np.ndarray]:
        return {"x": self._x} if self._before is None else {"x": self._x, "before": self._before}

    def restore(self, arrays: dict[str, np.ndarray], time: int, steps: int) -> None:
        self._x, self._before, self.time, self.steps = arrays["x"], arrays.get("before"), time, steps

    def _unit(self, x: np.ndarray) -> np.ndarray:
        """One unit of time, noise included."""
        return self._disturb(x, self.target(self.time, x))

    def _rests(self, x: np.ndarray) -> bool:
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
        result = self._aggregate(x)
        heard = (result.log_partition > -np.inf)[:, None]
        weight = 1.0 if self.model.rule.normalised else np.exp(result.log_partition)[:, None]
        new = np.where(heard, result.mean if self.model.rule.normalised else x + weight * (result.mean - x), x)
        external = self.model.external
        if isinstance(external, TruthSeeking):
            new = external.mix(new)
        elif external is not None:
            new = new + external(t, x)
        return new if self.model.fixed is None else np.where(self.model.fixed[:, None], x, new)

    def _aggregate(self, x: np.ndarray) -> Aggregate:
        log_mass = self._log_mass(x)
        if self.impl == "network":
            mean, total = np.empty_like(x), np.empty(x.shape[0])
            mass = np.ones(x.shape[0]) if log_mass is None else np.exp(log_mass)
            include_self = not self.model.rule.find(Others)
            sequential_kernels.network_means(
                x, self._limits, mass, self._bounds, self._heard, include_self, mean, total
            )
            with np.errstate(divide="ignore"):
                return Aggregate(mean, np.log(total))
        module = {"sorted1d": sorted1d, "neighbours": neighbours}.get(self.impl)
        if module is not None:
            return module.aggregate(self.model.rule, Request.of(x, log_mass=log_mass))
        return self._plan(x, log_mass=log_mass)

    def _log_mass(self, x: np.ndarray) -> np.ndarray | None:
        """Per capita, masses must sum to one; a mean does not mind."""
        if self.model.masses is None and not self.model.rule.normalised:
            return np.full(x.shape[0], -np.log(x.shape[0]))
        return self.model.log_mass

    def _choose(self, x: np.ndarray, impl: str) -> str:
        """A compiled form also below the size where one call alone would pay: a run makes many."""
        if impl == "auto" and self._bounds.size > 1 and isinstance(self.model.rule.score, Flat):
            return "network"  # lists of links, not all pairs
        request = Request.of(x, log_mass=self.model.log_mass)
        if impl == "auto" and x.shape[0] >= SMALL:
            for name, module in (("sorted1d", sorted1d), ("neighbours", neighbours)):
                if module.supports(self.model.rule, request) is None:
                    return name
        self._plan = plan(self.model.rule, x, log_mass=self.model.log_mass, impl=impl)
        return self._plan.impl


def motion(new: np.ndarray, x: np.ndarray) -> float:
    """Largest move of a coordinate; what is within rounding of the coordinate itself is none."""
    move = np.abs(new - x)
    return float(np.where(move <= 2 * np.finfo(float).eps * np.abs(x), 0.0, move).max())


def _limits(model: Model, x: np.ndarray) -> np.ndarray:
    """What each agent compares with: the radius on a line, its square in more dimensions, (n,)."""
    radii = np.broadcast_to(np.asarray(model.within.radius, np.float64), (x.shape[0],))
    return np.ascontiguousarray(Ball.of(model.within, radii, x.shape[1]).limits)


def _lists(adjacency: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (n + 1,) and members of the lists of whom each agent may hear; bounds (1,) where all may hear all."""
    if adjacency is None:
        return np.zeros(1, np.int64), np.zeros(0, np.int64)
    bounds = np.concatenate([[0], np.cumsum(adjacency.sum(axis=1))]).astype(np.int64)
    return bounds, np.nonzero(adjacency)[1].astype(np.int64)
