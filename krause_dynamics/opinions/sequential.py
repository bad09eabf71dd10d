"""Updates of one agent or one pair at a time; n draws are a unit of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from krause_dynamics.aggregate import aggregate
from krause_dynamics.interaction import Flat, Interaction, Others, Within
from krause_dynamics.interaction.neighbourhoods import All
from krause_dynamics.opinions import sequential_kernels
from krause_dynamics.opinions.model import Model
from krause_dynamics.opinions.schedules import Deffuant, Sequential
from krause_dynamics.opinions.stepwise import Stepwise, motion


class OneByOne(Stepwise):
    """Sequential updates: n draws are a unit of time; at rest when the synchronous rule moves nobody."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        super().__init__(model, x, tolerance, rng, impl)
        n = x.shape[0]
        self._fixed = np.zeros(n, bool) if model.fixed is None else model.fixed
        self._mass = np.ones(n) if model.masses is None else model.masses

    def _unit(self, x: np.ndarray) -> np.ndarray:
        new, include_self = x.copy(), not self.model.rule.find(Others)
        if not (isinstance(self.model.rule.score, Flat) and self.model.rule.normalised):
            self._move_by_aggregate(new)
            return self._disturb(x, new)
        sequential_kernels.move_agents(
            new,
            self._draw(x.shape[0]),
            self._limits,
            self._mass,
            self._fixed,
            self._bounds,
            self._heard,
            include_self,
            np.empty(x.shape[1]),
        )
        return self._disturb(x, new)

    def _move_by_aggregate(self, x: np.ndarray) -> None:
        """Any score, or per capita: one query at a time meets all sources, in place."""
        index, normalised = np.arange(x.shape[0]), self.model.rule.normalised
        log_mass = self._log_mass(x)
        for i in self._draw(x.shape[0]):
            if self._fixed[i]:
                continue
            here = slice(i, i + 1)
            heard = aggregate(
                self._rule_of(i), x[here], x, log_mass=log_mass, query_index=index[here], source_index=index
            )
            if heard.log_partition[0] > -np.inf:
                x[here] += (heard.mean - x[here]) * (1.0 if normalised else np.exp(heard.log_partition[0]))

    def _rule_of(self, i: int) -> Interaction:
        """The rule with agent i's own radius."""
        rule, within = self.model.rule, self.model.within
        if np.ndim(within.radius) == 0:
            return rule
        parts = [Within(within.radius[i], within.closed) if part is within else part for part in rule.parts]
        return replace(rule, neighbourhood=All(tuple(parts)))

    def _draw(self, n: int) -> np.ndarray:
        assert isinstance(self.model.schedule, Sequential)
        if self.model.schedule.order == "random":
            return self.rng.integers(n, size=n)
        return np.arange(n) if self.model.schedule.order == "cyclic" else self.rng.permutation(n)

    def _rests(self, x: np.ndarray) -> bool:
        return motion(self.target(self.time, x), x) <= self._tolerance

    def _returns(self, new: np.ndarray, moved: float) -> bool:
        return False  # chance may lead back; only rest is final


class Pairwise(OneByOne):
    """Deffuant's meetings: n random pairs (edges of a network) are a unit of time."""

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> None:
        super().__init__(model, x, tolerance, rng, impl)
        adjacency, self._edges = model.adjacency, None
        if adjacency is not None:
            first, second = np.nonzero(np.triu(adjacency | adjacency.T, 1))
            self._edges = first, second, adjacency[first, second], adjacency[second, first]

    def _unit(self, x: np.ndarray) -> np.ndarray:
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
