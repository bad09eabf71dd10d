"""Compiled loops of the clusters at one radius: direct distances, union-find over tiles. Needs numba."""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit

CHUNK = 64  # coordinates summed before asking whether the pair is already too far apart
REASSOCIATE = {"reassoc", "contract"}  # lets the sum be vectorised; NaN and infinity keep their meaning


@njit(nogil=True, fastmath=REASSOCIATE)
def squared_distance(points, i, j, limit):
    """``|x_i - x_j|^2`` by direct differences in float64, or a partial sum above ``limit`` once it is passed."""
    x, y = points[i], points[j]
    total = 0.0
    for start in range(0, points.shape[1], CHUNK):
        u, v = x[start : start + CHUNK], y[start : start + CHUNK]
        part = 0.0
        for k in range(u.shape[0]):
            difference = np.float64(u[k]) - np.float64(v[k])
            part += difference * difference
        total += part
        if total > limit:
            break
    return total


@njit(nogil=True)
def root(parent, i):
    """The representative of i's set, halving the path on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True)
def merge_tile(points, gram, squares, norms, first, limits, parent, budget):
    """Join the pairs of one tile that are within the radius; the gram decides unless rounding could.

    Args:
        points: (n, d), for direct distances.
        gram: (rows, columns) inner products of scaled, centred points in any precision.
        squares: (n,) squared norms of the scaled, centred points.
        norms: (n,) square roots of ``squares`` times the root of the relative rounding bound of the gram.
        first: Row and column of the points where the tile starts.
        limits: Squared radius (closed) in scaled units, and in units of the points.
        parent: (n,) union-find forest, changed in place.
        budget: Direct distances allowed, so that a tile which needs many can come back with a better gram.

    Returns:
        Whether the tile was finished; what was joined by then stays joined.
    """
    for a in range(gram.shape[0]):
        i = first[0] + a
        mine = root(parent, i)
        for b in range(max(0, i + 1 - first[1]), gram.shape[1]):
            j = first[1] + b
            squared = squares[i] + squares[j] - 2.0 * gram[a, b]
            band = (norms[i] + norms[j]) ** 2
            if squared - band > limits[0]:
                continue
            other = root(parent, j)
            if other == mine:
                continue
            if not squared + band < limits[0]:
                if budget <= 0:
                    return False
                budget -= 1
                if squared_distance(points, i, j, limits[1]) > limits[1]:
                    continue
            parent[max(mine, other)] = min(mine, other)
            mine = min(mine, other)
    return True


@njit(nogil=True)
def is_joined(parent, rows, columns):
    """Whether the points of two ranges (first, last + 1) are all in one component."""
    one = root(parent, rows[0])
    others = 0
    for first, end in (rows, columns):
        for i in range(first, end):
            others += root(parent, i) != one
    return others == 0


@njit(nogil=True)
def forest_labels(edges, count, n):
    """Representative of every point after the first ``count`` edges joined it: (n,)."""
    parent = np.arange(n)
    for step in range(count):
        a, b = root(parent, edges[step, 0]), root(parent, edges[step, 1])
        parent[max(a, b)] = min(a, b)
    labels = np.empty(n, np.int64)
    for i in range(n):
        labels[i] = root(parent, i)
    return labels
