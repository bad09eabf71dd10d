"""Which clusters last over the radius, and a radius chosen with a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from krause_dynamics._arguments import POSITIVE, Is, Maybe, Real, Whole, reads
from krause_dynamics.analysis.clusters.tree import Curve

# Largest possible distance: beyond it nothing can merge, so that "one cluster" can be an answer.
CEILING = {"chord": 2.0, "cosine": 2.0}


@dataclass(frozen=True)
class Persistence:
    """Life of the components of at least ``members`` points while the radius grows; longest ratio first.

    Attributes:
        formation: (k,) radius at which a component first has that many members.
        absorption: (k,) radius at which it joins another such component that formed at a smaller radius; infinite
            for the one that takes all.
        sizes: (k,) members just before absorption.
        masses: (k,) share of the mass then.
        members: The smallest number of points that counts.
    """

    formation: np.ndarray
    absorption: np.ndarray
    sizes: np.ndarray
    masses: np.ndarray
    members: int

    @property
    def ratio(self) -> np.ndarray:
        """``absorption / formation``, (k,); infinite for the last and for those that form at radius 0."""
        safe = np.where(self.formation > 0, self.formation, 1.0)
        return np.where(self.formation > 0, self.absorption / safe, np.inf)

    def alive(self, radius: float) -> int:
        """Number of components of at least ``members`` points at a radius (closed)."""
        return int(np.sum((self.formation <= radius) & (radius < self.absorption)))


@reads(curve=Is(Curve, "clusters.curve(x)"), members=Whole())
def persistence(curve: Curve, members: int = 1) -> Persistence:
    """Radii of formation and absorption of all components of at least ``members`` points, from the spanning tree.

    When two such components meet, the one that formed at the larger radius ends (the elder rule of persistent homology
    in degree 0; with equal radii the smaller one ends). Stray points that join a component end nothing.

    Args:
        curve: From `clusters.curve`; its radii do not matter.
        members: At least 1; with 1 every point is born at radius 0.

    Raises:
        ValueError: ``members`` below 1.
    """
    if members < 1:
        raise ValueError(f"members must be at least 1, got {members}")
    m = len(curve.cloud.masses)
    parent, size, mass = list(range(m)), [1] * m, curve.cloud.masses.tolist()
    born = [0.0 if members == 1 else math.inf] * m
    lives: list[tuple[float, float, int, float]] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for (i, j), length in zip(curve.edges.tolist(), curve.lengths.tolist(), strict=True):
        elder, younger = sorted((root(i), root(j)), key=lambda a: (born[a], -size[a]))
        if born[younger] < math.inf:
            lives.append((born[younger], length, size[younger], mass[younger]))
        parent[younger] = elder
        size[elder] += size[younger]
        mass[elder] += mass[younger]
        if size[elder] >= members and born[elder] == math.inf:
            born[elder] = length
    last = root(0)
    if born[last] < math.inf:
        lives.append((born[last], math.inf, size[last], mass[last]))
    lives.sort(key=lambda life: (-(life[1] / life[0]) if life[0] > 0 else -math.inf, -life[1], -life[2]))
    columns = np.array(lives, dtype=np.float64).reshape(-1, 4).T
    return Persistence(columns[0], columns[1], columns[2].astype(np.int64), columns[3], members)


@reads(curve=Is(Curve, "clusters.curve(x)"))
def linkage(curve: Curve) -> np.ndarray:
    """The merge tree as the linkage matrix of scipy, for ``scipy.cluster.hierarchy.dendrogram`` and its like.

    Args:
        curve: From `clusters.curve`, of m points; its radii do not matter.

    Returns:
        (m - 1, 4): the two clusters that join (a point's place below m, from m on that of the row that made it), the
        length at which they do, ascending, and the number of points they then have.
    """
    m = len(curve.cloud.masses)
    parent, name, size = list(range(m)), list(range(m)), [1] * m
    rows = np.empty((m - 1, 4))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for row, ((i, j), length) in enumerate(zip(curve.edges.tolist(), curve.lengths.tolist(), strict=True)):
        one, other = root(i), root(j)
        low, high = sorted((name[one], name[other]))
        parent[other], name[one] = one, m + row
        size[one] += size[other]
        rows[row] = low, high, length, size[one]
    return rows


@dataclass(frozen=True)
class Choice:
    """A radius and why.

    Attributes:
        radius: Geometric middle of the gap; unit: of the metric.
        count: Number of clusters there.
        low: Largest merge radius below the gap (or the floor).
        high: Smallest merge radius above it (or the ceiling).
        reason: The same in words.
    """

    radius: float
    count: int
    low: float
    high: float
    reason: str

    @property
    def ratio(self) -> float:
        """``high / low``: how much the radius may change without changing the clusters."""
        return self.high / self.low


@reads(curve=Is(Curve, "clusters.curve(x)"), floor=Maybe(Real(0.0)), ceiling=Maybe(POSITIVE))
def choose_radius(curve: Curve, *, floor: float | None = None, ceiling: float | None = None) -> Choice:
    """The radius in the largest relative gap between successive merge radii (the widest plateau of K in log radius).

    Args:
        curve: From `clusters.curve`.
        floor: Radius below which points count as equal; default: rounding of the points, ``4 eps max |x|``.
        ceiling: Radius up to which the search goes, so that "one cluster" can win; default: 2, the largest chord and
            cosine distance; without one (Euclidean) at least two clusters are returned unless all points are equal.

    Returns:
        The choice. Where no two merge radii differ (equal points, a lattice, two points) there is no gap: one cluster
        if all points are equal within the floor, else every point its own.

    Raises:
        ValueError: ``ceiling`` not above ``floor``.
    """
    points = curve.cloud.points
    if floor is None:
        extent = float(np.max(np.abs(points))) or 1.0
        rounding = 4 * float(np.finfo(points.dtype).eps) * extent
        floor = rounding**2 if curve.cloud.metric == "cosine" else rounding
    ceiling = CEILING.get(curve.cloud.metric) if ceiling is None else ceiling
    if ceiling is not None and ceiling <= floor:
        raise ValueError(f"ceiling must be above floor, got {ceiling} and {floor}")
    top = np.inf if ceiling is None else ceiling
    stops = np.minimum(np.append(np.maximum(curve.lengths, floor), [] if ceiling is None else [ceiling]), top)
    ratios = stops[1:] / stops[:-1]
    if len(ratios) == 0 or ratios.max() <= 1.0:
        return _no_gap(len(points), floor, stops)
    place = int(np.argmax(ratios))
    low, high = float(stops[place]), float(stops[place + 1])
    count = len(points) - place - 1
    second = float(np.max(np.delete(ratios, place), initial=1.0))
    reason = (
        f"largest relative gap: nothing merges between {low:.4g} and {high:.4g} (factor {high / low:.3g}, next best "
        f"{second:.3g}), which leaves {count} cluster{'s' if count > 1 else ''}"
    )
    return Choice(math.sqrt(low * high), count, low, high, reason)


def _no_gap(n: int, floor: float, stops: np.ndarray) -> Choice:
    high = float(stops[0]) if len(stops) else floor
    if high <= floor:
        return Choice(floor, 1, floor, floor, f"all {n} points are equal within {floor:.3g}")
    reason = f"no gap: all merges happen at {high:.4g}, below which the {n} points are apart"
    return Choice(math.sqrt(floor * high), n, floor, high, reason)
