"""Neighbourhoods: who is admitted. Joined with ``&``; at most one `TopK`, which acts last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

from krause_dynamics._array import Array, device, like, may_look
from krause_dynamics._value import Value, check_count, check_number
from krause_dynamics.interaction.distance import direct
from krause_dynamics.interaction.reach import CHEBYSHEV, MANHATTAN, Reach


class Pairs(NamedTuple):
    """What a neighbourhood may look at: positions (..., n, d), (..., m, d) and indices (..., n), (..., m)."""

    xp: Any
    queries: Array
    sources: Array
    query_index: Array
    source_index: Array

    @property
    def offset(self) -> Array:
        """``i - j`` for all pairs, (..., n, m)."""
        return self.query_index[..., :, None] - self.source_index[..., None, :]


class Neighbourhood(Value, ABC):
    """Who may be heard.

    Attributes:
        is_exchangeable: Whether positions alone decide, so that a measure is enough.
        is_symmetric: Whether i hears j wherever j hears i.
        hears_itself: Whether no query among the sources is left alone: it is admitted itself (or, by rank, a better).
    """

    is_exchangeable: bool = False
    is_symmetric: bool = False
    hears_itself: bool = False

    @abstractmethod
    def admits(self, pairs: Pairs) -> Array:
        """Boolean array broadcastable to (..., n, m): may query i hear source j?"""

    @property
    def parts(self) -> tuple[Neighbourhood, ...]:
        """The elementary neighbourhoods joined here, `TopK` last."""
        return (self,)

    @property
    def reach(self) -> Reach | str:
        """The same as whole numbers, or the reason why there are none: positions or a network decide."""
        return f"{type(self).__name__} is not one of Everyone, Causal, Window (not periodic), one Grid, TopK"

    def __and__(self, other: Neighbourhood) -> Neighbourhood:
        if not isinstance(other, Neighbourhood):
            raise TypeError(f"a neighbourhood is joined with another by &, such as kd.TopK(4), got {other!r}")
        return All(self.parts + other.parts)


@dataclass(frozen=True, eq=False)
class Everyone(Neighbourhood):
    """All sources, the query's own included."""

    is_exchangeable = True
    is_symmetric = True
    hears_itself = True

    def admits(self, pairs: Pairs) -> Array:
        return pairs.xp.ones_like(pairs.offset, dtype=pairs.xp.bool)

    @property
    def reach(self) -> Reach:
        return Reach()


@dataclass(frozen=True, eq=False)
class Others(Neighbourhood):
    """All sources but the query's own: j != i."""

    is_symmetric = True

    def admits(self, pairs: Pairs) -> Array:
        return pairs.offset != 0


