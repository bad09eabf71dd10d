"""Weights, means and gradients of a block of `tiles`.

Differentiable by autograd as it stands (forward mode too); `banded` runs it without a graph and recomputes a block
for its gradient, so that memory stays O(N W).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import NEVER, Call
from krause_dynamics.forms.attention.tiles import Block


class Rule(NamedTuple):
    """What turns the scores of a block into weights.

    Attributes:
        distance: Which score.
        top_k: k or 0.
        keep_ties: Rule at ties.
        ranked: Whether masses join before the ranking.
        free: Which rows select nobody, (T, B, 1), or ``None``.
    """

    distance: bool
    top_k: int
    keep_ties: bool
    ranked: bool
    free: Tensor | None

    @staticmethod
    def of(call: Call, block: Block) -> Rule:
        """The rule of a call in a block."""
        reach = call.reach
        free = (block.rows + call.offset < reach.exempt)[..., None] if reach.exempt else None
        return Rule(call.distance, reach.top_k, reach.keep_ties, call.ranked, free)


def select(scores: Tensor, rule: Rule) -> Tensor:
    """Which scores (..., S), -inf where not admitted, stay by rank."""
    some = scores > NEVER
    if not 0 < rule.top_k < scores.shape[-1]:
        return some
    best = largest(scores, rule.top_k, rule.keep_ties)
    return best if rule.free is None else best | (some & rule.free)


def largest(scores: Tensor, top_k: int, keep_ties: bool) -> Tensor:
    """Which scores (..., S), -inf where not admitted, are among the k largest; columns ascend, so earlier ones win."""
    some = scores > NEVER
    if not 0 < top_k < scores.shape[-1]:
        return some
    bound = scores.topk(top_k, dim=-1).values[..., -1:]
    if keep_ties:
        return some & (scores >= bound)
    above, tie = scores > bound, scores == bound
    quota = top_k - above.sum(-1, keepdim=True)
    return some & (above | (tie & (tie.cumsum(-1) <= quota)))


class Tile(NamedTuple):
    """What a block's computation depends on differentiably: (b, h, T, B or S, d) and the like."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None


def gather(block: Block, call: Call) -> Tile:
    """Rows and slabs of a block; half types become float32. Scale, masses and biases of the call are spread."""
    q, k, v, scale, pair = call.q, call.k, call.v, call.coefficients(), call.pair_bias
    dtype, group = scale.dtype, q.shape[1] // k.shape[1]
    rows = block.rows.clamp(max=q.shape[2] - 1)
    k, v = (x[:, :, block.columns].to(dtype).repeat_interleave(group, 1) for x in (k, v))
    if pair is not None:
        pair = pair[:, :, rows[..., None], block.columns[:, None, :]].to(dtype)
    mass = None if call.log_mass is None else call.log_mass[:, :, block.columns]
    return Tile(q[:, :, rows].to(dtype), k, v, scale, mass, pair)


