"""Candidates through pencils: cells along at most two axes, and inside each cell the points sorted along a third."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.near_kernels import padded

WIDER = 1.0 + 2.0**-8  # cells wider than the radius: rounding of a cell number never hides a neighbour
GROUP = 8  # queries that share a list of candidates: finding it costs more than judging a few too many
SLACK = 1.0 + 2.0**-40  # likewise for the sorted coordinate, whose exact judge comes later


class Pencils(NamedTuple):
    """Sources sorted by (cell, coordinate along ``axis``).

    Attributes:
        order: (m,) sources in that order.
        points: (d, m) their positions, padded.
        keys: (m,) their cells.
        starts: (cells + 1,) where each cell begins.
        axis: Coordinate sorted inside a cell, the widest.
        grid: The one or two axes with cells; repeated where there is only one.
        lower: Lower corner along ``grid``, (2,).
        shape: Number of cells along ``grid``, (2,).
        width: Width of a cell.
    """

    order: np.ndarray
    points: np.ndarray
    keys: np.ndarray
    starts: np.ndarray
    axis: int
    grid: np.ndarray
    lower: np.ndarray
    shape: np.ndarray
    width: float


def layout(points: np.ndarray, radius: float) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The axes by width: (sorted axis, grid axes (2,), lower corner (2,), cells (2,) as floats which may be huge)."""
    # Column by column: numpy reduces a long, narrow array slowly along its first axis.
    lower = np.array([column.min() for column in points.T])
    with np.errstate(over="ignore"):
        extent = np.array([column.max() for column in points.T]) - lower
    widest = np.argsort(-extent, kind="stable")
    grid = np.resize(widest[1:3] if widest.size > 1 else widest, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        shape = np.floor(extent[grid] / (radius * WIDER)) + 1.0
    if widest.size < 3:
        shape[1] = 1.0
    if widest.size < 2:
        shape[0] = 1.0
    return int(widest[0]), grid, lower[grid], shape


def build(points: np.ndarray, radius: float) -> Pencils:
    """Sort sources (m, d) into cells as wide as the radius."""
    axis, grid, lower, shape = layout(points, radius)
    width, cells = radius * WIDER, shape.astype(np.int64)
    keys = _keys(points, grid, lower, cells, width)
    order, keys, starts = _count(keys, np.argsort(points[:, axis]), int((cells[0] + 4) * (cells[1] + 4)))
    return Pencils(order, padded(points[order].T), keys, starts, axis, grid, lower, cells, width)


def sort_queries(pencils: Pencils, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order in which queries share cells and walk along them, and their cells in that order: (n,) each."""
    keys = _keys(queries, pencils.grid, pencils.lower, pencils.shape, pencils.width)
    return _count(keys, np.argsort(queries[:, pencils.axis]), pencils.starts.size - 1)[:2]


@njit(inline="always")
def _place(coordinate, lower, per_cell, cells):
    """Cell along one axis, with two empty cells before and after for points (queries) outside."""
    place = (coordinate - lower) * per_cell + 2.0
    return np.int64(0) if place < 0.0 else np.int64(place) if place < cells + 3 else cells + 3


@njit()
def _keys(points, grid, lower, shape, width):
    """Number of every point's cell: (n,)."""
    keys, per_cell, stride = np.empty(points.shape[0], np.int64), 1.0 / width, shape[1] + 4
    for j in range(keys.size):
        row = _place(points[j, grid[0]], lower[0], per_cell, shape[0]) if shape[0] > 1 else 2
        keys[j] = row * stride + 2
        if shape[1] > 1:
            keys[j] += _place(points[j, grid[1]], lower[1], per_cell, shape[1]) - 2
    return keys


@njit()
def _count(keys, along, cells):
    """Stable counting sort of the order ``along`` by cell: (order, sorted keys, start of each cell)."""
    starts = np.zeros(cells + 1, np.int64)
    for t in range(along.size):
        starts[keys[t] + 1] += 1
    for c in range(cells):
        starts[c + 1] += starts[c]
    place, order, sorted_keys = starts[:-1].copy(), np.empty(along.size, np.int64), np.empty(along.size, np.int64)
    for t in range(along.size):
        key = keys[along[t]]
        order[place[key]], sorted_keys[place[key]] = along[t], key
        place[key] += 1
    return order, sorted_keys, starts


@njit()
def ranges(coordinates, keys, shape, radius, along, starts):
    """Candidate ranges of queries in the order of `sort_queries`, shared by up to `GROUP` queries of one cell.

    Args:
        coordinates: (n,) of the queries along the sorted axis.
        keys: (n,) their cells.
        shape: Cells along the two axes of the grid.
        radius: Largest radius.
        along: Coordinates of the sources along the sorted axis, by cell.
        starts: Where each cell begins in ``along``.

    Returns:
        groups (n,), starts (groups + 1,), firsts, lasts, as `near_kernels.sums` takes them.
    """
    size = keys.size
    rows, columns = (1 if shape[0] > 1 else 0), (1 if shape[1] > 1 else 0)
    reach, stride, per_group = radius * SLACK, shape[1] + 4, (1 + 2 * rows) * (1 + 2 * columns)
    groups, bounds = np.empty(size, np.int64), np.empty(size + 1, np.int64)
    firsts, lasts = np.empty(size * per_group, np.int64), np.empty(size * per_group, np.int64)
    left, right = np.zeros(9, np.int64), np.zeros(9, np.int64)
    used, made, current, t = 0, 0, np.int64(-1), 0
    while t < size:
        key, low = keys[t], coordinates[t]
        bounds[made] = used
        stop = t
        while stop < size and stop - t < GROUP and keys[stop] == key:
            groups[stop] = made
            stop += 1
        high = coordinates[stop - 1]
        near = 0
        for down in range(-rows, rows + 1):
            for across in range(-columns, columns + 1):
                cell = key + down * stride + across
                inside = 0 <= cell < starts.size - 1
                begin, end = (starts[cell], starts[cell + 1]) if inside else (0, 0)
                if key != current:
                    left[near] = begin + np.searchsorted(along[begin:end], low - reach)
                    right[near] = left[near]
                while left[near] < end and low - along[left[near]] > reach:
                    left[near] += 1
                right[near] = max(right[near], left[near])
                while right[near] < end and along[right[near]] - high <= reach:
                    right[near] += 1
                if right[near] > left[near]:
                    firsts[used], lasts[used] = left[near], right[near]
                    used += 1
                near += 1
        current, t, made = key, stop, made + 1
    bounds[made] = used
    return groups, bounds[: made + 1], firsts[:used], lasts[:used]
