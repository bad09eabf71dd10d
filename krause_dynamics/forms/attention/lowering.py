"""The single bridge from an `Interaction` to the fused forms: index rules become bounds, scores become coefficients.

What all implementations share unchanged sits here; they never import one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics.interaction import (
    Causal,
    DotProduct,
    Everyone,
    Flat,
    Gaussian,
    Grid,
    Interaction,
    Request,
    Score,
    TopK,
    Window,
)

UNBOUNDED = -1


class Rule(NamedTuple):
    """Index rules and rank of a neighbourhood, as whole numbers: hashable, and fit for an operator's schema.

    Attributes:
        left: How many keys before the query are admitted; -1: all.
        right: How many after it; -1: all.
        grid: Empty, or (height, width, radius, 0 chebyshev | 1 manhattan, prefix).
        top_k: k, or 0 for no selection.
        keep_ties: Whether all that tie with the k-th stay.
    """

    left: int = UNBOUNDED
    right: int = UNBOUNDED
    grid: tuple[int, ...] = ()
    top_k: int = 0
    keep_ties: bool = False

    @property
    def prefix(self) -> int:
        """Leading tokens that hear all and are heard by all."""
        return self.grid[4] if self.grid else 0

    @property
    def band(self) -> tuple[int, int]:
        """Keys before and after the query that hold all admitted keys (prefix aside); -1: unbounded."""
        if not self.grid:
            return self.left, self.right
        _, width, radius, metric, _ = self.grid
        reach = radius * width + (radius if metric == 0 else 0)
        return _tighter(self.left, reach), _tighter(self.right, reach)

    def row_length(self, keys: int) -> int:
        """Upper bound of the number of keys that index rules admit to an ordinary row."""
        left, right = self.left, self.right
        length = keys if UNBOUNDED in (left, right) else left + right + 1
        if self.grid:
            _, _, radius, metric, prefix = self.grid
            cells = (2 * radius + 1) ** 2 if metric == 0 else 2 * radius * (radius + 1) + 1
            length = min(length, cells + prefix)
        return min(length, keys)


def _tighter(bound: int, other: int) -> int:
    return other if bound == UNBOUNDED else min(bound, other)


@dataclass(frozen=True)
class Lowered:
    """An interaction met by arrays, ready for a fused implementation.

    Attributes:
        scale: Coefficient a of the score, a number, or (batch or 1, heads or 1) in float32 (float64 for float64
            queries); differentiable, so that gradients of sigma or beta come from autograd.
        distance: ``True``: score ``-a/2 |q - k|^2``; ``False``: ``a <q, k>``.
        rule: Index rules and rank.
        log_mass: (batch or 1, heads or 1, m) log masses joining after the ranking, -inf for absent keys; or ``None``.
        pair_bias: Broadcastable to (batch, heads, n, m), joins before the ranking; or ``None``.
        segments: (s + 1,) cumulative lengths of packed sequences; or ``None``.
        query_offset: Position of the first query among the keys.
        dropout: Probability to drop a weight.
        mask_only: Whether the masses are 0 and -inf only, so that they may join before the ranking too.
        mean_only: Whether the log-partition is not asked for, so that its last terms may be left out.
    """

    scale: Tensor | float
    distance: bool
    rule: Rule
    log_mass: Tensor | None = None
    pair_bias: Tensor | None = None
    segments: Tensor | None = None
    query_offset: int = 0
    dropout: float = 0.0
    mask_only: bool = False
    mean_only: bool = False

    def coefficients(self, q: Tensor) -> Tensor:
        """The scale as (batch, heads), in the dtype in which scores of q are computed."""
        scale = self.scale
        if not isinstance(scale, Tensor):
            # Filled on the device: a copy of one number from the host would make the host wait for a GPU.
            scale = torch.full((1, 1), scale, dtype=score_dtype(q), device=q.device)
        return scale.expand(q.shape[0], q.shape[1])

    def key_bias(self, k: Tensor, heads: int) -> Tensor | None:
        """``c |k|^2 + log_mass``, (b, heads, m): what is added to ``a <q, k>``; computed from k as rounded.

        Args:
            k: Keys (b, h_kv, m, d).
            heads: Heads of the queries.
        """
        shape = (k.shape[0], heads, k.shape[2])
        if not self.distance:
            return None if self.log_mass is None else self.log_mass.expand(shape)
        if self.log_mass is not None:
            # Absent keys may hold NaN, which neither the bias nor its gradient may see.
            absent = (self.log_mass == -float("inf")).all(1, keepdim=True)[..., None]
            k = k.masked_fill(absent, 0.0)
        group = heads // k.shape[1]
        squared = _squares(k)
        bias = self._half() * (squared if group == 1 else squared.repeat_interleave(group, dim=1))
        return (bias if self.log_mass is None else bias + self.log_mass).expand(shape)

    def query_term(self, q: Tensor, squares: Callable[[Tensor], Tensor] | None = None) -> Tensor | float:
        """``b |q|^2``, (b, h, n): joins the log-partition of kernels which compute ``a <q, k> + key_bias``.

        Args:
            q: Queries (b, h, n, d).
            squares: A faster way to compute ``|q|^2`` in the scores' dtype.
        """
        return self._half() * (squares or _squares)(q) if self.distance else 0.0

    def _half(self) -> Tensor | float:
        """Coefficients b = c of a distance, to multiply (b, h, n)."""
        return -0.5 * (self.scale[..., None] if isinstance(self.scale, Tensor) else self.scale)


def score_dtype(q: Tensor) -> torch.dtype:
    """float64 for float64 tokens, else float32."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _squares(x: Tensor) -> Tensor:
    return x.to(score_dtype(x)).square().sum(-1)


