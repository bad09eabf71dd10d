"""Sums over the weights of attention whose log-partition is known: by key and group of queries, by row, by distance.

Scores are computed again, tile by tile, and never written. One kernel owns keys and sums over queries, the other owns
queries and sums over keys, so that nothing is added by atomics and a result is the same bits each time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .primitives import INTERPRETED

FARTHEST = 1 << 30  # stands for "no bound" of a window


@triton.jit
def _weights(q, k, z, i, j, n, m, scale, left, right):
    """Scores less the rows' log-partitions of a tile, and the weights, 0 where a pair is not admitted."""
    scores = tl.dot(q, k, input_precision="ieee") * scale
    admitted = (i[:, None] - j[None, :] <= left) & (j[None, :] - i[:, None] <= right)
    admitted = admitted & (i[:, None] < n) & (j[None, :] < m)
    logs = tl.where(admitted, scores - z[:, None], float("-inf"))
    return tl.where(admitted, scores, 0.0), tl.exp(logs)


@triton.jit(do_not_specialize=["n", "m", "left", "right", "groups"])
def by_key(
    q, k, z, received, scale, n, m, left, right, groups, heads, group, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """received[b, h, g, j] = sum of a_ij over queries i of group g, [ceil(g n / groups), ceil((g + 1) n / groups))."""
    j = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    head = tl.program_id(1).to(tl.int64)
    b, h, c, r = head // heads, head % heads, tl.arange(0, WIDTH), tl.arange(0, ROWS)
    keys = tl.load(
        k + b * k_b + (h // group) * k_h + j.to(tl.int64)[None, :] * k_n + c[:, None],
        mask=(j[None, :] < m) & (c[:, None] < D), other=0.0,
    )  # fmt: skip
    lowest, highest = tl.program_id(0) * KEYS - right, tl.program_id(0) * KEYS + KEYS - 1 + left
    for g in range(groups):
        begin, end = (g * n + groups - 1) // groups, ((g + 1) * n + groups - 1) // groups
        begin, end = tl.maximum(begin, lowest), tl.minimum(end, highest + 1)
        total = tl.zeros([KEYS], tl.float32)
        for start in range(begin, end, ROWS):
            i = (start + r).to(tl.int64)
            there = i < end
            queries = tl.load(
                q + b * q_b + h * q_h + i[:, None] * q_n + c[None, :],
                mask=there[:, None] & (c[None, :] < D), other=0.0,
            )  # fmt: skip
            logs = tl.load(z + head * n + i, mask=there, other=float("inf"))
            _, weights = _weights(queries, keys, logs, i, j, n, m, scale, left, right)
            total += tl.sum(weights, 0)
        tl.store(received + (head * groups + g) * m + j, total, mask=j < m)


@triton.jit(do_not_specialize=["n", "m", "left", "right"])
def by_query(
    q, k, z, moment, own, away, bins, scale, n, m, left, right, heads, group, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Of each row sum_j a_ij s_ij, a_ii and sum_j a_ij |i - j|; of each tile of rows the weight by distance.

    Bin 0 holds distance 0, bin p > 0 distances in [2^(p - 1), 2^p), the last all farther ones.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1).to(tl.int64)
    b, h, c, t = head // heads, head % heads, tl.arange(0, WIDTH), tl.arange(0, KEYS)
    queries = tl.load(
        q + b * q_b + h * q_h + i.to(tl.int64)[:, None] * q_n + c[None, :],
        mask=(i[:, None] < n) & (c[None, :] < D), other=0.0,
    )  # fmt: skip
    logs = tl.load(z + head * n + i, mask=i < n, other=float("inf"))
    first = tl.maximum(0, tl.program_id(0) * ROWS - left) // KEYS * KEYS
    last = tl.minimum(m, tl.program_id(0) * ROWS + ROWS + right)
    moments, itself, far = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    place, one = tl.arange(0, BINS), tl.full([], 1, tl.int32)
    histogram = tl.zeros([BINS], tl.float32)
    for start in range(first, last, KEYS):
        j = (start + t).to(tl.int64)
        keys = tl.load(
            k + b * k_b + (h // group) * k_h + j[None, :] * k_n + c[:, None],
            mask=(j[None, :] < m) & (c[:, None] < D), other=0.0,
        )  # fmt: skip
        scores, weights = _weights(queries, keys, logs, i, j, n, m, scale, left, right)
        moments += tl.sum(weights * scores, 1)
        distance = tl.abs(i[:, None] - j[None, :].to(tl.int32))
        itself += tl.sum(tl.where(distance == 0, weights, 0.0), 1)
        far += tl.sum(weights * distance.to(tl.float32), 1)
        # A tile far from the diagonal lies in one bin or two.
        middle = tl.program_id(0) * ROWS - start
        least = tl.maximum(0, tl.maximum(middle - (KEYS - 1), -middle - (ROWS - 1)))
        most = tl.maximum(tl.abs(middle - (KEYS - 1)), tl.abs(middle + ROWS - 1))
        # One bin before that of the least distance: the logarithm is rounded.
        begin = tl.maximum(tl.floor(tl.log2(tl.maximum(least, 1).to(tl.float32))).to(tl.int32), 0)
        begin = tl.where(least == 0, 0, begin)
        end = tl.minimum(tl.floor(tl.log2(tl.maximum(most, 1).to(tl.float32))).to(tl.int32) + 3, BINS)
        for p in range(begin, end):
            low, high = tl.where(p == 0, 0, one << tl.maximum(p - 1, 0)), one << p
            here = (distance >= low) & ((distance < high) | (p == BINS - 1))
            histogram += tl.where(place == p, tl.sum(tl.where(here, weights, 0.0)), 0.0)
    row = head * n + i
    tl.store(moment + row, moments, mask=i < n)
    tl.store(own + row, itself, mask=i < n)
    tl.store(away + row, far, mask=i < n)
    tl.store(bins + (head * tl.num_programs(0) + tl.program_id(0)) * BINS + place, histogram)


def sums(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor, scale: float, left: int, right: int, groups: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the weights exp(scale <q_i, k_j> - z_i) of pairs with -right <= i - j <= left (-1: no bound).

    Args:
        q: (b, h, n, d), float32 or a half type.
        k: (b, h_kv, m, d).
        z: (b, h, n) log-partition in float32.
        scale: Of the scores.
        left: Keys before the query that it hears.
        right: Keys after it.
        groups: Number of groups of consecutive queries, as equal as they can be.

    Returns:
        Mass of every key by group (b, h, groups, m), entropy (b, h, n), weight on itself (b, h, n), sum_j a_ij |i - j|
        (b, h, n), and weight by distance summed over rows, (b, h, bins) for distances 0, [1, 2), [2, 4), ..., 32 bins.
    """
    (b, h, n, d), (_, kv, m, _) = q.shape, k.shape
    q, k, z = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, z.contiguous()))
    width, wide = max(16, triton.next_power_of_2(d)), q.dtype == torch.float32
    rows = keys = 16 if INTERPRETED.value else 64 if wide or width > 128 else 128
    bounds = FARTHEST if left < 0 else left, FARTHEST if right < 0 else right
    strides = q.stride()[:3] + k.stride()[:3]
    sizes = {"D": d, "WIDTH": width, "ROWS": rows, "KEYS": keys, "num_warps": 8 if rows == 128 else 4}
    received = torch.empty(b, h, groups, m, dtype=torch.float32, device=q.device)
    moment, own, away = (torch.empty(b, h, n, dtype=torch.float32, device=q.device) for _ in range(3))
    tiles = triton.cdiv(n, rows)
    bins = torch.empty(b, h, tiles, 32, dtype=torch.float32, device=q.device)
    by_key[(triton.cdiv(m, keys), b * h)](
        q, k, z, received, scale, n, m, *bounds, groups, h, h // kv, *strides, **sizes
    )
    by_query[(tiles, b * h)](
        q, k, z, moment, own, away, bins, scale, n, m, *bounds, h, h // kv, *strides, BINS=32, **sizes
    )
    return received, (z - moment).clamp_min(0), own, away, bins.sum(-2)
