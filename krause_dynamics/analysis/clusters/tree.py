"""The whole curve K(radius) from one minimum spanning tree (single linkage)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.analysis.clusters._points import Cloud, Metric, all_but, check_radius
from krause_dynamics.analysis.clusters._spanning import spanning_tree
from krause_dynamics.analysis.clusters._spanning import without as _without
from krause_dynamics.analysis.clusters.partition import Clusters, partition


@dataclass(frozen=True)
class Curve:
    """Clusters at every radius. All arrays are numpy.

    Attributes:
        radii: (r,) where the next four arrays are given; unit: of the metric.
        count: (r,) number of clusters K(radius), single points included, radius closed.
        effective_number: (r,) ``1 / sum p^2`` of the clusters' shares of the mass.
        groups: (r,) clusters of at least two points.
        noise_share: (r,) share of the mass in clusters of one point.
        lengths: (m - 1,) lengths of the tree's edges, ascending, in the metric: the radii at which clusters merge.
        edges: (m - 1, 2) the edges, as places among the present points.
        cloud: The present points.
    """

    radii: np.ndarray
    count: np.ndarray
    effective_number: np.ndarray
    groups: np.ndarray
    noise_share: np.ndarray
    lengths: np.ndarray
    edges: np.ndarray
    cloud: Cloud

    def at(self, radius: float, *, closed: bool = True) -> Clusters:
        """The partition at one radius, the same as `find`'s, without new distances."""
        from krause_dynamics.analysis.clusters import _kernels

        radius = check_radius("radius", radius)
        joins = int(np.searchsorted(self.lengths, radius, side="right" if closed else "left"))
        m = len(self.cloud.masses)
        return partition(self.cloud, _kernels.forest_labels(self.edges, joins, m), radius)

    def without(self, point: int) -> Curve:
        """The curve without one point, at the same radii: what `curve` gives of the others, in a fraction of its time.

        Args:
            point: Its place among the present points, such as 0 for an attention sink.

        Raises:
            ValueError: No such point, or no other one.
        """
        m = len(self.cloud.masses)
        if not 0 <= point < m or m == 1:
            raise ValueError(f"point must be one of {m} of which one stays, got {point}")
        cloud = all_but(self.cloud, point)
        return _of(cloud, *_without(cloud, self.edges, self.lengths, point), self.radii)


@reads()
def curve(
    points: Array,
    radii: Any = None,
    *,
    metric: Metric = "euclidean",
    log_mass: Array | None = None,
    period: Any = None,
) -> Curve:
    """Number, effective number and noise share of the clusters at all radii, from one spanning tree.

    Two points share a cluster at a radius exactly if the tree joins them by edges of at most that length. O(n^2 d)
    time with direct differences in float64, O(n) memory beside the points; O(n log n) on a line.

    Args:
        points: (n, d), or (n,) on a line; numpy or torch.
        radii: Radii to report, each at least 0, in the unit of the metric; by default 0 and every radius at which
            clusters merge, which is the whole step function.
        metric: As in `find`.
        log_mass: (n,) log-masses; -inf takes a point out.
        period: Length of a `Torus`, as in `find`.

    Returns:
        The curve; ``curve.at(radius)`` gives the partition at any radius.

    Raises:
        ValueError: Negative radius, unknown metric, NaN, or more than one state.

    Examples:
        >>> curve(np.array([0.0, 0.1, 1.0]), radii=[0.05, 0.2, 2.0]).count
        array([3, 2, 1])
    """
    cloud = Cloud.of(points, metric, log_mass, period)
    edges, lengths = spanning_tree(cloud)
    radii = np.concatenate([[0.0], lengths]) if radii is None else _check_radii(radii)
    return _of(cloud, edges, lengths, radii)


def _of(cloud: Cloud, edges: np.ndarray, lengths: np.ndarray, radii: np.ndarray) -> Curve:
    """The curve of a tree."""
    from krause_dynamics.analysis.clusters import _tree_kernels

    squares, groups, noise, _ = _tree_kernels.merge_statistics(edges, cloud.masses, 2)
    joins = np.searchsorted(lengths, radii, side="right")
    return Curve(
        radii=radii,
        count=len(cloud.masses) - joins,
        effective_number=1 / squares[joins],
        groups=groups[joins],
        noise_share=noise[joins],
        lengths=lengths,
        edges=edges,
        cloud=cloud,
    )


def _check_radii(radii: Any) -> np.ndarray:
    radii = np.asarray(to_numpy(radii), dtype=np.float64)
    if radii.ndim != 1 or not bool(np.all(radii >= 0)):
        raise ValueError(f"radii must be a list of numbers of at least 0, got {radii!r}")
    return radii
