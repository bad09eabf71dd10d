"""Connected components at one radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import reads
from krause_dynamics._array import Array
from krause_dynamics._html import facts
from krause_dynamics.analysis.clusters._grams import COLUMNS, DIRECT, ROWS, Grams
from krause_dynamics.analysis.clusters._points import FEW, Cloud, Metric, check_radius, closed_radius, is_small, wrapped
from krause_dynamics.analysis.clusters._spanning import spanning_tree

MANY = 2048  # points in the plane and in space from which on a k-d tree pays; each further dimension doubles them
PART = 4096  # points whose neighbours are looked for in one compiled call, some tenths of a second
PAIRS = 64  # near pairs a point up to which they are listed, 1 GB at a million points


@dataclass(frozen=True, repr=False)
class Clusters:
    """A partition into clusters, largest first (by members, then by first member). All arrays are numpy.

    Attributes:
        labels: (n,) cluster of each point; -1 for a point without mass.
        sizes: (count,) members.
        masses: (count,) shares of the total mass; without ``log_mass`` they are sizes / n.
        positions: (count, d) weighted means of the members, as given (not normalised); on a torus in [0, period).
        radius: The radius asked for; unit: of the metric.
        metric: The distance it is measured in.
    """

    labels: np.ndarray
    sizes: np.ndarray
    masses: np.ndarray
    positions: np.ndarray
    radius: float
    metric: str

    def __repr__(self) -> str:
        """One line: how many clusters of how many points, and the largest sizes."""
        shown = ", ".join(str(size) for size in self.sizes[:8]) + (", ..." if self.count > 8 else "")
        among = f"{self.count} of {len(self.labels)} points within {self.radius:g} ({self.metric})"
        return f"Clusters: {among}, sizes {shown}"

    def _repr_html_(self) -> str:
        """The largest clusters as a table, for notebooks."""
        shown = slice(8)
        rows = [
            ("points", len(self.labels)),
            ("radius", f"{self.radius:g} ({self.metric})"),
            ("sizes", ", ".join(map(str, self.sizes[shown])) + (", ..." if self.count > 8 else "")),
            ("shares of mass", ", ".join(f"{share:.3g}" for share in self.masses[shown])),
            ("effective number", f"{self.effective_number:.3g}"),
        ]
        return facts(f"{self.count} clusters", rows)

    @property
    def count(self) -> int:
        """Number of clusters, single points included."""
        return len(self.sizes)

    @property
    def groups(self) -> int:
        """Number of clusters of at least two points."""
        return int(np.sum(self.sizes >= 2))

    @property
    def effective_number(self) -> float:
        """``1 / sum p^2`` of the clusters' shares p (inverse Simpson index): between 1 and `count`."""
        return float(1 / np.sum(self.masses**2))

    @property
    def noise_share(self) -> float:
        """Share of the mass in clusters of one point."""
        return float(np.sum(self.masses[self.sizes == 1]))


@reads()
def find(
    points: Any,
    radius: float,
    *,
    metric: Metric = "euclidean",
    log_mass: Array | None = None,
    closed: bool = True,
    period: Any = None,
) -> Clusters:
    """Connected components of the graph that joins points at distance at most ``radius``.

    What bounded confidence cannot bridge. Pairs within rounding of the radius are decided on direct differences in
    float64; chains count as one cluster. O(n^2 d) time and O(n d) memory; O(n log n) on a line, and, where few
    pairs are near, of many points in up to eight dimensions by a k-d tree.

    Args:
        points: (n, d), or (n,) on a line; numpy, torch, lists or pandas.
        radius: At least 0; in the unit of the metric.
        metric: ``"euclidean"`` |x - y|, ``"chord"`` |u - v| of the unit vectors, ``"cosine"`` 1 - <u, v>
            (= chord^2 / 2). A point at the origin has no direction: its u is 0.
        log_mass: (n,) log-masses; -inf takes a point out.
        closed: Whether the radius itself joins (the rule of Hegselmann & Krause 2002).
        period: Length of a `Torus`, where every coordinate is modulo this, or one for each coordinate, as
            ``space.period`` says it (Euclidean, at most 8 dimensions).

    Returns:
        The partition.

    Raises:
        TypeError: A run instead of one of its states.
        ValueError: Negative radius, unknown metric, NaN, or more than one state.

    Examples:
        >>> find(np.array([0.0, 0.1, 1.0]), radius=0.2).sizes
        array([2, 1])
    """
    cloud = Cloud.of(points, metric, log_mass, period)
    radius = check_radius("radius", radius)
    reach = closed_radius(radius, closed)
    roots = _components_of_near(cloud, reach)
    if roots is None and is_small(cloud.points):
        roots = _components_by_tree(cloud, reach)
    if roots is None:
        roots = _components(cloud.points, cloud.limit(reach))
    return partition(cloud, roots, radius)


