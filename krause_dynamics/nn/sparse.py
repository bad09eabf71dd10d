"""Attention weights as (index, weight) of the admitted keys: O(N k) numbers instead of N x N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention import tile_weights, tiles
from krause_dynamics.forms.attention.call import Call, score_dtype
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn import checks
from krause_dynamics.nn.attention import answer, call_of_options, left_of

_PAIRS = 1 << 23


def sparse_weights(
    q: Tensor, k: Tensor, neighbourhood: Neighbourhood | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Weights a_ij of the keys which each query hears, before dropout.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d).
        neighbourhood: As in `krause_attention`.
        **options: As in `krause_attention` (sigma, window, top_k, sink, ...).

    Returns:
        ``index`` (batch, heads, n, K) int64, ascending, -1 where there is no key, and ``weight`` of that shape, 0
        there. K is top_k (unless all that tie stay, or rows are exempt), else the largest number of keys that index
        rules admit; with prefix tokens and without top_k that is all of them.

    Raises:
        TypeError, ValueError: As `krause_attention`.
    """
    sink = options.pop("sink", None)
    call = call_of_options(q, k, k, neighbourhood, options)
    if sink is None:
        return weights_of(call)
    checks.check_sink(sink, q.shape[1])
    return weights_of(call, answer(call._replace(dropout=0.0), "auto")[1], sink)


def dense(index: Tensor, weight: Tensor, keys: int) -> Tensor:
    """`sparse_weights` as matrices (batch, heads, n, keys)."""
    whole = weight.new_zeros(*weight.shape[:-1], keys)
    return whole.scatter_add(-1, index.clamp(min=0), weight)


def weights_of(call: Call, log_partition: Tensor | None = None, sink: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`sparse_weights` of a checked call; a sink needs its log-partition (batch, heads, n)."""
    index, weight = _weights_of(call)
    if sink is None or log_partition is None:
        return index, weight
    return index, weight * left_of(log_partition, sink)[..., None].to(weight.dtype)


def _weights_of(call: Call) -> tuple[Tensor, Tensor]:
    q, reach, (batch, heads, n, _), m = call.q, call.reach, call.q.shape, call.k.shape[2]
    width = m if reach.prefix else reach.row_length(m)  # rows of a prefix may hear all
    if reach.top_k and not reach.keep_ties and not reach.exempt:
        width = min(reach.top_k, m)
    index = torch.full((batch, heads, n + 1, width), -1, dtype=torch.int64, device=q.device)
    weight = torch.zeros(batch, heads, n + 1, width, dtype=score_dtype(q), device=q.device)
    pair = None if call.pair_bias is None else call.pair_bias.expand(batch, heads, n, m)
    mass = None if call.log_mass is None else call.log_mass.expand(batch, -1, m)
    call = call._replace(scale=call.coefficients(), pair_bias=pair, log_mass=mass)
    first, last = tiles.bounds(call)
    for block in tiles.blocks(call, max(1, _PAIRS // (batch * heads))):
        allowed = tiles.admitted(block, call, first, last)
        weights, chosen = tile_weights.weigh(
            tile_weights.gather(block, call), allowed, tile_weights.Rule.of(call, block)
        )
        place = chosen.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :width]
        kept = chosen.gather(-1, place)
        columns = block.columns[:, None, :].expand_as(chosen).gather(-1, place)
        shown = min(width, place.shape[-1])
        index[:, :, block.rows, :shown] = columns.masked_fill(~kept, -1)
        weight[:, :, block.rows, :shown] = weights.gather(-1, place).masked_fill(~kept, 0.0)
    return index[:, :, :n], weight[:, :, :n].to(q.dtype)
