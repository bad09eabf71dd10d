"""Index rules as whole numbers: how far a query hears by index, and how many it ranks.

The one place where a window becomes numbers. Forms read them here; what a neighbourhood means is its own `admits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

UNBOUNDED = -1
CHEBYSHEV, MANHATTAN = 0, 1


class Reaches(Protocol):
    """A neighbourhood, as far as it concerns a reach."""

    @property
    def reach(self) -> Reach | str:
        """Its whole numbers, or the reason why it has none."""


class Reach(NamedTuple):
    """Index rules and rank of a neighbourhood: hashable, and fit for an operator's schema and a kernel's constants.

    Attributes:
        left: How many sources before the query are admitted; -1: all.
        right: How many after it; -1: all.
        grid: Empty, or (height, width, radius, 0 chebyshev | 1 manhattan, prefix).
        top_k: k, or 0 for no selection.
        keep_ties: Whether all that tie with the k-th stay.
        first: Leading sources that stay admitted beside the window; with ``right = 0`` never before their time.
        exempt: Leading queries that select nobody, but keep all that they may hear.
        random: Empty, or the arguments of `random_keys.table`.
    """

    left: int = UNBOUNDED
    right: int = UNBOUNDED
    grid: tuple[int, ...] = ()
    top_k: int = 0
    keep_ties: bool = False
    first: int = 0
    exempt: int = 0
    random: tuple[int, ...] = ()

    @staticmethod
    def of(parts: Iterable[Reaches]) -> Reach | str:
        """The joined reach of elementary neighbourhoods, or the reason why they have none."""
        joined = Reach()
        for part in parts:
            reach = part.reach
            if isinstance(reach, str):
                return reach
            if (joined.grid or joined.random) and (reach.grid or reach.random):
                return "two pictures, or random keys twice, are no reach at once; one Grid or one RandomKeys is"
            if joined.first != reach.first and UNBOUNDED not in (joined.left, reach.left):
                return "two windows that keep different prefix_tokens are no reach; one Window is"
            joined = joined.joined(reach)
        return joined

    def joined(self, other: Reach) -> Reach:
        """What both admit; at most one of them has a grid or random keys, and one a rank."""
        return Reach(
            _tighter(self.left, other.left),
            _tighter(self.right, other.right),
            self.grid or other.grid,
            self.top_k or other.top_k,
            self.keep_ties or other.keep_ties,
            max(self.first, other.first),
            max(self.exempt, other.exempt),
            self.random or other.random,
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The fields in one row of whole numbers, the grid's last; `from_numbers` is the inverse."""
        ranks = self.top_k, int(self.keep_ties), self.first, self.exempt
        return (self.left, self.right, *ranks, len(self.random), *self.random, *self.grid)

    @staticmethod
    def from_numbers(numbers: Iterable[int]) -> Reach:
        """The reach whose `numbers` these are."""
        left, right, top_k, keep_ties, first, exempt, size, *rest = numbers
        return Reach(
            left, right, tuple(rest[size:]), top_k, bool(keep_ties), first, exempt, tuple(rest[:size])
        )  # fmt: skip

    @property
    def prefix(self) -> int:
        """Leading tokens that hear all and are heard by all."""
        return self.grid[4] if self.grid else self.random[3] if self.random else 0

    @property
    def leading(self) -> int:
        """Leading sources that rows may hear beyond their band."""
        return max(self.prefix, self.first)

    @property
    def is_band(self) -> bool:
        """Whether a window (or everyone) is all that it is: no grid, no rank, nobody beside it."""
        return not (self.grid or self.top_k or self.first or self.random)

    @property
    def offsets(self) -> tuple[float, float]:
        """Smallest and largest ``i - j`` that the window admits; infinite where it has no end."""
        low = -math.inf if self.right == UNBOUNDED else -self.right
        return low, math.inf if self.left == UNBOUNDED else self.left

    def interval(self, position: Any, keys: int) -> tuple[Any, Any]:
        """First source that the window admits and one past the last; whole numbers, or arrays of them.

        Where the first tokens are not bound to the past, those that follow the window at once are part of it.

        Args:
            position: Where queries stand among the sources, a number or integers of any array library.
            keys: Number of sources.
        """
        first = 0 * position if self.left == UNBOUNDED else position - self.left
        last = 0 * position + keys if self.right == UNBOUNDED else position + (self.right + 1)
        if self.first and self.right > 0:
            last = _at_least(last, self.first)
        return _inside(first, keys), _inside(last, keys)

    @property
    def band(self) -> tuple[int, int]:
        """Sources before and after the query that hold all admitted ones (leading ones aside); -1: unbounded."""
        if not self.grid:
            return self.left, self.right
        _, width, radius, metric, _ = self.grid
        span = radius * width + (radius if metric == CHEBYSHEV else 0)
        return _tighter(self.left, span), _tighter(self.right, span)

    @property
    def cells(self) -> int:
        """Cells of the picture within the radius, away from its edges; 0 without a grid."""
        if not self.grid:
            return 0
        _, _, radius, metric, _ = self.grid
        return (2 * radius + 1) ** 2 if metric == CHEBYSHEV else 2 * radius * (radius + 1) + 1

    def row_length(self, keys: int) -> int:
        """Upper bound of the number of sources that index rules admit to an ordinary row."""
        length = keys if UNBOUNDED in (self.left, self.right) else self.left + self.right + 1
        if self.grid:
            length = min(length, self.cells + self.prefix)
        if self.random:
            length = min(length, self.random[0] + self.prefix)
        return min(length + self.first, keys)

    def near(self, i: Any, j: Any) -> Any:
        """Whether cells of the picture are near or one of the two leads; integer arrays that broadcast, any library."""
        _, width, radius, metric, prefix = self.grid
        i, j = i - prefix, j - prefix
        rows, columns = abs(i // width - j // width), abs(i % width - j % width)
        close = rows + columns <= radius if metric == MANHATTAN else (rows <= radius) & (columns <= radius)
        return close | (i < 0) | (j < 0)


def _tighter(bound: int, other: int) -> int:
    if UNBOUNDED in (bound, other):
        return max(bound, other)
    return min(bound, other)


def _at_least(x: Any, bound: int) -> Any:
    return max(x, bound) if isinstance(x, int) else x.clip(bound)


def _inside(x: Any, keys: int) -> Any:
    return min(max(x, 0), keys) if isinstance(x, int) else x.clip(0, keys)
