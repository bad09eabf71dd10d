"""Weights of a few rows, and of a few columns, of attention whose log-partition is known: O(n) work, one read.

What an analysis looks at pair by pair: rows of sampled queries, written out, and columns of chosen keys, of which only
the sums over groups of queries are. The weight of every query on itself falls out of the second.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .arguments import on_device
from .primitives import INTERPRETED
from .sums import tokens_of, weights_of, window_bounds

FEWEST = 16  # rows or columns of a matrix product


@triton.jit(do_not_specialize=["n", "left", "right"])
def rows_kernel(
    q, k, z, rows, weights, scale, n, left, right, heads, group, number, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """weights[b, h, s, j] = a_ij of query i = rows[s], 0 outside of its window."""
    s, c = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    j, head = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    i = tl.load(rows + s, mask=s < number, other=0).to(tl.int32)
    there = s < number
    queries = tokens_of(q + b * q_b + h * q_h, i[:, None], q_n, c[None, :], D, WIDTH, there[:, None])
    keys = tokens_of(k + b * k_b + (h // group) * k_h, j[None, :], k_n, c[:, None], D, WIDTH, (j < n)[None, :])
    logs = tl.load(z + head * n + i, mask=there, other=float("inf"))
    _, found = weights_of(queries, keys, logs[:, None], scale)
    admitted = (i[:, None] - j[None, :] <= left) & (j[None, :] - i[:, None] <= right)
    place = weights + (head * number + s[:, None]) * n + j[None, :]
    tl.store(place, tl.where(admitted, found, 0.0), mask=there[:, None] & (j < n)[None, :])


@triton.jit(do_not_specialize=["n", "left", "right"])
def columns_kernel(
    q, k, z, columns, received, own, scale, n, left, right, heads, group, number, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """received[b, h, tile, g, p] = sum of a_ij over queries i of a tile and of group g = floor(GROUPS i / n), for key
    j = columns[b, h, p]; and own[b, h, i] = a_ii.
    """
    tile, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p, c = tl.arange(0, COLUMNS), tl.arange(0, WIDTH)
    i = tile * TILE + tl.arange(0, TILE)
    b, h = head // heads, head % heads
    q, k = q + b * q_b + h * q_h, k + b * k_b + (h // group) * k_h
    there = i < n
    queries = tokens_of(q, i[:, None], q_n, c[None, :], D, WIDTH, there[:, None])
    logs = tl.load(z + head * n + i, mask=there, other=float("inf"))
    j = tl.load(columns + head * number + p, mask=p < number, other=0).to(tl.int32)
    keys = tokens_of(k, j[None, :], k_n, c[:, None], D, WIDTH, (p < number)[None, :])
    _, found = weights_of(queries, keys, logs[:, None], scale)
    admitted = (i[:, None] - j[None, :] <= left) & (j[None, :] - i[:, None] <= right) & there[:, None]
    found = tl.where(admitted, found, 0.0)
    quarter, into = i.to(tl.int64) * GROUPS // n, (head * tl.num_programs(0) + tile) * GROUPS
    for g in range(GROUPS):
        mass = tl.sum(tl.where((quarter == g)[:, None], found, 0.0), 0)
        tl.store(received + (into + g) * number + p, mass, mask=p < number)
    same = tokens_of(k, i[:, None], k_n, c[None, :], D, WIDTH, there[:, None])
    scores = tl.sum(queries.to(tl.float32) * same.to(tl.float32), 1) * scale
    tl.store(own + head * n + i, tl.exp(scores - logs), mask=there)


def rows(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor, chosen: torch.Tensor, scale: float, left: int, right: int
) -> torch.Tensor:
    """Weights exp(scale <q_i, k_j> - z_i) of the queries i = chosen, 0 beyond -right <= i - j <= left.

    Args:
        q: (b, h, n, d), float32 or a half type.
        k: (b, h_kv, n, d).
        z: (b, h, n) log-partition in float32.
        chosen: (S,) queries, int64.
        scale: Of the scores.
        left: Keys before the query that it hears; -1: all.
        right: Keys after it; -1: all.

    Returns:
        (b, h, S, n) in float32.
    """
    q, k, z, shape = _laid_out(q, k, z)
    (b, h, n, _), number = q.shape, len(chosen)
    weights = torch.empty(b, h, number, n, dtype=torch.float32, device=q.device)
    size = max(FEWEST, triton.next_power_of_2(number))
    with on_device(q):
        rows_kernel[(triton.cdiv(n, shape["TILE"]), b * h)](
            q, k, z, chosen, weights, scale, n, *window_bounds(left, right), h, h // k.shape[1], number,
            *q.stride()[:3], *k.stride()[:3], ROWS=size, **shape,
        )  # fmt: skip
    return weights


def columns(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor, chosen: torch.Tensor, scale: float, left: int, right: int,
    groups: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Mass of the keys j = chosen from every group of queries, and the weight of every query on itself.

    Args:
        q: As in `rows`, and so are k, z, scale, left and right.
        k: Likewise.
        z: Likewise.
        chosen: (b, h, C) keys of every head, int64.
        scale: Likewise.
        left: Likewise.
        right: Likewise.
        groups: Query i is in group floor(groups i / n).

    Returns:
        (b, h, groups, C) and (b, h, n), both in float32.
    """
    q, k, z, shape = _laid_out(q, k, z)
    (b, h, n, _), number, tiles = q.shape, chosen.shape[-1], triton.cdiv(q.shape[2], shape["TILE"])
    received = torch.empty(b, h, tiles, groups, number, dtype=torch.float32, device=q.device)
    own = torch.empty(b, h, n, dtype=torch.float32, device=q.device)
    size = max(FEWEST, triton.next_power_of_2(number))
    bounds, chosen = window_bounds(left, right), chosen.contiguous()
    with on_device(q):
        columns_kernel[(tiles, b * h)](
            q, k, z, chosen, received, own, scale, n, *bounds, h, h // k.shape[1], number,
            *q.stride()[:3], *k.stride()[:3], COLUMNS=size, GROUPS=groups, **shape,
        )  # fmt: skip
    return received.sum(2), own


def _laid_out(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, int]]:
    """Tensors whose last axis is dense, and the sizes of tiles."""
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    tile = 16 if INTERPRETED.value else 32 if q.dtype == torch.float32 else 64
    width = max(FEWEST, triton.next_power_of_2(q.shape[-1]))
    return (
        q,
        k,
        z.contiguous(),
        {"D": q.shape[-1], "WIDTH": width, "TILE": tile, "num_warps": 8 if q.dtype == torch.float32 else 4},
    )
