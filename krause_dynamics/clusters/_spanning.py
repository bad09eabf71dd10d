"""The minimum spanning tree of a cloud, by the way that suits its dimension."""

from __future__ import annotations

import numpy as np

from krause_dynamics.clusters._points import Cloud

FEW = 8  # dimensions up to which loops over all points, axis by axis, beat loops over the axes, point by point


def spanning_tree(cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Edges (m - 1, 2) and lengths (m - 1,) of the minimum spanning tree, shortest first.

    On a line neighbours are joined, O(m log m); else Prim with direct differences in float64, O(m^2 d), memory O(m).
    """
    if cloud.points.shape[1] == 1:
        x = cloud.points[:, 0].astype(np.float64)
        place = np.argsort(x, kind="stable")
        edges, lengths = np.column_stack([place[:-1], place[1:]]), np.diff(x[place])
        lengths = cloud.length(lengths**2) if cloud.metric == "cosine" else lengths
    else:
        from krause_dynamics.clusters import _kernels

        few = cloud.points.shape[1] <= FEW
        edges, squared = (_kernels.flat_spanning_tree if few else _kernels.spanning_tree)(cloud.points)
        lengths = cloud.length(squared)
    order = np.argsort(lengths, kind="stable")
    return edges[order], lengths[order]
