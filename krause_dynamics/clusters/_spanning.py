"""The minimum spanning tree of a cloud, by the way that suits its dimension."""

from __future__ import annotations

import numpy as np

from krause_dynamics.clusters._points import FEW, Cloud


def spanning_tree(cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Edges (m - 1, 2) and lengths (m - 1,) of the minimum spanning tree, shortest first.

    On a line neighbours are joined, O(m log m); else Prim with direct differences in float64, O(m^2 d), memory O(m).
    """
    if cloud.points.shape[1] == 1:
        edges, lengths = _neighbours(cloud)
    else:
        from krause_dynamics.clusters import _kernels

        if cloud.points.shape[1] <= FEW:
            edges, squared = _kernels.flat_spanning_tree(cloud.points, cloud.period or 0.0)
        else:
            edges, squared = _kernels.spanning_tree(cloud.points)
        lengths = cloud.length(squared)
    order = np.argsort(lengths, kind="stable")
    return edges[order], lengths[order]


def _neighbours(cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Edges between neighbours on a line, or on a ring, where the longest gap is the one left open."""
    x = cloud.points[:, 0].astype(np.float64)
    place = np.argsort(x, kind="stable")
    edges, lengths = np.column_stack([place[:-1], place[1:]]), np.diff(x[place])
    if cloud.period is not None and len(x) > 1:
        edges = np.vstack([edges, [place[-1], place[0]]])
        lengths = np.append(lengths, cloud.period - (x[place[-1]] - x[place[0]]))
        longest = int(np.argmax(lengths))
        return np.delete(edges, longest, axis=0), np.delete(lengths, longest)
    return edges, cloud.length(lengths**2) if cloud.metric == "cosine" else lengths
