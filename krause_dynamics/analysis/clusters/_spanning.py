"""The minimum spanning tree of a cloud, by the way that suits its dimension."""

from __future__ import annotations

import numpy as np

from krause_dynamics.analysis.clusters._grams import COLUMNS, DIRECT, ROWS, Grams
from krause_dynamics.analysis.clusters._points import Cloud, is_small

KEPT = 1 << 26  # bytes of inner products that are kept between rounds
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
    from krause_dynamics.analysis.clusters import _tree_kernels

    n, d = points.shape
    outside, around = np.array(points.T, np.float64, order="C"), np.zeros(d) if period is None else period
    nearest, partner, index = np.full(n, np.inf), np.zeros(n, np.int64), np.arange(n)
    edges, squares, place, step = np.empty((n - 1, 2), np.int64), np.empty(n - 1), 0, 0
    while step < n - 1:
        end = min(n - 1, step + 1 + PER_CALL // (d * (n - step)))
        place = _tree_kernels.grow(outside, nearest, partner, index, place, (step, end), around, edges, squares)
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


def without(cloud: Cloud, edges: np.ndarray, lengths: np.ndarray, point: int) -> tuple[np.ndarray, np.ndarray]:
    """The tree of a cloud (that of `spanning_tree`) without one of its points, edges numbered without it.

    Edges that do not touch the point stay: none is the longest of a circle, and taking a point away makes no circles.
    What it held together is joined again by Boruvka's rounds, which are few and short.

    Args:
        cloud: The cloud *without* the point.
        edges: (m - 1, 2) of the whole cloud, shortest first.
        lengths: (m - 1,).
        point: Its place in the whole cloud.
    """
    from krause_dynamics.analysis.clusters import _kernels

    if cloud.points.shape[1] == 1 or is_small(cloud.points):
        return spanning_tree(cloud)
    stay = (edges != point).all(axis=1)
    edges, lengths = edges[stay], lengths[stay]
    edges = edges - (edges > point)
    labels = _kernels.forest_labels(edges, len(edges), len(cloud.points))
    component = np.unique(labels, return_inverse=True)[1]
    more, squared = _boruvka(cloud.points, component)
    edges, lengths = np.concatenate([edges, more]), np.concatenate([lengths, cloud.length(squared)])
    order = np.argsort(lengths, kind="stable")
    return edges[order], lengths[order]


def _boruvka(points: np.ndarray, component: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rounds in which every component finds its shortest edge out; each at least halves their number.

    The largest component may wait: the others reach it. Where they are less than half of the points, only their rows
    are computed.

    Args:
        points: (m, d).
        component: (m,) components that are joined already, numbered from 0; by default each point is one. Changed.

    Returns:
        Edges between them, (components - 1, 2), and squared lengths.
    """
    from krause_dynamics.analysis.clusters import _tree_kernels

    m = len(points)
    tiles = _Tiles(points)
    component = np.arange(m) if component is None else component
    count, found = int(component.max()) + 1, 0
    edges, squared = np.empty((count - 1, 2), np.int64), np.empty(count - 1)
    while count > 1:
        rows = np.flatnonzero(component != np.argmax(np.bincount(component)))
        both = 2 * len(rows) > m
        best, edge = np.full(count, np.inf), np.full(count, -1)
        tiles.shortest_edges(np.arange(m) if both else rows, both, component, best, edge)
        found, count = _tree_kernels.join_components(component, best, edge, edges, squared, found)
    return edges, squared


class _Tiles:
    """Inner products of all pairs, tile by tile; those of a small cloud are kept for the next round."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self.grams = Grams(points)
        self.kept: dict[tuple[int, int], np.ndarray] | None = {} if len(points) ** 2 * points.itemsize <= KEPT else None

    def shortest_edges(
        self, rows: np.ndarray, both: bool, component: np.ndarray, best: np.ndarray, edge: np.ndarray
    ) -> None:
        """Fill ``best`` and ``edge`` by one pass over the tiles of the rows with all points (`nearest_tile`)."""
        from krause_dynamics.analysis.clusters._tree_kernels import nearest_tile

        m, grams = len(self.points), self.grams
        for start in range(0, m, COLUMNS):
            for row in range(0, min(start + COLUMNS, m) if both else len(rows), ROWS):
                tile, column = rows[row : row + ROWS], max(start, row) if both else start
                columns = slice(column, start + COLUMNS)
                while True:
                    gram = self._gram(tile, columns, keep=both)
                    budget = m * m if grams.precise else DIRECT
                    if nearest_tile(
                        self.points, gram, grams.squares, grams.norms, tile, column, grams.unit, component, both, best,
                        edge, budget,
                    ):  # fmt: skip
                        break
                    grams.refine()
                    self.kept = None

    def _gram(self, tile: np.ndarray, columns: slice, keep: bool) -> np.ndarray:
        """Products of the tile's points with consecutive ones; kept where the tile is consecutive as well."""
        name = int(tile[0]), columns.start
        if keep and self.kept is not None and name in self.kept:
            return self.kept[name]
        gram: np.ndarray = self.grams.block(tile) @ self.grams.block(columns).T
        if keep and self.kept is not None:
            self.kept[name] = gram
        return gram
