"""An `Interaction` of the core as a `Call` of attention: index rules become whole numbers, scores coefficients.

`lifting` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, score_dtype
from krause_dynamics.interaction import (
    Aggregate,
    Interaction,
    Prepared,
    Request,
    Segments,
)
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.interaction.scores import Coefficients

NOTHING = Coefficients(0.0, 0.0, 0.0)
Result = tuple[Tensor, Tensor]


class Lowered(NamedTuple):
    """What a rule says whatever arrays it meets. Parameters are no part of it: a learnable sigma is read at each call.

    Attributes:
        reach: Index rules and rank.
        distance: Whether the score is a distance.
        segments: Cumulative lengths of packed sequences, or ``None``.
    """

    reach: Reach
    distance: bool
    segments: Any

    @staticmethod
    def of(interaction: Interaction) -> Lowered | str:
        """The rule in lowered form, or the reason why it has none."""
        score = interaction.score
        form = score.coefficients()
        if form is None or not (score.of_distance or form.hears_queries_alike):
            return f"{type(score).__name__} is not one of Gaussian, DotProduct, Flat"
        reach, segments = split(interaction.neighbourhood)
        if isinstance(reach, str):
            return reach
        return Lowered(reach, score.of_distance and not score.is_flat, segments)

    def call(self, interaction: Interaction, request: Request, lead: tuple[int, ...]) -> Call | str:
        """The interaction, whose lowered form this is, met by arrays; or the reason why that is no call.

        Leading axes (`leading_shape` of the request) are flattened: queries become (prod(lead), 1, n, d).
        """
        q, k, v = request.queries, request.sources, request.values
        offset = 0 if request.positions_are_ranks else _offset(request)
        if isinstance(offset, str):
            return offset
        if self.reach.grid or self.reach.random or self.segments is not None:
            reason = self._misfit(request)
            if reason:
                return reason
        score = interaction.score.coefficients() or NOTHING
        scale, norm = _factor(score.inner, q, lead), 0.0 if self.distance else _factor(score.source, q, lead)
        if scale is None or norm is None:
            return "the score's parameter differs from query to query"
        log_mass, pair_bias = request.log_mass, interaction.pair_bias
        if pair_bias is not None:
            if not request.positions_are_ranks:
                return "a pair bias is lowered for the default indices only"
            pair_bias = flatten(torch.as_tensor(pair_bias, dtype=score_dtype(q), device=q.device), lead)
        if log_mass is not None:
            log_mass = flatten(log_mass.to(score_dtype(q))[..., None, :], lead)[:, 0]
        segments = None if self.segments is None else self.segments.to(q.device)
        queries = flatten(q, lead)
        keys = queries if k is q else flatten(k, lead)
        values = keys if v is k else flatten(v, lead)
        call = Call(queries, keys, values, scale, self.distance, self.reach, log_mass, pair_bias, segments, offset)
        return call if isinstance(norm, float) and norm == 0.0 else call.with_norm(-norm)

    def _misfit(self, request: Request) -> str | None:
        """Why pictures or packed sequences do not cover the arrays: they hold every token once."""
        n, m = request.queries.shape[-2], request.sources.shape[-2]
        if self.reach.grid:
            height, width, _, _, prefix = self.reach.grid
            if len({n, m, height * width + prefix}) > 1 or not request.positions_are_ranks:
                return "a Grid is lowered for one query and one source in each of its cells only"
        if self.reach.random and self.reach.random[2] not in (0, m):
            return f"RandomKeys has {self.reach.random[2]} tokens, but there are {m} sources"
        if self.segments is not None and (n != m or not request.positions_are_ranks):
            return "Segments are lowered for queries that are the sources, in order"
        return None


def split(neighbourhood: Neighbourhood) -> tuple[Reach | str, Any]:
    """Reach (or the reason why there is none) and cumulative lengths (or ``None``) of a neighbourhood."""
    reach = neighbourhood.reach
    if not isinstance(reach, str):
        return reach, None
    packed = [part for part in neighbourhood.parts if isinstance(part, Segments)]
    if len(packed) != 1:
        return reach, None
    lengths = torch.as_tensor(packed[0].cumulative)
    reach = Reach.of(part for part in neighbourhood.parts if part is not packed[0])
    if isinstance(reach, Reach) and reach.first:
        return (
            "prefix_tokens of a window are those of the array, and packed sequences have their own: unpack them",
            None,
        )
    return reach, lengths


def _offset(request: Request) -> int | str:
    """Position of the first query, where queries and sources are each consecutive."""
    for index in (request.query_index, request.source_index):
        if index.ndim != 1 or not bool((index == index[0] + torch.arange(len(index), device=index.device)).all()):
            return "query_index and source_index must each be consecutive and shared by the batch"
    return int(request.query_index[0] - request.source_index[0])


def _factor(coefficient: Any, q: Tensor, lead: tuple[int, ...]) -> Tensor | float | None:
    """A coefficient as a number or (prod(lead), 1), or ``None`` where it depends on the query."""
    if isinstance(coefficient, int | float):
        return float(coefficient)
    scale = torch.as_tensor(coefficient, dtype=score_dtype(q), device=q.device)
    if scale.ndim and scale.shape[-1] != 1:
        return None
    return scale.broadcast_to((*lead, 1)).reshape(-1, 1)


def leading_shape(request: Request) -> tuple[int, ...]:
    """Common leading axes of the arrays of a request."""
    q, k, v = request.queries.shape[:-2], request.sources.shape[:-2], request.values.shape[:-2]
    return tuple(q if q == k == v else torch.broadcast_shapes(q, k, v))


def flatten(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """(*batch, n, d) -> (prod(lead), 1, n, d)."""
    return x.broadcast_to((*lead, *x.shape[-2:])).reshape(-1, 1, *x.shape[-2:])


def refusal(interaction: Interaction, request: Request, serves: Callable[[Call], str | None]) -> str | None:
    """Why a form that serves calls cannot compute an interaction on arrays; ``None`` where it can."""
    if not isinstance(request.queries, Tensor):
        return "it takes torch tensors"
    lowered = Lowered.of(interaction)
    call = lowered if isinstance(lowered, str) else lowered.call(interaction, request, leading_shape(request))
    return call if isinstance(call, str) else serves(call)


def prepared(interaction: Interaction, attend: Callable[[Call], Result], name: str) -> Prepared:
    """A form that attends to calls, bound to one interaction: lowered here, once, and met by arrays afterwards.

    Raises:
        ValueError: The rule, or later the arrays, have no lowered form.
    """
    lowered = Lowered.of(interaction)
    if isinstance(lowered, str):
        raise ValueError(f"{name} cannot compute this interaction: {lowered}")

    def meet(request: Request) -> Aggregate:
        lead = leading_shape(request)
        call = lowered.call(interaction, request, lead)
        if isinstance(call, str):
            raise ValueError(f"{name} cannot compute this interaction: {call}")
        mean, log_partition = attend(call)
        shape = (*lead, request.queries.shape[-2])
        return Aggregate(mean.reshape(*shape, mean.shape[-1]), log_partition.reshape(shape))

    return meet
