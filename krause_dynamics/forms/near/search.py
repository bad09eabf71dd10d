"""Who may be near: cells or a k-d tree, chosen from the data, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from krause_dynamics.forms.near import pencils, tree
from krause_dynamics.forms.near.ball import Ball

CELLS_PER_POINT = 4  # more cells than that would be mostly empty: outliers or many dimensions, left to the tree


class Block(NamedTuple):
    """Some queries: their indices (n,), coordinates (d, n), limits (n,) or (1,), and candidate ranges.

    Ranges are (groups, starts, firsts, lasts, whole) as `near_kernels.sums` takes them, places in ``structure.order``.
    """

    members: np.ndarray
    columns: np.ndarray
    limits: np.ndarray
    ranges: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Search:
    """Sources arranged for finding those near a query; make it with `search`.

    Attributes:
        sources: (m, d).
        structure: `pencils.Pencils` or `tree.Tree`.
        ball: Whom to find.
    """

    sources: np.ndarray
    structure: pencils.Pencils | tree.Tree
    ball: Ball

    def blocks(self, queries: np.ndarray, size: int) -> Iterator[Block]:
        """Queries in blocks that lie near each other, with their candidates."""
        structure, same = self.structure, queries is self.sources
        if isinstance(structure, pencils.Pencils):
            order, keys = (structure.order, structure.keys) if same else pencils.sort_queries(structure, queries)
        else:
            order, keys = (structure.order if same else tree.build(queries).order), np.empty(0, np.int64)
        coordinates = structure.points if same else _gathered(queries, order)
        for start in range(0, order.size, size):
            part = slice(start, min(start + size, order.size))
            members, columns = order[part], np.ascontiguousarray(coordinates[:, part])
            limits = self.ball.limits[members] if self.ball.limits.size > 1 else self.ball.limits
            if isinstance(structure, pencils.Pencils):
                ranges = self._in_cells(structure, columns, keys[part])
            else:
                ranges = self._in_tree(structure, queries, members)
            yield Block(members, columns, limits, ranges)

    def _in_cells(self, s: pencils.Pencils, columns: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, ...]:
        reach = float(self.ball.radii.max())
        found = pencils.ranges(columns[s.axis], keys, s.shape, reach, s.points[s.axis], s.starts)
        return (*found, np.zeros(found[2].size, np.bool_))

    def _in_tree(self, s: tree.Tree, queries: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, ...]:
        found = tree.ranges(queries, members, self.ball.radii, s.first, s.last, s.right, s.lower, s.upper)
        return (np.arange(members.size), *found)


def search(sources: np.ndarray, ball: Ball) -> Search:
    """Arrange sources (m, d): cells where at most two axes need them and few would be empty, else the tree."""
    m, d = sources.shape
    if d <= 3:
        shape = pencils.layout(sources, float(ball.radii.max()))[3]
        if shape[0] * shape[1] <= CELLS_PER_POINT * m + 1024:
            return Search(sources, pencils.build(sources, float(ball.radii.max())), ball)
    return Search(sources, tree.build(sources), ball)


def _gathered(points: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Coordinates (d, n) of points in an order; column by column, which numpy gathers faster than rows."""
    columns = np.empty((points.shape[1], order.size))
    for axis, column in enumerate(points.T):
        columns[axis] = column[order]
    return columns
