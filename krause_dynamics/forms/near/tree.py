"""Candidates through a k-d tree with bounding boxes, for data that cells do not suit: many dimensions, far outliers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.near_kernels import padded

LEAF = 32  # points judged together; fewer cost more in walking than they save
MARGIN = (
    2.0**-30
)  # a box is skipped or taken whole only if it is clear of the sphere by this: rounding is never decisive


class Tree(NamedTuple):
    """Boxes in preorder: the left child of node i is i + 1.

    Attributes:
        order: (m,) sources so that every node is a contiguous range.
        points: (d, m) their positions, padded.
        first: First place of a node.
        last: One past the last.
        right: Right child, or -1 in a leaf.
        lower: (nodes, d) lower corners.
        upper: (nodes, d) upper corners.
    """

    order: np.ndarray
    points: np.ndarray
    first: np.ndarray
    last: np.ndarray
    right: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def build(points: np.ndarray) -> Tree:
    """Halve the widest side until at most 32 points, or one position, are left."""
    order = np.arange(points.shape[0])
    nodes = _build(points, order)
    return Tree(order, padded(points[order].T), *nodes)


@njit()
def _select(points, order, first, last, middle, axis):
    """Quickselect: ``order[first:middle]`` below and ``order[middle:last]`` above along ``axis``."""
    low, high = first, last - 1
    while low < high:
        pivot = points[order[(low + high) // 2], axis]
        i, j = low, high
        while i <= j:
            while points[order[i], axis] < pivot:
                i += 1
            while points[order[j], axis] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            break


@njit()
def _build(points, order):
    m, d = points.shape
    capacity = 4 * (m // LEAF + 1) + 1
    first, last = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    right = np.full(capacity, -1, np.int64)
    lower, upper = np.empty((capacity, d)), np.empty((capacity, d))
    waiting_first, waiting_last, parent = np.empty(128, np.int64), np.empty(128, np.int64), np.empty(128, np.int64)
    waiting_first[0], waiting_last[0], parent[0] = 0, m, -1
    depth, used = 1, 0
    while depth > 0:
        depth -= 1
        a, b = waiting_first[depth], waiting_last[depth]
        node = used
        used += 1
        if parent[depth] >= 0:
            right[parent[depth]] = node
        first[node], last[node] = a, b
        widest, axis = 0.0, 0
        for k in range(d):
            low = high = points[order[a], k]
            for t in range(a + 1, b):
                low, high = min(low, points[order[t], k]), max(high, points[order[t], k])
            lower[node, k], upper[node, k] = low, high
            if high - low > widest:
                widest, axis = high - low, k
        if b - a <= LEAF or widest == 0.0:
            continue
        middle = (a + b) // 2
        _select(points, order, a, b, middle, axis)
        waiting_first[depth], waiting_last[depth], parent[depth] = middle, b, node
        waiting_first[depth + 1], waiting_last[depth + 1], parent[depth + 1] = a, middle, -1
        depth += 2
    return first[:used], last[:used], right[:used], lower[:used], upper[:used]


@njit(inline="always")
def _box(queries, i, lower, upper, node):
    """Squared distances from query i to the nearest and the farthest point of a box."""
    nearest, farthest = 0.0, 0.0
    for k in range(queries.shape[1]):
        below, above = lower[node, k] - queries[i, k], queries[i, k] - upper[node, k]
        gap = max(below, above, 0.0)
        nearest += gap * gap
        far = max(-below, -above)
        farthest += far * far
    return nearest, farthest


@njit()
def ranges(queries, block, radii, first, last, right, lower, upper):
    """Candidate ranges of ``queries[block]``: (starts (n + 1,), firsts, lasts, whole); ``whole`` ones need no
    judging.
    """
    starts = np.empty(block.size + 1, np.int64)
    firsts, lasts = np.empty(64 + block.size, np.int64), np.empty(64 + block.size, np.int64)
    whole, stack = np.empty(64 + block.size, np.bool_), np.empty(128, np.int64)
    used = 0
    for t in range(block.size):
        i = block[t]
        starts[t] = used
        square = radii[i if radii.size > 1 else 0] ** 2
        stack[0], depth = 0, 1
        while depth > 0:
            depth -= 1
            node = stack[depth]
            nearest, farthest = _box(queries, i, lower, upper, node)
            if nearest > square * (1.0 + MARGIN):
                continue
            inside = farthest < square * (1.0 - MARGIN)
            if inside or right[node] < 0:
                if used > starts[t] and lasts[used - 1] == first[node] and whole[used - 1] == inside:
                    lasts[used - 1] = last[node]
                    continue
                if used == firsts.size:
                    firsts = np.concatenate((firsts, np.empty(used, np.int64)))
                    lasts = np.concatenate((lasts, np.empty(used, np.int64)))
                    whole = np.concatenate((whole, np.empty(used, np.bool_)))
                firsts[used], lasts[used], whole[used] = first[node], last[node], inside
                used += 1
            else:
                stack[depth], stack[depth + 1] = right[node], node + 1
                depth += 2
    starts[block.size] = used
    return starts, firsts[:used], lasts[:used], whole[:used]