def partition(cloud: Cloud, roots: np.ndarray, radius: float) -> Clusters:
    """The result from one representative per present point, (m,)."""
    _, first, inverse, sizes = np.unique(roots, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    inside = rank[inverse]
    sizes = sizes[order]
    masses = np.bincount(inside, weights=cloud.masses)
    # A cluster whose mass underflows still has a place: its plain mean.
    total = masses[inside]
    weights = np.where(total > 0, cloud.masses / np.where(total > 0, total, 1.0), 1 / sizes[inside])
    members = np.argsort(inside, kind="stable")
    starts = np.cumsum(sizes) - sizes
    weights = weights[members, None].astype(cloud.given.dtype)
    if cloud.period is None:
        positions = np.add.reduceat(weights * cloud.given[members], starts, axis=0)
    else:  # the mean around the first member, where the torus is cut far from the cluster
        first_member = cloud.points[members[starts]]
        offset = wrapped(cloud.points[members] - np.repeat(first_member, sizes, axis=0), cloud.period)
        offset = np.where(offset > cloud.period / 2, offset - cloud.period, offset)
        positions = wrapped(first_member + np.add.reduceat(weights * offset, starts, axis=0), cloud.period)
    labels = np.full(cloud.n, -1)
    labels[cloud.index] = inside
    return Clusters(labels, sizes, masses, positions, radius, cloud.metric)


def _components_of_near(cloud: Cloud, radius: float) -> np.ndarray | None:
    """From the pairs that a k-d tree finds, decided on direct differences; ``None`` where these are not few."""
    m, d = cloud.points.shape
    if not (2 <= d <= FEW and m >= MANY << max(d - 3, 0) and 0 <= radius < np.inf):
        return None
    from scipy.sparse import coo_array, csgraph

    points = np.asarray(cloud.points, np.float64)
    # A little wider than the radius: which of the pairs on the edge belong is decided below.
    limit = np.sqrt(max(cloud.limit(radius), 0.0))
    limit += 1e-9 * limit + 1e-14 * float(np.abs(points).max())
    pairs = _pairs_within(points, cloud.period, limit)
    if pairs is None:
        return None
    one, two = pairs
    squared = np.zeros(len(one))
    for axis, line in enumerate(points.T):
        gap = np.abs(line[one] - line[two])
        gap = gap if cloud.period is None else np.minimum(gap, cloud.period[axis] - gap)
        squared += gap * gap
    near = cloud.length(squared) <= radius
    links = coo_array((np.ones(int(near.sum()), bool), (one[near], two[near])), shape=(m, m))
    return np.asarray(csgraph.connected_components(links, directed=False)[1])


def _pairs_within(points: np.ndarray, period: np.ndarray | None, limit: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Pairs i < j of a k-d tree, part by part so that Ctrl-C is answered between; ``None`` where they are many."""
    from scipy.spatial import cKDTree

    tree, found, left = cKDTree(points, boxsize=period), [], PAIRS * len(points)
    for start in range(0, len(points), PART):
        part = tree.indices[start : start + PART]  # neighbours in the tree: near one another
        few = cKDTree(points[part], boxsize=period)
        left -= few.count_neighbors(tree, limit)
        if left < 0:
            return None
        met = few.sparse_distance_matrix(tree, limit, output_type="ndarray")
        one, two = part[met["i"]], met["j"]
        found.append((one[one < two], two[one < two]))
    one, two = (np.concatenate(column) for column in zip(*found, strict=True))
    return one, two


def _components_by_tree(cloud: Cloud, radius: float) -> np.ndarray:
    """Of a small cloud the whole tree costs no more than the pairs at one radius."""
    from krause_dynamics.analysis.clusters import _kernels

    edges, lengths = spanning_tree(cloud)
    joins = int(np.searchsorted(lengths, radius, side="right"))
    return _kernels.forest_labels(edges, joins, len(cloud.points))


def _components(points: np.ndarray, limit: float) -> np.ndarray:
    """Representative of each point's component, (m,), from tiles of inner products."""
    from krause_dynamics.analysis.clusters import _kernels

    m = len(points)
    grams = Grams(points)
    limits = (limit / grams.unit**2, limit)
    parent = np.arange(m)
    for start in range(0, m, COLUMNS):
        stop = min(start + COLUMNS, m)
        right = grams.block(slice(start, stop))
        for row in range(0, stop, ROWS):
            column, end = max(start, row), min(row + ROWS, m)
            if _kernels.is_joined(parent, (row, end), (column, stop)):
                continue
            while True:
                gram = grams.block(slice(row, end)) @ right[column - start :].T
                # float32 gives up after some exact distances: tight clusters need a better gram, not patience.
                finished = _kernels.merge_tile(
                    points, gram, grams.squares, grams.norms, (row, column), limits, parent,
                    m * m if grams.precise else DIRECT,
                )  # fmt: skip
                if finished:
                    break
                grams.refine()
                right = grams.block(slice(start, stop))
    return _kernels.forest_labels(np.column_stack([parent, np.arange(m)]), m, m)
