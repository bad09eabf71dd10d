"""Rules that end a run: ``stop(t, x, previous) -> reason or None``, asked after every step; joined with ``|``.

Any function of that form serves; these are the usual ones, for `kd.simulate` and `kd.hegselmann_krause` alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE_PARAMETER, Real
from krause_dynamics._array import Array, to_numpy
from krause_dynamics._value import Value
from krause_dynamics.spaces import Euclidean, Space

__all__ = ["AtTime", "ClustersSettled", "Consensus", "FirstOf", "Frozen", "StopRule"]

MOVED = 1e-12  # of the extent: less than this is rounding, not motion


class StopRule(Value, ABC):
    """A reason to end a run; ``a | b`` ends it at the first of both."""

    def on(self, space: Space, reach: float) -> StopRule:
        """The rule for a run in ``space`` whose agents hear as far as ``reach``; `kd.simulate` asks for it."""
        return self  # of rules that look at no distance

    @abstractmethod
    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        """Why the run ends at time ``t`` with positions ``x`` (*batch, n, d), or ``None`` to go on."""

    def __or__(self, other: Callable[[float, Array, Array], str | None]) -> StopRule:
        return FirstOf((self, other))


@dataclass(frozen=True, eq=False)
class FirstOf(StopRule):
    """Ends a run when any of its rules does.

    Attributes:
        rules: Asked in order; the first reason is kept.
    """

    rules: tuple[Any, ...]

    def on(self, space: Space, reach: float) -> StopRule:
        return FirstOf(tuple(rule.on(space, reach) if isinstance(rule, StopRule) else rule for rule in self.rules))

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return next((reason for rule in self.rules if (reason := rule(t, x, previous))), None)


@dataclass(frozen=True, eq=False)
class Located(StopRule):
    """A rule that looks at distances.

    Attributes:
        space: Where the positions live; by default that of the run.
    """

    space: Space | None = field(default=None, kw_only=True)

    def on(self, space: Space, reach: float) -> StopRule:
        return replace(self, space=space) if self.space is None else self

    def to_dict(self) -> dict[str, Any]:
        """Without what was left to the run."""
        return {name: value for name, value in super().to_dict().items() if value is not None}

    @property
    def _geometry(self) -> Space:
        return Euclidean() if self.space is None else self.space


def without_absent(stop: Any, stand_in: Callable[[Array], Array]) -> Any:
    """The same rule, shown somebody present in the place of every particle without mass (functions see all).

    Args:
        stop: Rule or function.
        stand_in: The positions to show, from positions (*batch, n, d).
    """
    if isinstance(stop, FirstOf):
        return FirstOf(tuple(without_absent(rule, stand_in) for rule in stop.rules))
    if not isinstance(stop, Located):
        return stop
    return lambda t, x, previous: stop(t, stand_in(x), stand_in(previous))


@dataclass(frozen=True, eq=False)
class Frozen(Located):
    """Nobody moved: no coordinate by more than ``tolerance`` times the extent of the state, or by more than rounding.

    Where agents hear as far as a reach, the extent is that of the largest part: parts are further apart than any chain
    of n agents, so that one far away, whom nobody ever hears, makes no motion look small. Bounded confidence in
    discrete time freezes exactly; smooth flows only approach their limit, where a tolerance per step, not a distance to
    the limit, is what this measures.

    Attributes:
        tolerance: Of the extent; 1e-12 is rounding.
        reach: How far agents hear; by default that of the run's rule, without a run everywhere.
        space: Where the positions live; by default that of the run.
    """

    tolerance: float = MOVED
    reach: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("tolerance", self.tolerance)
        if self.reach is not None:
            POSITIVE_PARAMETER.read("reach", self.reach)

    def on(self, space: Space, reach: float) -> StopRule:
        return replace(self, space=self.space or space, reach=reach if self.reach is None else self.reach)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        x, previous = to_numpy(x), to_numpy(previous)
        runs = zip(x.reshape(-1, *x.shape[-2:]), previous.reshape(-1, *x.shape[-2:]), strict=True)
        return "frozen" if all(self._rests(*run) for run in runs) else None

    def _rests(self, x: np.ndarray, previous: np.ndarray) -> bool:
        move = np.abs(self._geometry.difference(x, previous))
        rounding = 4 * np.finfo(previous.dtype).eps * np.abs(previous)
        return bool((move <= np.maximum(self.tolerance * self._extent(previous), rounding)).all())

    def _extent(self, x: np.ndarray) -> float:
        """Extent of the largest part, and at least the reach where there are several."""
        whole, reach = _extent(self._geometry, x), self.reach or np.inf
        chain = reach * len(x)
        if whole <= chain or self._geometry.period is not None:
            return whole
        largest = reach
        for line in np.sort(x, axis=0).T:
            cuts = np.flatnonzero(np.diff(line) > chain)
            largest = max(largest, float((line[np.append(cuts, -1)] - line[np.append(0, cuts + 1)]).max()))
        return largest


@dataclass(frozen=True, eq=False)
class Consensus(Located):
    """All particles (of every run in a batch) agree.

    Attributes:
        tolerance: Largest coordinate difference left, in units of position.
        space: Where the positions live; by default that of the run.
    """

    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("tolerance", self.tolerance)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return "consensus" if _extent(self._geometry, to_numpy(x)) <= self.tolerance else None


@dataclass(frozen=True, eq=False)
class ClustersSettled(Located):
    """The partition into clusters can change no more: groups linked by the radius, each of diameter at most the radius.

    Under bounded confidence with the own opinion counted every group then hears all of itself and nobody else: one more
    discrete step freezes it, and continuous time contracts it to a point of its hull. In the plane and above, hulls may
    be nearer than their points; there the balls around the groups must be further apart than the radius as well.

    Who belongs together is then certain, though its members may still be on their way: a pair that hears each other is
    one group from the first step. ``diameter`` waits until they have met as well.

    Attributes:
        radius: The confidence bound; unit: position (on spheres a chord).
        diameter: Largest diameter of a group, at most the radius; by default the radius.
        space: Where the positions live; by default that of the run.
    """

    radius: float
    diameter: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        radius = Real(0.0, ends="(]").read("radius", self.radius)
        if self.diameter is not None:
            Real(0.0, radius, "(]").read("diameter (at most the radius)", self.diameter)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        points, width = to_numpy(x), self.radius if self.diameter is None else self.diameter
        runs = points.reshape(-1, *points.shape[-2:])
        return "clusters settled" if all(_settled(self._geometry, run, self.radius, width) for run in runs) else None


@dataclass(frozen=True, eq=False)
class AtTime(StopRule):
    """The time has come.

    Attributes:
        time: End of the run.
    """

    time: float

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("time", self.time)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return "time" if t >= self.time * (1 - MOVED) else None


def _extent(space: Space, x: np.ndarray) -> float:
    """Largest side of the box around all particles."""
    return float(space.extent(x).max())


def _settled(space: Space, points: np.ndarray, radius: float, width: float) -> bool:
    points = space.wrap(points)
    if points.shape[1] == 1 and space.period is None:
        line = np.sort(points[:, 0])
        starts = np.flatnonzero(np.diff(line, prepend=-np.inf) > radius)
        ends = np.append(starts[1:], line.size) - 1
        return bool((line[ends] - line[starts] <= width).all())
    from scipy.sparse import csgraph
    from scipy.spatial import cKDTree

    distinct = np.unique(points, axis=0)
    if distinct.shape[0] == 1:
        return True
    tree = cKDTree(distinct, boxsize=space.period)
    links = tree.sparse_distance_matrix(tree, radius, output_type="coo_matrix")
    _, label = csgraph.connected_components(links, directed=False)
    # Every point must be within the width of its whole group: as many near ones as the group has members.
    near = tree.query_ball_point(distinct, width, return_length=True)
    return bool((near == np.bincount(label)[label]).all()) and _out_of_reach(space, distinct, label, radius)


def _out_of_reach(space: Space, points: np.ndarray, label: np.ndarray, radius: float) -> bool:
    """Whether the balls around the means of the groups are further apart than the radius."""
    from scipy.spatial import cKDTree

    _, first = np.unique(label, return_index=True)
    gathered = space.image(points, points[first][label])  # around one member, where a border cuts a group
    means = np.zeros((len(first), points.shape[1]))
    np.add.at(means, label, gathered)
    means /= np.bincount(label)[:, None]
    reach = np.zeros(len(means))
    np.maximum.at(reach, label, np.linalg.norm(gathered - means[label], axis=1))
    means = space.wrap(means)
    near = cKDTree(means, boxsize=space.period).query_pairs(radius + 2 * reach.max(), output_type="ndarray")
    one, two = near.T
    apart = np.linalg.norm(space.difference(means[one], means[two]), axis=1)
    return bool((apart - reach[one] - reach[two] > radius).all())
