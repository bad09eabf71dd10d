"""Forward kernel for neighbourhoods of any size: several passes over the keys, O(N |N_i|) time and O(N) memory.

A block of B queries walks over the tiles of keys that any of them may hear: the prefix keys first, then the band.
Without top-k one pass with a running softmax suffices. With top-k, a first pass takes extremes and moments, further
passes count the scores above three thresholds each (ordered integers of float32: at most 16 passes, ended early once
every row is settled), one pass places the cut among equal scores where there are any, and the last one adds up. What
is saved for the backward pass is the k-th score and the index of the last key admitted at it, 8 bytes a row.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import launch_options
from .forward import expected_threshold
from .neighbourhood import Neighbourhood
from .primitives import (
    FAR,
    LN2,
    LOG2E,
    RUN_TIME,
    admitted,
    float_of_ordinal,
    load_bias,
    load_rows,
    load_scale,
    midpoint,
    ordinal_of_float,
    row_maximum,
    scores,
)


@triton.jit
def key_range(first, last, m, LEFT: tl.constexpr, RIGHT: tl.constexpr, PREFIX: tl.constexpr, T: tl.constexpr):
    """Tiles for positions first .. last: (prefix tiles, all tiles, begin of the band, least key counted in it)."""
    begin = tl.maximum(first - LEFT, 0)
    end = tl.minimum(last + RIGHT + 1, m)
    leading = 0
    least = 0
    if PREFIX > 0:
        if first < PREFIX:
            begin = begin * 0
            end = m
        else:
            leading = tl.cdiv(tl.minimum(m, PREFIX), T)
            least = PREFIX
    return leading, leading + tl.cdiv(tl.maximum(end - begin, 0), T), begin, least


@triton.jit
def _stream_tile(
    q, K, BIAS, u, leading, begin, least, row, scale, m, stride_k,
    T: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Scores (-inf where not heard) and key indices of the u-th tile of a walk."""
    start = tl.where(u < leading, u * T, begin + (u - leading) * T)
    c = tl.arange(0, T)
    j = start + c
    bias = load_bias(BIAS, start, c, m, HAS_BIAS)
    k = load_rows(K, start, c, m, stride_k, D, DP, "")
    s = scores(q, k, scale, bias)
    heard = admitted(row[:, None], j[None, :], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
    counted = bias > float("-inf")
    if PREFIX > 0:
        counted = counted & tl.where(u < leading, j < PREFIX, j >= least)
    return tl.where(heard & counted[None, :], s, float("-inf")), j, start


@triton.jit(do_not_specialize=RUN_TIME)
def streaming_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS,
    scale_value, n, m, heads, group, offset, z_score,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Output (n, D), log-partition (n,) and, with top-k, k-th score and cut (2, n) of B queries of one head."""
    blocks = tl.cdiv(n, B)
    block = tl.program_id(0) % blocks
    unit = tl.program_id(0) // blocks
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    OUT += batch * stride_ob + head * stride_oh
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    i = block * B + tl.arange(0, B)
    row = i + offset
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_qn, D, DP, "")
    last = tl.minimum(block * B + B, n) - 1 + offset
    leading, tiles, begin, least = key_range(block * B + offset, last, m, LEFT, RIGHT, PREFIX, T)

    top = tl.zeros([B], tl.float32) + float("-inf")
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    mark = tl.zeros([B], tl.float32) + float("-inf")
    cut = tl.zeros([B], tl.int32) + 2 * FAR
    if TOP_K == 0:
        for u in range(tiles):
            x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
            higher = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
            base = tl.where(higher == float("-inf"), 0.0, higher)
            p = tl.exp2(tl.fma(x, LOG2E, (-base * LOG2E)[:, None]))
            shrink = tl.exp2((top - base) * LOG2E)
            weight = weight * shrink + tl.sum(p, 1)
            v = load_rows(V, start, tl.arange(0, T), m, stride_vn, D, DP, "")
            out = tl.dot(p.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
            top = higher
    else:
        # Extremes and moments.
        bottom = tl.zeros([B], tl.float32) + float("inf")
        number = tl.zeros([B], tl.float32)
        total = tl.zeros([B], tl.float32)
        squares = tl.zeros([B], tl.float32)
        for u in range(tiles):
            x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
            heard = x > float("-inf")
            top = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
            bottom = tl.minimum(bottom, tl.min(tl.where(heard, x, float("inf")), 1))
            x = tl.where(heard, x, 0.0)
            number += tl.sum(heard.to(tl.float32), 1)
            total += tl.sum(x, 1)
            squares += tl.sum(x * x, 1)
        mean = total / tl.maximum(number, 1.0)
        deviation = tl.sqrt(tl.maximum(squares / tl.maximum(number, 1.0) - mean * mean, 0.0))
        lo = ordinal_of_float(bottom)
        settled = (number <= TOP_K) | (top != top)
        hi = tl.where(settled, lo + 1, ordinal_of_float(top) + 1)
        at_lo = number
        at_hi = tl.zeros([B], tl.float32)
        # First guess: three thresholds about the expected one; then quarters of the bracket.
        guess = mean + z_score * deviation
        low = ordinal_of_float(guess - 0.2 * deviation)
        middle = ordinal_of_float(guess)
        high = ordinal_of_float(guess + 0.2 * deviation)
        going = tl.max(((hi > lo) & (hi - lo != 1)).to(tl.int32), 0)
        while going > 0:
            sane = (low > lo) & (high < hi) & (low <= middle) & (middle <= high)
            half = midpoint(lo, hi)
            low = tl.where(sane, low, midpoint(lo, half))
            high = tl.where(sane, high, midpoint(half, hi))
            middle = tl.where(sane, middle, half)
            a = float_of_ordinal(low)
            b = float_of_ordinal(middle)
            c = float_of_ordinal(high)
            at_a = tl.zeros([B], tl.float32)
            at_b = tl.zeros([B], tl.float32)
            at_c = tl.zeros([B], tl.float32)
            for u in range(tiles):
                x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
                at_a += tl.sum((x >= a[:, None]).to(tl.float32), 1)
                at_b += tl.sum((x >= b[:, None]).to(tl.float32), 1)
                at_c += tl.sum((x >= c[:, None]).to(tl.float32), 1)
            new_lo = tl.where(at_c >= TOP_K, high, tl.where(at_b >= TOP_K, middle, tl.where(at_a >= TOP_K, low, lo)))
            new_at_lo = tl.where(
                at_c >= TOP_K, at_c, tl.where(at_b >= TOP_K, at_b, tl.where(at_a >= TOP_K, at_a, at_lo))
            )
            new_hi = tl.where(at_a < TOP_K, low, tl.where(at_b < TOP_K, middle, tl.where(at_c < TOP_K, high, hi)))
            at_hi = tl.where(at_a < TOP_K, at_a, tl.where(at_b < TOP_K, at_b, tl.where(at_c < TOP_K, at_c, at_hi)))
            open_rows = ~settled
            lo = tl.where(open_rows, new_lo, lo)
            at_lo = tl.where(open_rows, new_at_lo, at_lo)
            settled = settled | (at_lo == TOP_K)
            hi = tl.where(open_rows, new_hi, hi)
            hi = tl.where(settled, lo + 1, hi)
            low = tl.zeros_like(lo)
            middle = low + 1
            high = low - 1
            going = tl.max(((hi > lo) & (hi - lo != 1)).to(tl.int32), 0)
        mark = float_of_ordinal(lo)
        if not KEEP_TIES:
            tied = (at_lo > TOP_K) & ~(number <= TOP_K)
            if tl.max(tied.to(tl.int32), 0) > 0:
                wanted = tl.where(tied, TOP_K - at_hi.to(tl.int32), 0)
                for u in range(tiles):
                    x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
                    equal = x == mark[:, None]
                    here = tl.sum(equal.to(tl.int32), 1)
                    if tl.max(((wanted > 0) & (here >= wanted)).to(tl.int32), 0) > 0:
                        rank = tl.cumsum(equal.to(tl.int32), 1)
                        hit = equal & (rank == wanted[:, None])
                        found = tl.max(tl.where(hit, j[None, :], -1), 1)
                        cut = tl.where(found >= 0, found, cut)
                    wanted = wanted - here
        base = tl.where(top == float("-inf"), 0.0, top)
        for u in range(tiles):
            x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
            keep = (x > mark[:, None]) | ((x == mark[:, None]) & (j[None, :] <= cut[:, None]))
            p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, (-base * LOG2E)[:, None])), 0.0)
            weight += tl.sum(p, 1)
            v = load_rows(V, start, tl.arange(0, T), m, stride_vn, D, DP, "")
            out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")

    base = tl.where(top == float("-inf"), 0.0, top)
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        # Values that are not finite count as 0 where not selected (0 * NaN is NaN) and give NaN where selected.
        out = tl.zeros([B, DP], tl.float32)
        poison = tl.zeros([B, DP], tl.float32)
        for u in range(tiles):
            x, j, start = _stream_tile(q, K, BIAS, u, leading, begin, least, row, scale, m, stride_kn, T, D, DP, HAS_BIAS, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)  # fmt: skip  # noqa: E501
            keep = (x > mark[:, None]) | ((x == mark[:, None]) & (j[None, :] <= cut[:, None]) & (x > float("-inf")))
            p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, (-base * LOG2E)[:, None])), 0.0)
            v = load_rows(V, start, tl.arange(0, T), m, stride_vn, D, DP, "")
            finite = tl.abs(v.to(tl.float32)) < float("inf")
            out = tl.dot(p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out, input_precision="ieee")
            poison = tl.dot(keep.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
        out = tl.where(poison > 0, float("nan"), out)
    weight = tl.where(top == top, weight, top)
    out = out / tl.where(weight == 0.0, 1.0, weight)[:, None]
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    d = tl.arange(0, DP)
    mask = (i < n)[:, None] & (d < D)[None, :]
    tl.store(OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :], out.to(OUT.dtype.element_ty), mask=mask)
    tl.store(LOGZ + unit.to(tl.int64) * n + i, logz, mask=i < n)
    if TOP_K > 0:
        SAVED = BITS + unit.to(tl.int64) * n * 2
        tl.store(SAVED + i, mark.to(tl.int32, bitcast=True), mask=i < n)
        tl.store(SAVED + n + i, cut, mask=i < n)


def launch_streaming(
    hood: Neighbourhood, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any]
) -> None:
    """Launch `streaming_kernel`; arguments as prepared by `launch.forward`."""
    q, k = arrays[:2]
    batch, heads, n, _ = q.shape
    block = 64 if common["DP"] <= 128 and q.dtype != torch.float32 else 32
    z_score, _ = expected_threshold(hood, k.shape[-2])
    streaming_kernel[(batch * heads * triton.cdiv(n, block),)](
        *arrays, *numbers, z_score, *strides, **common, B=block, T=block,
        **launch_options(4, 2 if hood.top_k == 0 else 1),
    )  # fmt: skip
