"""The dense definition of the one operation, for any array library. Readable first: faster forms must equal it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from krause_dynamics._array import Array, is_torch, like
from krause_dynamics.interaction.neighbourhoods import Everyone, Pairs
from krause_dynamics.interaction.request import Aggregate, Prepared, Request
from krause_dynamics.interaction.rules import Interaction
from krause_dynamics.interaction.scores import bounded

NEVER = -float("inf")


def supports(interaction: Interaction, request: Request) -> str | None:
    """The reference computes everything."""
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """It is what remains where no faster form pays."""
    return True


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule: there is nothing to do beforehand."""
    return partial(aggregate, interaction)


def admitted(interaction: Interaction, request: Request) -> Array:
    """Who hears whom by position, index and rank, sources without mass left out: boolean (..., n, m)."""
    return _scores(interaction, request) > NEVER


def log_weights(interaction: Interaction, request: Request) -> Array:
    """``s + pair_bias + log_mass`` on admitted pairs, -inf elsewhere: (..., n, m). Masses never change ranks."""
    scores = _scores(interaction, request)
    return scores if request.log_mass is None else scores + request.log_mass[..., None, :]


def weights(interaction: Interaction, request: Request) -> Array:
    """The row-stochastic matrix, dense: (..., n, m); a row that admits nobody is 0."""
    shifted, _, _ = exponentials(request.xp, log_weights(interaction, accumulating(request)))
    total = request.xp.sum(shifted, axis=-1, keepdims=True)
    result = shifted / request.xp.where(total > 0, total, request.xp.ones_like(total))
    return request.xp.astype(result, request.queries.dtype, copy=False)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """Mean A (..., n, d_v) and log Z (..., n) of the module's rule, with all pairs in memory."""
    xp, dtype = request.xp, request.queries.dtype
    request = accumulating(request)
    affinities, shift, some = exponentials(xp, log_weights(interaction, request))
    total = xp.sum(affinities, axis=-1)
    safe = xp.where(some, total, xp.ones_like(total))
    mean = (affinities @ present(request, request.values)) / safe[..., None]
    log_partition = xp.where(some, xp.log(safe) + shift, xp.full_like(total, NEVER))
    return Aggregate(xp.astype(mean, dtype, copy=False), log_partition)


def accumulating(request: Request) -> Request:
    """Half types accumulate in float32 (log Z stays float32 then)."""
    if request.queries.dtype.itemsize >= 4:
        return request
    single = request.xp.float32

    def cast(x: Array | None) -> Array | None:
        return x if x is None else request.xp.astype(x, single)

    q, s, v, m = (cast(x) for x in (request.queries, request.sources, request.values, request.log_mass))
    return replace(request, queries=q, sources=s, values=v, log_mass=m)


def present(request: Request, points: Array) -> Array:
    """Sources without mass are replaced by 0, so that padding may hold anything, NaN included."""
    if request.log_mass is None:
        return points
    there = (request.log_mass > NEVER)[..., None]
    return request.xp.where(there, points, request.xp.zeros_like(points))


def stand_ins(request: Request, points: Array) -> Array:
    """Sources without mass are replaced by the first that has some, so that they move no centre of the cloud."""
    if request.log_mass is None:
        return points
    xp, there = request.xp, request.log_mass > NEVER
    points, _ = xp.broadcast_arrays(points, there[..., None])
    first = xp.argmax(xp.astype(there, xp.int32), axis=-1)[..., None, None]
    first = xp.broadcast_to(first, (*points.shape[:-2], 1, points.shape[-1]))
    known = xp.take_along_axis(present(request, points), first, axis=-2)
    return xp.where(there[..., None], points, known.detach() if is_torch(known) else known)


def _scores(interaction: Interaction, request: Request) -> Array:
    """Score plus pair bias on admitted pairs, -inf elsewhere; `TopK` applied last."""
    xp = request.xp
    sources = stand_ins(request, request.sources)
    score = interaction.score if interaction.top_k is None else interaction.score.for_ranks
    scores = score(xp, request.queries, sources)
    if interaction.pair_bias is not None:
        scores = scores + _pair_bias(interaction, request)
    if request.log_mass is None and isinstance(interaction.neighbourhood, Everyone):
        return bounded(interaction.score, scores)
    pairs = Pairs(xp, request.queries, sources, request.query_index, request.source_index)
    allowed = interaction.neighbourhood.admits(pairs)
    if request.log_mass is not None:
        allowed = allowed & (request.log_mass > NEVER)[..., None, :]
    nobody = xp.full_like(scores, NEVER)
    scores = xp.where(allowed, scores, nobody)
    if interaction.top_k is not None:
        chosen = scores.detach() if is_torch(scores) else scores
        stays = interaction.top_k.select(xp, chosen, request.query_index, request.source_index)
        scores = xp.where(stays, scores, nobody)
    return bounded(interaction.score, scores)


def _pair_bias(interaction: Interaction, request: Request) -> Array:
    bias = like(interaction.pair_bias, request.queries)
    if request.positions_are_ranks:
        return bias
    return bias[..., request.query_index[..., :, None], request.source_index[..., None, :]]


def exponentials(xp: Any, logs: Array) -> tuple[Array, Array, Array]:
    """``exp(logs - shift)``, the shift (row maximum, 0 where the row is empty) and whether the row admits anyone."""
    largest = xp.max(logs.detach() if is_torch(logs) else logs, axis=-1)
    some = largest > NEVER
    shift = xp.where(some, largest, xp.zeros_like(largest))
    return xp.exp(logs - shift[..., None]), shift, some