def attend(tile: Tile, allowed: Tensor, rule: Rule, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output (b, h, T, B, d_v) and log-partition (b, h, T, B) of a block.

    Args:
        tile: Gathered inputs.
        allowed: Admitted pairs by index, (T, B, S).
        rule: Score and rank.
        keep: Dropout's factors (b, h, T, B, S), or ``None``.
    """
    if tile.log_mass is not None:
        allowed = allowed & (tile.log_mass > NEVER)[..., None, :]
    logs, chosen, spoilt = _log_weights(tile, allowed, rule)
    some, nan = chosen.any(-1, keepdim=True), float("nan")
    log_partition = logs.masked_fill(~some, 0.0).logsumexp(-1, keepdim=True)
    weights = (logs - log_partition).exp()
    weights = weights if keep is None else weights * keep
    absent = ~torch.isfinite(tile.v)
    out = weights @ tile.v.masked_fill(absent, 0.0)
    with torch.no_grad():
        lost = chosen.to(out.dtype) @ absent.to(out.dtype) > 0
    log_partition = log_partition.masked_fill(~some, NEVER).masked_fill(spoilt, nan)
    return out.masked_fill(lost | spoilt, nan), log_partition[..., 0]


def weigh(tile: Tile, allowed: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Weights of a block's pairs and which of them are chosen, both (b, h, T, B, S)."""
    logs, chosen, spoilt = _log_weights(tile, allowed, rule)
    log_partition = logs.masked_fill(~chosen.any(-1, keepdim=True), 0.0).logsumexp(-1, keepdim=True)
    return (logs - log_partition).exp().masked_fill(spoilt, float("nan")), chosen


class Slopes(NamedTuple):
    """Gradients of one block, in the shapes of its `Tile`; scale (b, h), scores of pairs (b, h, T, B, S)."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    pairs: Tensor


def slopes(
    tile: Tile,
    allowed: Tensor,
    rule: Rule,
    keep: Tensor | None,
    grads: tuple[Tensor, Tensor],
) -> Slopes:
    """Gradients of a block by hand (an operator runs below autograd), on the selection made again from the same scores.

    With ``u_j = keep_j <g, v_j>``: ``dL/ds_j = p_j (u_j - sum_l p_l u_l + dL/dlogZ)``; rows that a NaN has spoilt pass
    nothing on.
    """
    logs, chosen, spoilt = _log_weights(tile, allowed, rule)
    q, k, raw = _measure(tile, *_clean(tile), rule.distance)
    log_partition = logs.masked_fill(~chosen.any(-1, keepdim=True), 0.0).logsumexp(-1, keepdim=True)
    weights = (logs - log_partition).exp().masked_fill(spoilt, 0.0)
    grad_out, grad_log = (g.masked_fill(spoilt if g.ndim == 5 else spoilt[..., 0], 0.0) for g in grads)
    rates = grad_out @ tile.v.masked_fill(~torch.isfinite(tile.v), 0.0).mT
    kept = weights
    if keep is not None:
        rates, kept = rates * keep, weights * keep
    pairs = weights * (rates - (weights * rates).sum(-1, keepdim=True) + grad_log[..., None])
    scale = tile.scale[..., None, None, None]
    grad_q, grad_k = pairs @ k, pairs.mT @ q
    if rule.distance:
        grad_q = grad_q - q * pairs.sum(-1, keepdim=True)
        grad_k = grad_k - k * pairs.sum(-2)[..., None]
    return Slopes(scale * grad_q, scale * grad_k, kept.mT @ grad_out, (pairs * raw).sum((-3, -2, -1)), pairs)


def _clean(tile: Tile) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and keys with those set to 0 that hold NaN or infinity, and which they are."""
    lame, broken = (~torch.isfinite(x).all(-1) for x in (tile.q, tile.k))
    return tile.q.masked_fill(lame[..., None], 0.0), tile.k.masked_fill(broken[..., None], 0.0), lame, broken


def _log_weights(tile: Tile, allowed: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """Scores plus masses of the chosen pairs (-inf elsewhere), the choice, and rows that a NaN has spoilt."""
    if tile.log_mass is not None:
        allowed = allowed & (tile.log_mass > NEVER)[..., None, :]
    # A key may hold NaN or infinity as long as nobody hears it: it is set to 0 and only those who hear it get NaN.
    # Likewise a padded query may: its own row is NaN, and no gradient flows through it.
    q, k, lame, broken = _clean(tile)
    scores = tile.scale[..., None, None, None] * _measure(tile, q, k, lame, broken, rule.distance)[2]
    scores = scores if tile.pair_bias is None else scores + tile.pair_bias
    mass = None if tile.log_mass is None else tile.log_mass[..., None, :]
    if mass is not None and rule.ranked:
        scores, mass = scores + mass, None
    scores = scores.masked_fill(~allowed, NEVER)
    spoilt = (allowed & (broken[..., None, :] | lame[..., None])).any(-1, keepdim=True)
    spoilt = spoilt | scores.isnan().any(-1, keepdim=True)
    with torch.no_grad():
        chosen = select(scores, rule)
    logs = scores if mass is None else scores + mass
    return logs.masked_fill(~chosen, NEVER), chosen, spoilt


def _measure(
    tile: Tile, q: Tensor, k: Tensor, lame: Tensor, broken: Tensor, distance: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Centred queries and keys, and what the scale multiplies: ``-|q - k|^2 / 2`` or ``<q, k>`` (b, h, T, B, S)."""
    if not distance:
        return q, k, q @ k.mT
    absent = broken if tile.log_mass is None else broken | (tile.log_mass == NEVER)
    centre = _centre(k.detach().masked_fill(absent[..., None], 0.0), absent)
    q, k = q - centre, k - centre
    squared = q.square().sum(-1, keepdim=True) + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT
    return q, k, -0.5 * squared.clamp(min=0)


def _centre(k: Tensor, broken: Tensor) -> Tensor:
    """The key nearest to the mean of a slab, (b, h, T, 1, d): far from the origin the expanded square would lose all
    digits, and with a key as the centre differences of small integers stay integers, so that ties stay ties.
    """
    count = (~broken).sum(-1, keepdim=True).clamp(min=1)[..., None]
    spread = (k - k.sum(-2, keepdim=True) / count).square().sum(-1).masked_fill(broken, float("inf"))
    nearest = spread.argmin(-1)[..., None, None].expand(*k.shape[:-2], 1, k.shape[-1])
    return k.gather(-2, nearest)
