"""Attention weights as (index, weight) of the admitted keys: O(N k) numbers instead of N x N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention import tiles
from krause_dynamics.forms.attention.lowering import score_dtype
from krause_dynamics.nn.arguments import lower_call
from krause_dynamics.nn.pattern import split_options

_PAIRS = 1 << 23


def sparse_weights(q: Tensor, k: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Weights a_ij of the keys which each query hears, before dropout.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d).
        **options: As in `krause_attention` (sigma, window, top_k, ...).

    Returns:
        ``index`` (batch, heads, n, K) int64, ascending, -1 where there is no key, and ``weight`` of that shape, 0
        there. K is top_k (with ``ties="index"``), else the largest number of keys that index rules admit; with prefix
        tokens and without top_k that is all of them.

    Raises:
        TypeError, ValueError: As `krause_attention`.
    """
    pattern, rest = split_options(options)
    lowered = lower_call(q, k, k, pattern.rule, **rest)
    (batch, heads, n, _), m, rule = q.shape, k.shape[2], pattern.rule
    width = m if rule.prefix else rule.row_length(m)
    if rule.top_k and not rule.keep_ties:
        width = min(rule.top_k, m)
    index = torch.full((batch, heads, n + 1, width), -1, dtype=torch.int64, device=q.device)
    weight = torch.zeros(batch, heads, n + 1, width, dtype=score_dtype(q), device=q.device)
    offset = lowered.query_offset
    lower, upper = tiles.bounds(rule, n, m, offset, lowered.segments, q.device)
    pair = None if lowered.pair_bias is None else lowered.pair_bias.expand(batch, heads, n, m)
    mass = None if lowered.log_mass is None else lowered.log_mass.expand(batch, -1, m)
    scale = lowered.coefficients(q)
    for block in tiles.blocks(rule, n, m, offset, max(1, _PAIRS // (batch * heads)), q.device):
        tile = tiles.gather(block, q, k, k, scale, mass, pair)
        allowed = tiles.admitted(block, rule, offset, lower, upper)
        weights, chosen = tiles.weigh(tile, allowed, lowered.distance, rule.top_k, rule.keep_ties)
        place = chosen.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :width]
        kept = chosen.gather(-1, place)
        columns = block.columns[:, None, :].expand_as(chosen).gather(-1, place)
        shown = min(width, place.shape[-1])
        index[:, :, block.rows, :shown] = columns.masked_fill(~kept, -1)
        weight[:, :, block.rows, :shown] = weights.gather(-1, place).masked_fill(~kept, 0.0)
    return index[:, :, :n], weight[:, :, :n].to(q.dtype)
