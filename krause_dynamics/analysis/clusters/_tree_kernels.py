"""Compiled loops of the clusters at all radii: spanning trees, and what their edges join. Needs numba."""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.analysis.clusters._kernels import REASSOCIATE, root, squared_distance


@njit(nogil=True)
def nearest_tile(points, gram, squares, norms, rows, column, unit, component, both, best, edge, budget):
    """Shortest edge out of each component, among the pairs of one tile; the gram only says which pairs to measure.

    Args:
        points: (n, d), for direct distances.
        gram: (rows, columns) inner products of scaled, centred points in any precision.
        squares: (n,) squared norms of the scaled, centred points.
        norms: (n,) as in `_kernels.merge_tile`.
        rows: Points of the rows.
        column: Point of the first column.
        unit: Scale of the gram.
        component: (n,) component of each point.
        both: Whether a pair speaks for both its components (then rows and columns meet once only).
        best: (components,) squared length so far, changed in place.
        edge: (components,) the edge, ``smaller end * n + larger end``, which also breaks ties; changed in place.
        budget: Direct distances allowed.

    Returns:
        Whether the tile was finished.
    """
    n = points.shape[0]
    per = 1.0 / (unit * unit)
    for a in range(gram.shape[0]):
        i = rows[a]
        mine = component[i]
        for b in range(max(0, i + 1 - column) if both else 0, gram.shape[1]):
            j = column + b
            other = component[j]
            if other == mine:
                continue
            bound = max(best[mine], best[other]) if both else best[mine]
            squared = squares[i] + squares[j] - 2.0 * gram[a, b]
            if squared - (norms[i] + norms[j]) ** 2 > bound * per:
                continue
            if budget <= 0:
                return False
            budget -= 1
            exact = squared_distance(points, i, j, bound)
            name = min(i, j) * n + max(i, j)
            if exact < best[mine] or (exact == best[mine] and name < edge[mine]):
                best[mine], edge[mine] = exact, name
            if both and (exact < best[other] or (exact == best[other] and name < edge[other])):
                best[other], edge[other] = exact, name
    return True


@njit(nogil=True)
def join_components(component, best, edge, edges, squares, found):
    """Add the shortest edges out of the components to the tree and renumber the components in place.

    Args:
        component: (n,) from 0 to k - 1.
        best: (k,) squared lengths.
        edge: (k,) edges as in `nearest_tile`.
        edges: (n - 1, 2), filled from ``found`` on.
        squares: (n - 1,) likewise.
        found: Number of edges so far.

    Returns:
        Number of edges and of components now.
    """
    n, count = component.shape[0], best.shape[0]
    parent = np.arange(count)
    for number in range(count):
        if edge[number] < 0:
            continue  # the largest component, which did not look
        i, j = edge[number] // n, edge[number] % n
        a, b = root(parent, component[i]), root(parent, component[j])
        if a != b:
            parent[max(a, b)] = min(a, b)
            edges[found, 0], edges[found, 1], squares[found] = i, j, best[number]
            found += 1
    fresh = 0
    renumbered = np.empty(count, np.int64)
    for number in range(count):  # a representative is the smallest of its set, so it comes first
        ahead = root(parent, number)
        if ahead == number:
            renumbered[number] = fresh
            fresh += 1
        else:
            renumbered[number] = renumbered[ahead]
    for i in range(n):
        component[i] = renumbered[component[i]]
    return found, fresh


@njit(nogil=True, fastmath=REASSOCIATE)
def grow(outside, nearest, partner, index, place, steps, period, edges, squares):
    """Some steps of Prim's algorithm in few dimensions, for `_spanning.prim`: O(n d) time each.

    The points outside the tree stay packed, axis by axis, so that all loops are vectors.

    Args:
        outside: (d, n) coordinates; those of the ``left`` points outside of the tree come first.
        nearest: (n,) squared distance of each to the tree.
        partner: (n,) the point of the tree where that is.
        index: (n,) which point each is.
        place: Where the point stands that joins next.
        steps: First step and the one after the last, of n - 1.
        period: (d,) 0 for a flat axis; on a torus its length, and coordinates in [0, period).
        edges: (n - 1, 2) the tree, written.
        squares: (n - 1,) squared lengths, written.

    Returns:
        The next ``place``.
    """
    d, n = outside.shape
    here, squared = np.empty(d), np.empty(n)
    for step in range(steps[0], steps[1]):
        left, newest = n - 1 - step, index[place]
        for k in range(d):
            here[k] = outside[k, place]
            outside[k, place] = outside[k, left]
        nearest[place], partner[place], index[place] = nearest[left], partner[left], index[left]
        squared[:left] = 0.0
        for k in range(d):
            row, around = outside[k], period[k]
            if around > 0.0:
                for q in range(left):
                    gap = abs(here[k] - row[q])
                    gap = min(gap, around - gap)
                    squared[q] += gap * gap
            else:
                for q in range(left):
                    difference = here[k] - row[q]
                    squared[q] += difference * difference
        best = np.inf
        for q in range(left):
            if squared[q] < nearest[q]:
                nearest[q], partner[q] = squared[q], newest
            best = min(best, nearest[q])
        place = 0
        while nearest[place] != best:
            place += 1
        edges[step, 0], edges[step, 1], squares[step] = partner[place], index[place], best
    return place


@njit(nogil=True)
def merge_statistics(edges, masses, least):
    """Follow the partition while the edges join it in the given order.

    Args:
        edges: (n - 1, 2), shortest first.
        masses: (n,) shares of the points.
        least: Smallest number of members of what counts as a group.

    Returns:
        Four arrays (n,) after 0, 1, ..., n - 1 joins: sum of squared shares, number of groups, share of the mass
        outside groups, largest share.
    """
    n = masses.shape[0]
    parent, size, mass = np.arange(n), np.ones(n, np.int64), masses.copy()
    squares, groups, noise, largest = np.empty(n), np.empty(n, np.int64), np.empty(n), np.empty(n)
    squares[0], largest[0] = np.sum(mass * mass), np.max(mass)
    groups[0], noise[0] = (n, 0.0) if least <= 1 else (0, np.sum(mass))
    for step in range(n - 1):
        a, b = root(parent, edges[step, 0]), root(parent, edges[step, 1])
        joined = size[a] + size[b]
        groups[step + 1], noise[step + 1] = groups[step], noise[step]
        for part in (a, b):
            if size[part] >= least:
                groups[step + 1] -= 1
            elif joined >= least:
                noise[step + 1] -= mass[part]
        groups[step + 1] += joined >= least
        squares[step + 1] = squares[step] + 2.0 * mass[a] * mass[b]
        parent[b], size[a] = a, joined
        mass[a] += mass[b]
        largest[step + 1] = max(largest[step], mass[a])
    return squares, groups, np.maximum(noise, 0.0), largest