@lru_cache(maxsize=256)
def rule_of(
    left: int = UNBOUNDED,
    right: int = UNBOUNDED,
    grid: tuple[int, ...] = (),
    top_k: int = 0,
    keep_ties: bool = False,
) -> Rule:
    """The `Rule` with these numbers; one object per content."""
    return Rule(left, right, grid, top_k, keep_ties)


def lower_neighbourhood(parts: tuple[Any, ...]) -> Rule | str:
    """Index rules and rank of elementary neighbourhoods, or the reason why there is no such form."""
    left = right = UNBOUNDED
    grid: tuple[int, ...] = ()
    top_k, keep_ties = 0, False
    for part in parts:
        if isinstance(part, Everyone):
            continue
        if isinstance(part, Causal):
            right = _tighter(right, 0)
        elif isinstance(part, Window) and not part.periodic:
            half = (part.size - 1) // 2
            left = _tighter(left, half if part.two_sided else part.size - 1)
            right = _tighter(right, half if part.two_sided else 0)
        elif isinstance(part, Grid) and not grid:
            grid = (part.height, part.width, part.radius, int(part.metric == "manhattan"), part.prefix)
        elif isinstance(part, TopK):
            top_k, keep_ties = part.k, part.ties == "keep"
        else:
            return f"{type(part).__name__} is not one of Everyone, Causal, Window (not periodic), one Grid, TopK"
    return rule_of(left, right, grid, top_k, keep_ties)


def lower_score(score: Score) -> tuple[Any, bool] | str:
    """Coefficient a and whether the score is a distance, or the reason why it has no such form."""
    if isinstance(score, Gaussian):
        return score.sigma**-2, True
    if isinstance(score, DotProduct):
        return score.beta, False
    if isinstance(score, Flat):
        return 0.0, False
    return f"{type(score).__name__} is not one of Gaussian, DotProduct, Flat"


def _offset(request: Request) -> int | str:
    """Position of the first query, where queries and sources are each consecutive."""
    if request.positions_are_ranks:
        return 0
    for index in (request.query_index, request.source_index):
        if index.ndim != 1 or not bool((index == index[0] + torch.arange(len(index), device=index.device)).all()):
            return "query_index and source_index must each be consecutive and shared by the batch"
    return int(request.query_index[0] - request.source_index[0])


def _scale(a: Any, request: Request, lead: tuple[int, ...]) -> Tensor | str:
    """A as (prod(lead), 1), where it does not depend on the query."""
    dtype = torch.float64 if request.queries.dtype == torch.float64 else torch.float32
    scale = torch.as_tensor(a, dtype=dtype, device=request.queries.device)
    if scale.ndim and scale.shape[-1] != 1:
        return "the score's parameter differs from query to query"
    return scale.broadcast_to((*lead, 1)).reshape(-1, 1)


def lower(interaction: Interaction, request: Request) -> Lowered | str:
    """An interaction and its arrays in fused form, or the reason why there is none.

    Leading axes are flattened: queries count as (prod(lead), 1, n, d); see `flatten`.

    Args:
        interaction: The rule.
        request: The arrays, torch.

    Returns:
        `Lowered`, or a sentence.
    """
    if not isinstance(request.queries, torch.Tensor):
        return "the arrays are not torch tensors"
    rule, score, offset = lower_neighbourhood(interaction.parts), lower_score(interaction.score), _offset(request)
    for outcome in (rule, score, offset):
        if isinstance(outcome, str):
            return outcome
    assert isinstance(rule, Rule)
    assert isinstance(offset, int)
    if rule.grid:
        height, width, _, _, prefix = rule.grid
        tokens = {request.queries.shape[-2], request.sources.shape[-2], height * width + prefix}
        if len(tokens) > 1 or not request.positions_are_ranks:
            return "a Grid is lowered for one query and one source in each of its cells only"
    lead = leading_shape(request)
    scale = _scale(score[0], request, lead)
    if isinstance(scale, str):
        return scale
    log_mass, pair_bias = request.log_mass, interaction.pair_bias
    if pair_bias is not None:
        if not request.positions_are_ranks:
            return "a pair bias is lowered for the default indices only"
        pair_bias = torch.as_tensor(pair_bias, dtype=scale.dtype, device=scale.device)
        pair_bias = pair_bias.broadcast_to((*lead, *pair_bias.shape[-2:])).reshape(-1, 1, *pair_bias.shape[-2:])
    if log_mass is not None:
        log_mass = log_mass.to(scale.dtype).broadcast_to((*lead, log_mass.shape[-1])).reshape(-1, 1, log_mass.shape[-1])
    return Lowered(scale, bool(score[1]), rule, log_mass, pair_bias, None, offset)


def leading_shape(request: Request) -> tuple[int, ...]:
    """Common leading axes of the arrays of a request."""
    shapes = [x.shape[:-2] for x in (request.queries, request.sources, request.values)]
    return tuple(torch.broadcast_shapes(*shapes))


def flatten(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """(*batch, n, d) -> (prod(lead), 1, n, d)."""
    return x.broadcast_to((*lead, *x.shape[-2:])).reshape(-1, 1, *x.shape[-2:])
