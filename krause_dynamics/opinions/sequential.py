"""Updates of one agent or one pair at a time; n draws are a unit of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from krause_dynamics.aggregate import Plan, plan
from krause_dynamics.dynamics import target
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.interaction import Edges, Flat, Others, Within
from krause_dynamics.interaction.neighbourhoods import All
from krause_dynamics.opinions import sequential_kernels
from krause_dynamics.opinions.model import Model
from krause_dynamics.opinions.rounding import heard_by
from krause_dynamics.opinions.schedules import Deffuant, Sequential
from krause_dynamics.opinions.stepwise import Stepwise, motion
from krause_dynamics.runs import interrupting
from krause_dynamics.runs.loop import GivenUp

SMALLEST = float(np.finfo(float).tiny)  # a distance, where no motion at all is tolerated
PER_CALL = 1 << 26  # coordinates looked at in one compiled call, some tenths of a second


class OneByOne(Stepwise):
    """Sequential updates: n draws are a unit of time; at rest when the synchronous rule moves nobody."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        super().__init__(model, x, tolerance, rng, impl)
        n = x.shape[0]
        self._fixed = np.zeros(n, bool) if model.fixed is None else model.fixed
        self._mass = np.ones(n) if model.masses is None else model.masses
        self._bounds, self._heard = np.zeros(1, np.int64), np.zeros(0, np.int64)
        if model.edges is not None:
            self._bounds, self._heard = model.edges.bounds, model.edges.heard
        self._by_kernel = isinstance(model.rule.score, Flat) and model.rule.normalised and model.rule.pair_bias is None
        self._listeners = [] if self._by_kernel else self._plans(x)

    def _unit(self, t: float, x: np.ndarray) -> np.ndarray:
        new, include_self = x.copy(), not self.model.rule.find(Others)
        if not self._by_kernel:
            self._move_by_plan(new)
            return self._disturb(x, new)
        drawn, few = self._draw(len(x)), max(1, PER_CALL // x.size)
        for start in range(0, len(drawn), few):
            if interrupting.asked():
                raise GivenUp
            sequential_kernels.move_agents(
                new,
                drawn[start : start + few],
                self._limits,
                self._mass,
                self._fixed,
                self._bounds,
                self._heard,
                include_self,
                np.empty(x.shape[1]),
            )
        return self._disturb(x, new)

    def _move_by_plan(self, x: np.ndarray) -> None:
        """Any score, or per capita: one query at a time meets all sources, in place."""
        index, log_mass = np.arange(x.shape[0]), self._log_mass(x)
        for i in self._draw(x.shape[0]):
            if self._fixed[i]:
                continue
            if interrupting.asked():
                raise GivenUp
            here = slice(i, i + 1)
            hear = self._listeners[i % len(self._listeners)]
            heard = hear(x[here], x, log_mass=log_mass, query_index=index[here], source_index=index)
            x[here] = target(self.model.rule, heard, x[here], np)

    def _plans(self, x: np.ndarray) -> list[Plan]:
        """How an agent meets all: one plan for everybody, or one for each where each has its own radius."""
        rule, within, index = self.model.rule, self.model.within, np.arange(x.shape[0])
        rules = [rule]
        if np.ndim(within.radius):
            joined = [
                All(tuple(Within(radius, within.closed) if part is within else part for part in rule.parts))
                for radius in within.radius
            ]
            rules = [replace(rule, neighbourhood=parts) for parts in joined]
        log_mass = self._log_mass(x)
        return [plan(one, x[:1], x, log_mass=log_mass, query_index=index[:1], source_index=index) for one in rules]

    def _draw(self, n: int) -> np.ndarray:
        assert isinstance(self.model.schedule, Sequential)
        if self.model.schedule.order == "random":
            return self.rng.integers(n, size=n)
        return np.arange(n) if self.model.schedule.order == "cyclic" else self.rng.permutation(n)

    def _rests(self, t: float, x: np.ndarray) -> bool:
        return motion(self.target(t, x), x) <= self._tolerance

    def _returns(self, new: np.ndarray, moved: float) -> bool:
        return False  # chance may lead back; only rest is final


class Pairwise(OneByOne):
    """Deffuant's meetings: n random pairs (edges of a network) are a unit of time."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        super().__init__(model, x, tolerance, rng, impl)
        self._edges = None if model.edges is None else _pairs(model.edges)

    def _unit(self, t: float, x: np.ndarray) -> np.ndarray:
        schedule, new, n = self.model.schedule, x.copy(), x.shape[0]
        assert isinstance(schedule, Deffuant)
        if n < 2 or (self._edges is not None and self._edges[0].size == 0):
            return self._disturb(x, new)
        if self._edges is None:
            first = self.rng.integers(n, size=n)
            second = (first + self.rng.integers(1, n, size=n)) % n
            forward = backward = np.ones(n, bool)
        else:
            drawn = self.rng.integers(self._edges[0].size, size=n)
            first, second, forward, backward = (column[drawn] for column in self._edges)
        sequential_kernels.meet(new, first, second, self._limits, self._fixed, forward, backward, schedule.mu)
        return self._disturb(x, new)

    def _rests(self, t: float, x: np.ndarray) -> bool:
        """Whether no two that may meet are apart. A mean that rests, as between two stubborn agents, is not enough."""
        assert isinstance(self.model.schedule, Deffuant)
        apart, within = max(self._tolerance / self.model.schedule.mu, SMALLEST), self.model.within
        if self._edges is not None:
            first, second, forward, backward = self._edges
            gap = np.abs(x[first] - x[second])
            distance = gap[:, 0] if x.shape[1] == 1 else (gap**2).sum(axis=1)
            moves = forward & ~self._fixed[first] & (distance <= self._limits[first])
            moves |= backward & ~self._fixed[second] & (distance <= self._limits[second])
            return not (moves & (gap.max(axis=1) > apart)).any()
        radii = np.broadcast_to(np.asarray(within.radius, np.float64), len(x))
        together = Ball.of(Within(apart), np.minimum(radii, apart), x.shape[1])
        alone = heard_by(x, x, Ball(radii, self._limits)) == heard_by(x, x, together)
        return bool((alone | self._fixed).all())


def _pairs(edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Linked pairs i < j in order, and whether i hears j and j hears i."""
    n = edges.nodes
    links, mirrored = edges.listeners * n + edges.heard, edges.heard * n + edges.listeners
    both = np.union1d(links, mirrored)
    first, second = both // n, both % n
    first, second = first[first < second], second[first < second]
    return first, second, np.isin(first * n + second, links), np.isin(second * n + first, links)