@dataclass(frozen=True, eq=False)
class Within(Neighbourhood):
    """Bounded confidence: ``|x - y| <= radius``, decided on direct differences (in 1-D without squaring).

    Attributes:
        radius: Confidence bound, positive (``inf`` admits all); unit: position; (n,) gives one per query.
        closed: Whether the boundary is admitted. Closed is the rule of Hegselmann & Krause (2002).
    """

    radius: Any
    closed: bool = True
    is_exchangeable = True
    is_symmetric = True
    hears_itself = True

    def __post_init__(self) -> None:
        check_number("radius", self.radius, positive=True)

    def admits(self, pairs: Pairs) -> Array:
        radius = like(self.radius, pairs.queries)
        radius = radius[..., None] if radius.ndim else radius
        if pairs.queries.shape[-1] == 1:
            distance = pairs.xp.abs(pairs.queries[..., :, None, 0] - pairs.sources[..., None, :, 0])
            return distance <= radius if self.closed else distance < radius
        squared = direct(pairs.queries, pairs.sources)
        return squared <= radius**2 if self.closed else squared < radius**2


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
        periodic: Indices live on a ring of as many places as there are sources.
    """

    size: int
    two_sided: bool = False
    periodic: bool = False
    hears_itself = True

    def __post_init__(self) -> None:
        check_count("Window size", self.size)
        if self.two_sided and self.size % 2 == 0:
            raise ValueError(f"Window size must be odd when two_sided=True, got {self.size}; use {self.size + 1}")

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]
        return self.two_sided

    def admits(self, pairs: Pairs) -> Array:
        offset, places = pairs.offset, pairs.source_index.shape[-1]
        if self.periodic:
            offset = offset % places
        if not self.two_sided:
            return (offset >= 0) & (offset < self.size)
        half = (self.size - 1) // 2
        if self.periodic:
            return (offset <= half) | (offset >= places - half)
        return (offset <= half) & (offset >= -half)

    @property
    def reach(self) -> Reach | str:
        if self.periodic:
            return "a Window on a ring has no reach; periodic=False has"
        half = (self.size - 1) // 2
        return Reach(half, half) if self.two_sided else Reach(self.size - 1, 0)


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
            check_count(f"Grid {name}", getattr(self, name))
        if self.metric not in ("chebyshev", "manhattan"):
            raise ValueError(f"Grid metric must be 'chebyshev' or 'manhattan', got {self.metric!r}")
        if isinstance(self.prefix, bool) or not isinstance(self.prefix, int) or self.prefix < 0:
            raise ValueError(f"Grid prefix must be a whole number of at least 0, got {self.prefix!r}")

    def admits(self, pairs: Pairs) -> Array:
        xp = pairs.xp
        i, j = pairs.query_index[..., :, None], pairs.source_index[..., None, :]
        cell_i, cell_j = i - self.prefix, j - self.prefix
        rows = xp.abs(cell_i // self.width - cell_j // self.width)
        columns = xp.abs(cell_i % self.width - cell_j % self.width)
        distance = rows + columns if self.metric == "manhattan" else xp.maximum(rows, columns)
        return (distance <= self.radius) | (i < self.prefix) | (j < self.prefix)

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


@dataclass(frozen=True, eq=False)
class TopK(Neighbourhood):
    """The k sources of largest score among those that the other neighbourhoods admit; ranks ignore mass.

    Attributes:
        k: How many, at least 1; more than there are means all.
        ties: ``"index"`` admits exactly k, the earlier source winning; ``"keep"`` admits all that tie with the k-th,
            which keeps permutation equivariance.
    """

    k: int
    ties: Literal["index", "keep"] = "index"

    hears_itself = True

    def __post_init__(self) -> None:
        check_count("TopK k", self.k)
        if self.ties not in ("index", "keep"):
            raise ValueError(f"TopK ties must be 'index' or 'keep', got {self.ties!r}")

    def admits(self, pairs: Pairs) -> Array:
        """Everyone: ranks need scores, so the selection itself is `select`."""
        return pairs.xp.ones_like(pairs.offset, dtype=pairs.xp.bool)

    @property
    def reach(self) -> Reach:
        return Reach(top_k=self.k, keep_ties=self.ties == "keep")

    def select(self, xp: Any, scores: Array, source_index: Array) -> Array:
        """Which of the admitted pairs stay: scores (..., n, m) with -inf where not admitted -> boolean (..., n, m)."""
        admitted = scores > -float("inf")
        if self.k >= scores.shape[-1]:
            return admitted
        if self.ties == "keep":
            threshold = xp.sort(scores, axis=-1)[..., -self.k][..., None]
            return admitted & (scores >= threshold)
        order = xp.argsort(source_index, axis=-1, stable=True)[..., None, :]
        order = xp.broadcast_to(order, scores.shape)
        ranks = _inverse(xp, xp.argsort(-xp.take_along_axis(scores, order, axis=-1), axis=-1, stable=True))
        return admitted & (xp.take_along_axis(ranks, _inverse(xp, order), axis=-1) < self.k)


def _inverse(xp: Any, permutation: Array) -> Array:
    return xp.argsort(permutation, axis=-1, stable=True)


@dataclass(frozen=True, eq=False)
class All(Neighbourhood):
    """Several neighbourhoods at once, written ``a & b``; `TopK` is moved to the end, where it acts.

    Attributes:
        members: The joined neighbourhoods.
    """

    members: tuple[Neighbourhood, ...]
    _reach: ClassVar[Reach | str]

    def __post_init__(self) -> None:
        flat = tuple(part for member in self.members for part in member.parts)
        ranked = tuple(part for part in flat if isinstance(part, TopK))
        if len(ranked) > 1:
            raise ValueError(f"at most one TopK can be joined, got {len(ranked)}; keep the smaller k")
        plain = tuple(part for part in flat if not isinstance(part, TopK | Everyone))
        object.__setattr__(self, "members", (plain + ranked) or (Everyone(),))
        object.__setattr__(self, "_reach", Reach.of(self.members))

    @property
    def is_exchangeable(self) -> bool:  # type: ignore[override]
        return all(part.is_exchangeable for part in self.members)

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]
        return all(part.is_symmetric for part in self.members)

    @property
    def hears_itself(self) -> bool:  # type: ignore[override]
        return all(part.hears_itself for part in self.members)

    @property
    def parts(self) -> tuple[Neighbourhood, ...]:
        return self.members

    @property
    def reach(self) -> Reach | str:
        return self._reach

    def admits(self, pairs: Pairs) -> Array:
        admitted = self.members[0].admits(pairs)
        for part in self.members[1:]:
            admitted = admitted & part.admits(pairs)
        return admitted
