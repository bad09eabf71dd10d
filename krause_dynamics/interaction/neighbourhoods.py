"""Neighbourhoods: who is admitted. Joined with ``&``; at most one `TopK`, which acts last.

Those that indices decide are in `index_rules`, networks in `networks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from krause_dynamics._arguments import COUNT, COUNT_OR_ZERO, FLAG, POSITIVE_PARAMETER
from krause_dynamics._array import Array, like
from krause_dynamics._value import Value, later
from krause_dynamics.interaction.distance import direct
from krause_dynamics.interaction.reach import Reach


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
        return f"{type(self).__name__} is not one of Everyone, Causal, Window (not periodic), Grid, RandomKeys, TopK"

    def __and__(self, other: Neighbourhood) -> Neighbourhood:
        if not isinstance(other, Neighbourhood):
            raise TypeError(f"a neighbourhood is joined with another by &, such as kd.TopK(4), got {other!r}")
        joined = All(self.parts + other.parts)
        return joined if len(joined.members) > 1 else joined.members[0]


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
        POSITIVE_PARAMETER.read("radius", self.radius)
        FLAG.read("Within closed", self.closed)

    def admits(self, pairs: Pairs) -> Array:
        radius = like(self.radius, pairs.queries)
        radius = radius[..., None] if radius.ndim else radius
        if pairs.queries.shape[-1] == 1:
            distance = pairs.xp.abs(pairs.queries[..., :, None, 0] - pairs.sources[..., None, :, 0])
            return distance <= radius if self.closed else distance < radius
        squared = direct(pairs.queries, pairs.sources)
        with np.errstate(over="ignore"):  # a square beyond the dtype is infinite: everybody is within
            bound = radius**2
        return squared <= bound if self.closed else squared < bound


@dataclass(frozen=True, eq=False)
class TopK(Neighbourhood):
    """The k sources of largest score among those that the other neighbourhoods admit; ranks ignore mass.

    Attributes:
        k: How many, at least 1; more than there are means all.
        ties: ``"index"`` admits exactly k, the earlier source winning; ``"keep"`` admits all that tie with the k-th,
            which keeps permutation equivariance.
        exempt: Leading queries (such as CLS) that select nobody, but keep all that they may hear.
    """

    k: int
    ties: Literal["index", "keep"] = "index"
    exempt: int = later(0)

    hears_itself = True

    def __post_init__(self) -> None:
        COUNT.read("TopK k", self.k)
        COUNT_OR_ZERO.read("TopK exempt", self.exempt)
        if self.ties not in ("index", "keep"):
            raise ValueError(f"TopK ties must be 'index' or 'keep', got {self.ties!r}")

    def admits(self, pairs: Pairs) -> Array:
        """Everyone: ranks need scores, so the selection itself is `select`."""
        return pairs.xp.ones_like(pairs.offset, dtype=pairs.xp.bool)

    @property
    def reach(self) -> Reach:
        return Reach(top_k=int(self.k), keep_ties=self.ties == "keep", exempt=int(self.exempt))

    def select(self, xp: Any, scores: Array, query_index: Array, source_index: Array) -> Array:
        """Which of the admitted pairs stay: scores (..., n, m) with -inf where not admitted -> boolean (..., n, m)."""
        admitted = scores > -float("inf")
        if self.k >= scores.shape[-1]:
            return admitted
        best = self._best(xp, scores, source_index)
        if self.exempt:
            best = best | (query_index < self.exempt)[..., :, None]
        return admitted & best

    def _best(self, xp: Any, scores: Array, source_index: Array) -> Array:
        """Which are among the k largest, or tie with them."""
        if self.ties == "keep":
            threshold = xp.sort(scores, axis=-1)[..., -self.k][..., None]
            return scores >= threshold
        order = xp.argsort(source_index, stable=True)[..., None, :]
        order = xp.broadcast_to(order, scores.shape)
        ranks = _inverse(xp, xp.argsort(-xp.take_along_axis(scores, order, axis=-1), axis=-1, stable=True))
        return xp.take_along_axis(ranks, _inverse(xp, order), axis=-1) < self.k


def _inverse(xp: Any, permutation: Array) -> Array:
    return xp.argsort(permutation, stable=True)


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
