"""The minimum spanning tree of a cloud, by the way that suits its dimension."""

from __future__ import annotations

import numpy as np

from krause_dynamics.analysis.clusters._grams import COLUMNS, DIRECT, ROWS, Grams
from krause_dynamics.analysis.clusters._points import Cloud, is_small

PER_CALL = 10**8  # differences of coordinates in one compiled call, a tenth of a second


def spanning_tree(cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Edges (m - 1, 2) and lengths (m - 1,) of the minimum spanning tree, shortest first.

    On a line neighbours are joined, O(m log m); in few dimensions, and of few points, Prim's algorithm, else Boruvka's,
    O(m^2 d) with memory O(m) beside the points. All lengths are direct differences in float64.
    """
    if cloud.points.shape[1] == 1:
        edges, lengths = _neighbours(cloud)
    else:
        edges, squared = prim(cloud.points, cloud.period) if is_small(cloud.points) else _boruvka(cloud.points)
        lengths = cloud.length(squared)
    order = np.argsort(lengths, kind="stable")
    return edges[order], lengths[order]


def prim(points: np.ndarray, period: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n - 1, 2) and squared lengths (n - 1,) of the spanning tree in the order of growth: O(n^2 d) time.

    Compiled a tenth of a second at a time, so that Ctrl-C is answered between.
    """
    from krause_dynamics.analysis.clusters import _kernels

    n, d = points.shape
    outside, around = np.array(points.T, np.float64, order="C"), np.zeros(d) if period is None else period
    nearest, partner, index = np.full(n, np.inf), np.zeros(n, np.int64), np.arange(n)
    edges, squares, place, step = np.empty((n - 1, 2), np.int64), np.empty(n - 1), 0, 0
    while step < n - 1:
        end = min(n - 1, step + 1 + PER_CALL // (d * (n - step)))
        place = _kernels.grow(outside, nearest, partner, index, place, (step, end), around, edges, squares)
        step = end
    return edges, squares


def _neighbours(cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Edges between neighbours on a line, or on a ring, where the longest gap is the one left open."""
    x = cloud.points[:, 0].astype(np.float64)
    place = np.argsort(x, kind="stable")
    edges, lengths = np.column_stack([place[:-1], place[1:]]), np.diff(x[place])
    if cloud.period is not None and len(x) > 1:
        edges = np.vstack([edges, [place[-1], place[0]]])
        lengths = np.append(lengths, cloud.period[0] - (x[place[-1]] - x[place[0]]))
        longest = int(np.argmax(lengths))
        return np.delete(edges, longest, axis=0), np.delete(lengths, longest)
    return edges, cloud.length(lengths**2) if cloud.metric == "cosine" else lengths


def _boruvka(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds in which every component finds its shortest edge out; each at least halves their number.

    The largest component may wait: the others reach it. Where they are less than half of the points, only their rows
    are computed.
    """
    from krause_dynamics.analysis.clusters import _kernels

    m = len(points)
    grams = Grams(points)
    component, count, found = np.arange(m), m, 0
    edges, squared = np.empty((m - 1, 2), np.int64), np.empty(m - 1)
    while count > 1:
        rows = np.flatnonzero(component != np.argmax(np.bincount(component)))
        both = 2 * len(rows) > m
        best, edge = np.full(count, np.inf), np.full(count, -1)
        _shortest_edges(points, grams, np.arange(m) if both else rows, both, component, best, edge)
        found, count = _kernels.join_components(component, best, edge, edges, squared, found)
    return edges, squared


def _shortest_edges(
    points: np.ndarray,
    grams: Grams,
    rows: np.ndarray,
    both: bool,
    component: np.ndarray,
    best: np.ndarray,
    edge: np.ndarray,
) -> None:
    """Fill ``best`` and ``edge`` by one pass over the tiles of the rows with all points (`_kernels.nearest_tile`)."""
    from krause_dynamics.analysis.clusters._kernels import nearest_tile

    m = len(points)
    for start in range(0, m, COLUMNS):
        columns = slice(start, start + COLUMNS)
        right = grams.block(columns)
        for row in range(0, min(start + COLUMNS, m) if both else len(rows), ROWS):
            tile = rows[row : row + ROWS]
            column = max(start, row) if both else start
            while True:
                gram = grams.block(tile) @ right[column - start :].T
                budget = m * m if grams.precise else DIRECT
                if nearest_tile(
                    points,
                    gram,
                    grams.squares,
                    grams.norms,
                    tile,
                    column,
                    grams.unit,
                    component,
                    both,
                    best,
                    edge,
                    budget,
                ):
                    break
                grams.refine()
                right = grams.block(columns)
