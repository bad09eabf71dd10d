"""Rules that end a run: ``stop(t, x, previous) -> reason or None``, asked after every step; joined with ``|``.

Any function of that form serves; these are the usual ones, for `kd.simulate` and `kd.hegselmann_krause` alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._array import Array, to_numpy
from krause_dynamics._value import Value, check_number

__all__ = ["AtTime", "ClustersSettled", "Consensus", "FirstOf", "Frozen", "StopRule"]

MOVED = 1e-12  # of the extent: less than this is rounding, not motion


class StopRule(Value, ABC):
    """A reason to end a run; ``a | b`` ends it at the first of both."""

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

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return next((reason for rule in self.rules if (reason := rule(t, x, previous))), None)


@dataclass(frozen=True, eq=False)
class Frozen(StopRule):
    """Nobody moved: no coordinate by more than ``tolerance`` times the extent of the state, or by more than rounding.

    Bounded confidence in discrete time freezes exactly; smooth flows only approach their limit, where a tolerance per
    step, not a distance to the limit, is what this measures.

    Attributes:
        tolerance: Of the extent; 1e-12 is rounding.
    """

    tolerance: float = MOVED

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, positive=True)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        x, previous = to_numpy(x), to_numpy(previous)
        rounding = 4 * np.finfo(previous.dtype).eps * np.abs(previous).max()
        return "frozen" if np.abs(x - previous).max() <= max(self.tolerance * _extent(previous), rounding) else None


@dataclass(frozen=True, eq=False)
class Consensus(StopRule):
    """All particles (of every run in a batch) agree.

    Attributes:
        tolerance: Largest coordinate difference left, in units of position.
    """

    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, positive=True)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return "consensus" if np.ptp(to_numpy(x), axis=-2).max() <= self.tolerance else None


@dataclass(frozen=True, eq=False)
class ClustersSettled(StopRule):
    """Clusters can change no more: groups linked by the radius, each of diameter at most the radius.

    Under bounded confidence with the own opinion counted every group then hears all of itself and nobody else: one more
    discrete step freezes it, and continuous time contracts it to a point of its hull. In the plane and above, hulls may
    be nearer than their points; there the balls around the groups must be further apart than the radius as well.

    Attributes:
        radius: The confidence bound.
    """

    radius: float

    def __post_init__(self) -> None:
        check_number("radius", self.radius, positive=True)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        points = to_numpy(x)
        runs = points.reshape(-1, *points.shape[-2:])
        return "clusters settled" if all(_settled(run, self.radius) for run in runs) else None


@dataclass(frozen=True, eq=False)
class AtTime(StopRule):
    """The time has come.

    Attributes:
        time: End of the run.
    """

    time: float

    def __post_init__(self) -> None:
        check_number("time", self.time, positive=True)

    def __call__(self, t: float, x: Array, previous: Array) -> str | None:
        return "time" if t >= self.time * (1 - MOVED) else None


def _extent(x: np.ndarray) -> float:
    """Largest side of the box around all particles."""
    return float(np.ptp(x, axis=-2).max())


def _settled(points: np.ndarray, radius: float) -> bool:
    if points.shape[1] == 1:
        line = np.sort(points[:, 0])
        starts = np.flatnonzero(np.diff(line, prepend=-np.inf) > radius)
        ends = np.append(starts[1:], line.size) - 1
        return bool((line[ends] - line[starts] <= radius).all())
    from scipy.sparse import csgraph
    from scipy.spatial import cKDTree

    distinct = np.unique(points, axis=0)
    if distinct.shape[0] == 1:
        return True
    tree = cKDTree(distinct)
    links = tree.sparse_distance_matrix(tree, radius, output_type="coo_matrix")
    _, label = csgraph.connected_components(links, directed=False)
    # Every point must be within the radius of its whole group: as many near ones as the group has members.
    near = tree.query_ball_point(distinct, radius, return_length=True)
    return bool((near == np.bincount(label)[label]).all()) and _out_of_reach(distinct, label, radius)


def _out_of_reach(points: np.ndarray, label: np.ndarray, radius: float) -> bool:
    """Whether the balls around the means of the groups are further apart than the radius."""
    from scipy.spatial import cKDTree

    means = np.zeros((label.max() + 1, points.shape[1]))
    np.add.at(means, label, points)
    means /= np.bincount(label)[:, None]
    reach = np.zeros(len(means))
    np.maximum.at(reach, label, np.linalg.norm(points - means[label], axis=1))
    one, two = cKDTree(means).query_pairs(radius + 2 * reach.max(), output_type="ndarray").T
    apart = np.linalg.norm(means[one] - means[two], axis=1)
    return bool((apart - reach[one] - reach[two] > radius).all())
