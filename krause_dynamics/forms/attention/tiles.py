"""Banded attention in plain torch operations, for any device: blocks of queries and the keys that they reach."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from krause_dynamics.forms.attention import listed
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction.reach import UNBOUNDED


class Block(NamedTuple):
    """Queries ``rows`` (T, B) in T tiles and the keys ``columns`` (T, S) each tile looks at; ``fresh`` (T, S) marks the
    columns that are real, and not a repetition of a prefix column or beyond the ends; (T, B, S) where rows differ.
    """

    rows: Tensor
    columns: Tensor
    fresh: Tensor


def bounds(call: Call) -> tuple[Tensor, Tensor]:
    """First key of each row by window and segment, and one past the last, (n,) each; grids restrict further."""
    n, m, segments = call.q.shape[2], call.k.shape[2], call.segments
    position = torch.arange(n, device=call.q.device) + call.offset
    reach = call.reach if call.beside is None else call.reach._replace(first=0)
    first, last = reach.interval(position, m)
    if segments is not None:
        owner = torch.searchsorted(segments.to(position.dtype), position, right=True)
        edges = torch.cat([segments.to(position.dtype), segments.new_full((1,), m, dtype=position.dtype)])
        first, last = torch.maximum(first, edges[owner - 1]), torch.minimum(last, edges[owner])
    return first, last


def blocks(call: Call, limit: int) -> list[Block]:
    """Cover all rows: prefix rows against all keys, the others against prefix and band; `limit` pairs a block."""
    n, m, device, offset, reach = call.q.shape[2], call.k.shape[2], call.q.device, call.offset, call.reach
    (left, right), leading = reach.band, reach.leading
    wide = min(n, max(0, reach.prefix - offset))
    if reach.random and _meets_all(call):
        chosen = listed.chosen(reach.random, offset + n, m, device)
        pieces = [_dense(begin, end, m, device) for begin, end in _pieces(0, n, max(1, limit // m))]
        return [block._replace(fresh=chosen[block.rows + offset]) for block in pieces]
    if reach.random:
        return [
            *(_dense(begin, end, m, device) for begin, end in _pieces(0, wide, max(1, limit // m))),
            *_listed(call, wide, max(1, limit // call.q.shape[3])),
        ]
    if UNBOUNDED in (left, right) or left + right + 1 >= m or call.beside is not None:
        return [_dense(begin, end, m, device) for begin, end in _pieces(0, n, max(1, limit // m))]
    found = [_dense(begin, end, m, device) for begin, end in _pieces(0, wide, max(1, limit // m))]
    size = max(16, min(128, (left + right + 1) // 2))
    slab = size + left + right + leading
    for begin, end in _pieces(wide, n, size * max(1, limit // (size * slab))):
        starts = torch.arange(begin, end, size, device=device)
        rows = starts[:, None] + torch.arange(size, device=device)
        band = starts[:, None] + (offset - left) + torch.arange(size + left + right, device=device)
        fresh = (band >= leading) & (band < m)
        prefix = torch.arange(leading, device=device).expand(len(starts), -1)
        columns = torch.cat([prefix, band.clamp(0, m - 1)], 1)
        found.append(
            Block(rows.clamp(max=n), columns, torch.cat([torch.ones_like(prefix, dtype=torch.bool), fresh], 1))
        )
    return found


def _pieces(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    return [(i, min(end, i + size)) for i in range(begin, end, size)]


def _dense(begin: int, end: int, m: int, device: torch.device) -> Block:
    columns = torch.arange(m, device=device)[None]
    return Block(torch.arange(begin, end, device=device)[None], columns, torch.ones_like(columns, dtype=torch.bool))


def _meets_all(call: Call) -> bool:
    """Whether random keys are sooner told apart among all of them than gathered one by one, d numbers each, twice."""
    degree, _, _, prefix = call.reach.random
    n, m, d = call.q.shape[2], call.k.shape[2], call.q.shape[3]
    return m <= (degree + prefix) * d and 0 <= call.offset <= n  # not for single queries with a long past


def _listed(call: Call, begin: int, limit: int) -> list[Block]:
    """Rows from ``begin`` on, each against the keys that are drawn for it: a tile a row."""
    n, device = call.q.shape[2], call.q.device
    rows = torch.arange(begin, n, device=device)
    heard = listed.drawn(call.reach.random, max(0, call.offset + n), device)[(rows + call.offset).clamp(min=0)]
    pieces = _pieces(0, len(rows), max(1, limit // heard.shape[1]))
    return [Block(rows[a:b, None], heard[a:b].clamp(0, call.k.shape[2] - 1), heard[a:b] >= 0) for a, b in pieces]


def admitted(block: Block, call: Call, first: Tensor, last: Tensor) -> Tensor:
    """Which pairs of a block index rules admit: boolean (T, B, S), or (b or 1, 1, T, B, S) where rows begin elsewhere.

    Args:
        block: Queries and keys.
        call: The call.
        first: Its `bounds`, the lower ones.
        last: The upper ones.
    """
    reach, n = call.reach, first.shape[0]
    i = block.rows.clamp(max=n - 1)[..., None]
    j = block.columns[:, None, :]
    near = (j >= first[i]) & (j < last[i])
    if call.beside is not None:
        begin, end = call.beside[:, None, :, i].unbind(2)
        near = near | ((j >= begin) & (j < end))
    elif reach.first:
        near = near | ((j < reach.first) & (j < last[i]))
    fresh = block.fresh if block.fresh.ndim == 3 else block.fresh[:, None, :]
    allowed = near & fresh & (block.rows < n)[..., None]
    return allowed & reach.near(i + call.offset, j) if reach.grid else allowed


def dropout_factors(block: Block, heads: tuple[int, int], n: int, dropout: float, seed: int) -> Tensor:
    """0 or 1/(1-p) for each pair, (b, h, T, B, S), from a counter-based hash: the same in forward and backward."""
    device = block.rows.device
    row = torch.arange(heads[0] * heads[1], device=device).view(*heads, 1, 1, 1) * n + block.rows[..., None]
    hashed = (seed ^ (row * 73856093) ^ (block.columns[:, None, :] * 19349663)) & 0xFFFFFFFF
    for _ in range(3):
        hashed = ((hashed ^ (hashed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    hashed = hashed ^ (hashed >> 16)
    return (hashed >= dropout * 4294967296.0) / (1.0 - dropout)
