"""Neighbourhoods that indices decide: the past, windows, pictures, packed sequences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from krause_dynamics._arguments import COUNT, COUNT_OR_ZERO, FLAG
from krause_dynamics._array import Array, device, may_look
from krause_dynamics._value import later
from krause_dynamics.interaction.neighbourhoods import Neighbourhood, Pairs
from krause_dynamics.interaction.reach import CHEBYSHEV, MANHATTAN, Reach


@dataclass(frozen=True, eq=False)
class Causal(Neighbourhood):
    """The query's own and earlier sources: j <= i."""

    hears_itself = True

    def admits(self, pairs: Pairs) -> Array:
        return pairs.offset >= 0

    @property
    def reach(self) -> Reach:
        return Reach(right=0)


@dataclass(frozen=True, eq=False)
class Window(Neighbourhood):
    """The last ``size`` sources, the query's own counted: i - size + 1 <= j <= i.

    Attributes:
        size: W, number of admitted sources away from the ends, at least 1.
        two_sided: Centre the window on the query, |i - j| <= (W - 1) / 2; needs an odd W.
        periodic: Indices live on a ring of as many places as the sources have; images of one behind a border share its.
        prefix_tokens: Leading sources that stay admitted beside the window (as in StreamingLLM, 2309.17453), to no
            query before their time unless ``two_sided``.
    """

    size: int
    two_sided: bool = False
    periodic: bool = False
    prefix_tokens: int = later(0)
    hears_itself = True

    def __post_init__(self) -> None:
        COUNT.read("Window size", self.size)
        FLAG.read("Window two_sided", self.two_sided)
        FLAG.read("Window periodic", self.periodic)
        COUNT_OR_ZERO.read("Window prefix_tokens", self.prefix_tokens)
        if self.periodic and self.prefix_tokens:
            raise ValueError(f"a Window on a ring has no first tokens, got prefix_tokens={self.prefix_tokens}; use 0")
        if self.two_sided and self.size % 2 == 0:
            raise ValueError(f"Window size must be odd when two_sided=True, got {self.size}; use {self.size + 1}")

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]
        return self.two_sided and not self.prefix_tokens

    def admits(self, pairs: Pairs) -> Array:
        offset = pairs.offset
        if self.periodic:
            places = _places(pairs)
            offset = offset % places
        half = (self.size - 1) // 2
        if self.periodic and self.two_sided:
            return (offset <= half) | (offset >= places - half)
        near = (offset <= half) & (offset >= -half) if self.two_sided else (offset >= 0) & (offset < self.size)
        if not self.prefix_tokens:
            return near
        first = (pairs.source_index < self.prefix_tokens)[..., None, :]
        return near | (first if self.two_sided else first & (offset >= 0))

    @property
    def reach(self) -> Reach | str:
        if self.periodic:
            return "a Window on a ring has no reach; periodic=False has"
        half, first = (self.size - 1) // 2, int(self.prefix_tokens)
        return Reach(half, half, first=first) if self.two_sided else Reach(self.size - 1, 0, first=first)


def _places(pairs: Pairs) -> Array:
    """How many places the sources have, each counted once: integers that broadcast against (..., n, m)."""
    rising = pairs.xp.sort(pairs.source_index, axis=-1)
    steps = pairs.xp.astype(rising[..., 1:] != rising[..., :-1], rising.dtype)
    return (1 + pairs.xp.sum(steps, axis=-1))[..., None, None]


@dataclass(frozen=True, eq=False)
class Grid(Neighbourhood):
    """Nearby cells of a height x width picture in raster order, shrinking at the edges (no wrapping).

    Attributes:
        height: Rows of cells.
        width: Columns of cells.
        radius: Largest distance in cells; 1 with ``manhattan`` is the cross of 5, 2 with ``chebyshev`` the 5 x 5 patch.
        metric: ``"chebyshev"`` (squares) or ``"manhattan"`` (diamonds).
        prefix: Number of leading tokens (CLS, registers) which hear all and are heard by all.
    """

    height: int
    width: int
    radius: int = 1
    metric: Literal["chebyshev", "manhattan"] = "chebyshev"
    prefix: int = 0
    is_symmetric = True
    hears_itself = True

    def __post_init__(self) -> None:
        for name in ("height", "width", "radius"):
            COUNT.read(f"Grid {name}", getattr(self, name))
        if self.metric not in ("chebyshev", "manhattan"):
            raise ValueError(f"Grid metric must be 'chebyshev' or 'manhattan', got {self.metric!r}")
        COUNT_OR_ZERO.read("Grid prefix", self.prefix)

    def admits(self, pairs: Pairs) -> Array:
        xp = pairs.xp
        i, j = pairs.query_index[..., :, None], pairs.source_index[..., None, :]
        self._check_places(i, j)
        cell_i, cell_j = i - self.prefix, j - self.prefix
        rows = xp.abs(cell_i // self.width - cell_j // self.width)
        columns = xp.abs(cell_i % self.width - cell_j % self.width)
        distance = rows + columns if self.metric == "manhattan" else xp.maximum(rows, columns)
        return (distance <= self.radius) | (i < self.prefix) | (j < self.prefix)

    def _check_places(self, *index: Array) -> None:
        cells = self.height * self.width + self.prefix
        largest = max(int(places.max()) for places in index) if all(may_look(places) for places in index) else -1
        if largest >= cells:
            raise ValueError(
                f"Grid of {self.height} x {self.width} with prefix={self.prefix} has {cells} tokens, but token "
                f"{largest} takes part; give the grid of this picture"
            )

    @property
    def reach(self) -> Reach:
        metric = MANHATTAN if self.metric == "manhattan" else CHEBYSHEV
        return Reach(grid=(self.height, self.width, self.radius, metric, self.prefix))


@dataclass(frozen=True, eq=False)
class Segments(Neighbourhood):
    """Packed sequences: a query hears only sources of its own sequence.

    Attributes:
        cumulative: (s + 1,) integers ``0 = c_0 <= c_1 <= ... <= c_s``, numpy or torch: sequence t holds the places
            ``c_t`` to ``c_(t+1) - 1`` (``cu_seqlens`` of varlen kernels); what lies on a device is not looked at.
    """

    cumulative: Any

    def __post_init__(self) -> None:
        given = self.cumulative
        if not may_look(given):
            return
        kind = f"{given.dtype} {tuple(given.shape)}" if hasattr(given, "dtype") else type(given).__name__
        if not any(word in kind for word in ("int32", "int64")) or given.ndim != 1:
            raise TypeError(f"Segments needs an array of one-dimensional integers (int32 or int64), got {kind}")
        ends = given.tolist()
        if len(ends) < 2 or ends[0] != 0 or any(a > b for a, b in pairwise(ends)):
            raise ValueError(f"Segments must rise from 0 to the number of tokens, got {ends}")

    def admits(self, pairs: Pairs) -> Array:
        owner = self.owner(pairs.xp, pairs.query_index), self.owner(pairs.xp, pairs.source_index)
        return owner[0][..., :, None] == owner[1][..., None, :]

    def owner(self, xp: Any, index: Array) -> Array:
        """Number of the sequence to which each place belongs, counted from 1; places beyond the end share one."""
        ends = xp.asarray(self.cumulative, dtype=index.dtype, device=device(index))
        return xp.searchsorted(ends, index, side="right")
