"""Attention weights as (index, weight) of the admitted keys: O(N k) numbers instead of N x N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention import tiles
from krause_dynamics.forms.attention.call import Call, score_dtype
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn.attention import call_of_options

_PAIRS = 1 << 23


def sparse_weights(
    q: Tensor, k: Tensor, neighbourhood: Neighbourhood | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Weights a_ij of the keys which each query hears, before dropout.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d).
        neighbourhood: As in `krause_attention`.
        **options: As in `krause_attention` (sigma, window, top_k, ...).

    Returns:
        ``index`` (batch, heads, n, K) int64, ascending, -1 where there is no key, and ``weight`` of that shape, 0
        there. K is top_k (unless all that tie stay), else the largest number of keys that index rules admit; with
        prefix tokens and without top_k that is all of them.

    Raises:
        TypeError, ValueError: As `krause_attention`.
    """
    return weights_of(call_of_options(q, k, k, neighbourhood, options))


def weights_of(call: Call) -> tuple[Tensor, Tensor]:
    """`sparse_weights` of a checked call."""
    q, reach, (batch, heads, n, _), m = call.q, call.reach, call.q.shape, call.k.shape[2]
    width = m if reach.prefix else reach.row_length(m)
    if reach.top_k and not reach.keep_ties:
        width = min(reach.top_k, m)
    index = torch.full((batch, heads, n + 1, width), -1, dtype=torch.int64, device=q.device)
    weight = torch.zeros(batch, heads, n + 1, width, dtype=score_dtype(q), device=q.device)
    pair = None if call.pair_bias is None else call.pair_bias.expand(batch, heads, n, m)
    mass = None if call.log_mass is None else call.log_mass.expand(batch, -1, m)
    call = call._replace(scale=call.coefficients(), pair_bias=pair, log_mass=mass)
    first, last = tiles.bounds(call)
    for block in tiles.blocks(call, max(1, _PAIRS // (batch * heads))):
        allowed = tiles.admitted(block, reach, call.offset, first, last)
        weights, chosen = tiles.weigh(tiles.gather(block, call), allowed, call.distance, reach.top_k, reach.keep_ties)
        place = chosen.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :width]
        kept = chosen.gather(-1, place)
        columns = block.columns[:, None, :].expand_as(chosen).gather(-1, place)
        shown = min(width, place.shape[-1])
        index[:, :, block.rows, :shown] = columns.masked_fill(~kept, -1)
        weight[:, :, block.rows, :shown] = weights.gather(-1, place).masked_fill(~kept, 0.0)
    return index[:, :, :n], weight[:, :, :n].to(q.dtype)
