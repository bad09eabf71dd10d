"""Forward kernel for top-k over neighbourhoods of any size: several passes over the keys, O(N |N_i|) time, O(N) memory.

A block of B queries computes the scores of its tiles anew in every pass. The first pass takes extremes and moments;
further ones count the scores above three thresholds each (ordered integers of float32: at most 16 passes, ended once
every row is settled); one places the cut among equal scores where there are any; the last one adds up. What is saved
for the backward pass is the k-th score and the index of the last key admitted at it, 8 bytes a row.

Tuples keep the argument lists short: those of `walk`, and ``keys`` = (K, V, BIAS, scale, m, stride of K, stride of V),
``shape`` = (D, DP, HAS_BIAS, B, T, STAGES, COPIES).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import is_hopper, launch_options
from .primitives import (
    FAR,
    LN2,
    LOG2E,
    RUN_TIME,
    float_of_ordinal,
    load_rows,
    load_scale,
    midpoint,
    opaque,
    ordinal_of_float,
    row_maximum,
    scores,
)
from .tiling import Tiling, expected_threshold
from .walk import CAREFUL, add_finite, key_range, load_tile_bias, locate, masked, store_mended, tile_start


@triton.jit
def _tile(u, q, keys, rows, walk, hood, shape):
    """Scores (-inf where not heard) of the u-th tile of a walk, and its first key."""
    T: tl.constexpr = shape[4]
    m = keys[4]
    start = tile_start(u, walk, T)
    k = load_rows(keys[0], start, tl.arange(0, T), m, keys[5], shape[0], shape[1], "")
    if shape[2]:
        bias = load_tile_bias(keys[2], start, m, float("-inf"), T, shape[6])
        x = scores(q, k, keys[3], bias)
        # A NaN in a key that nobody hears.
        x = tl.where((bias > float("-inf"))[None, :], x, float("-inf"))
    else:
        x = tl.dot(q, tl.trans(k), input_precision="ieee") * keys[3]
    return masked(x, u, start, m, rows, walk, hood, T), start


@triton.jit
def _extremes(q, keys, rows, walk, hood, shape):
    """(largest, smallest, number, mean, standard deviation) of each row's scores."""
    B: tl.constexpr = shape[3]
    top = tl.zeros([B], tl.float32) + float("-inf")
    bottom = tl.zeros([B], tl.float32) + float("inf")
    number = tl.zeros([B], tl.float32)
    total = tl.zeros([B], tl.float32)
    squares = tl.zeros([B], tl.float32)
    for u in tl.range(walk[1], num_stages=shape[5]):
        x, _ = _tile(u, q, keys, rows, walk, hood, shape)
        heard = x != float("-inf")
        top = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
        bottom = tl.minimum(bottom, tl.min(tl.where(heard, x, float("inf")), 1))
        x = tl.where(heard, x, 0.0)
        number += tl.sum(heard.to(tl.float32), 1)
        total += tl.sum(x, 1)
        squares += tl.sum(x * x, 1)
    mean = total / tl.maximum(number, 1.0)
    deviation = tl.sqrt(tl.maximum(squares / tl.maximum(number, 1.0) - mean * mean, 0.0))
    return top, bottom, number, mean, deviation


@triton.jit
def _count(a, b, c, q, keys, rows, walk, hood, shape):
    """Numbers of scores at or above three thresholds a <= b <= c of each row."""
    B: tl.constexpr = shape[3]
    at_a = tl.zeros([B], tl.int32)
    at_b = tl.zeros([B], tl.int32)
    at_c = tl.zeros([B], tl.int32)
    for u in tl.range(walk[1], num_stages=shape[5]):
        x, _ = _tile(u, q, keys, rows, walk, hood, shape)
        # Three numbers of ten bits each: one sum a tile.
        ones = tl.where(x >= a[:, None], 1, 0)
        ones = tl.where(x >= b[:, None], 1 + (1 << 10), ones)
        ones = tl.sum(tl.where(x >= c[:, None], 1 + (1 << 10) + (1 << 20), ones), 1)
        at_a += ones & 1023
        at_b += (ones >> 10) & 1023
        at_c += ones >> 20
    return at_a, at_b, at_c


@triton.jit
def _narrow(lo, hi, at_lo, settled, guess, spread, q, keys, rows, walk, hood, shape, TOP_K: tl.constexpr):
    """Bracket lo <= ordinal of the k-th score < hi of each row, with the numbers of scores from lo and from hi on.

    It ends where exactly k scores are left from lo on, or where hi = lo + 1 and the k-th score is tied.
    """
    at_hi = tl.zeros_like(at_lo)
    # First guess: three thresholds about the expected one; then quarters of the bracket.
    low = ordinal_of_float(guess - spread)
    middle = ordinal_of_float(guess)
    high = ordinal_of_float(guess + spread)
    going = tl.max(((hi > lo) & (hi - lo != 1)).to(tl.int32), 0)
    while going > 0:
        sane = (low > lo) & (high < hi) & (low <= middle) & (middle <= high)
        half = midpoint(lo, hi)
        low = tl.where(sane, low, midpoint(lo, half))
        high = tl.where(sane, high, midpoint(half, hi))
        middle = tl.where(sane, middle, half)
        a, b, c = float_of_ordinal(low), float_of_ordinal(middle), float_of_ordinal(high)
        at_a, at_b, at_c = _count(a, b, c, q, keys, rows, walk, hood, shape)
        new_lo = tl.where(at_c >= TOP_K, high, tl.where(at_b >= TOP_K, middle, tl.where(at_a >= TOP_K, low, lo)))
        kept = tl.where(at_c >= TOP_K, at_c, tl.where(at_b >= TOP_K, at_b, tl.where(at_a >= TOP_K, at_a, at_lo)))
        new_hi = tl.where(at_a < TOP_K, low, tl.where(at_b < TOP_K, middle, tl.where(at_c < TOP_K, high, hi)))
        at_hi = tl.where(at_a < TOP_K, at_a, tl.where(at_b < TOP_K, at_b, tl.where(at_c < TOP_K, at_c, at_hi)))
        at_lo = tl.where(settled, at_lo, kept)
        lo = tl.where(settled, lo, new_lo)
        hi = tl.where(settled, hi, new_hi)
        settled = settled | (at_lo == TOP_K)
        hi = tl.where(settled, lo + 1, hi)
        # Not in order, so quarters from now on.
        low = tl.zeros_like(lo)
        middle = low + 1
        high = low - 1
        going = tl.max(((hi > lo) & (hi - lo != 1)).to(tl.int32), 0)
    return lo, at_lo, at_hi


@triton.jit
def _cut(mark, wanted, q, keys, rows, walk, hood, shape):
    """Index of the wanted-th (1-based) key whose score equals the mark; no bound where none is wanted."""
    cut = tl.zeros_like(wanted) + 2 * FAR
    for u in tl.range(walk[1], num_stages=shape[5]):
        x, start = _tile(u, q, keys, rows, walk, hood, shape)
        equal = (x == mark[:, None]).to(tl.int32)
        here = tl.sum(equal, 1)
        if tl.max(((wanted > 0) & (here >= wanted)).to(tl.int32), 0) > 0:
            hit = (equal > 0) & (tl.cumsum(equal, 1) == wanted[:, None])
            found = tl.max(tl.where(hit, (start + tl.arange(0, shape[4]))[None, :], -1), 1)
            cut = tl.where(found >= 0, found, cut)
        wanted -= here
    return cut


@triton.jit
def _weights(x, start, mark, cut, base, T: tl.constexpr):
    """Which of a tile's scores are selected, and exp(x - base) of these."""
    c = tl.arange(0, T)
    keep = (x > mark[:, None]) | ((x == mark[:, None]) & (c[None, :] <= (cut - start)[:, None]))
    keep = keep & (x != float("-inf"))
    return keep, tl.where(keep, tl.exp2(tl.fma(x, LOG2E, (-base * LOG2E)[:, None])), 0.0)


@triton.jit
def _collect(mark, cut, base, q, keys, rows, walk, hood, shape):
    """Sums of the weights and of weighted values over the selected set."""
    B: tl.constexpr = shape[3]
    T: tl.constexpr = shape[4]
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, shape[1]], tl.float32)
    for u in tl.range(walk[1], num_stages=shape[5]):
        x, start = _tile(u, q, keys, rows, walk, hood, shape)
        _, p = _weights(x, start, mark, cut, base, T)
        weight += tl.sum(p, 1)
        v = load_rows(keys[1], start, tl.arange(0, T), keys[4], keys[6], shape[0], shape[1], "")
        out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")
    return weight, out


@triton.jit
def _mend(
    mark, cut, base, weight, tensors, strides, row_strides, scale, n, m, heads, group, offset, hood,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Store the output where some value is not finite: NaN in rows that select one, else no trace of it."""
    Q, K, V, BIAS, OUT, _, _, query = locate(opaque(tl.program_id(0)), tensors, strides, n, heads, group, B)
    stride_q, stride_k, stride_v, stride_o = row_strides
    i = query + tl.arange(0, B)
    last = tl.minimum(query + B, n) - 1 + offset
    walk = key_range(query + offset, last, m, hood[0], hood[1], hood[6], hood[7], CAREFUL)
    rows = (i + offset, query + offset, last)
    q = load_rows(Q, query, tl.arange(0, B), n, stride_q, D, DP, "")
    for column in tl.range(0, D, CAREFUL, num_stages=1):
        d = column + tl.arange(0, CAREFUL)
        out = tl.zeros([B, CAREFUL], tl.float32)
        poison = tl.zeros([B, CAREFUL], tl.float32)
        for u in tl.range(walk[1], num_stages=1):
            x, start = _tile(u, q, (K, V, BIAS, scale, m, stride_k, stride_v), rows, walk, hood, (D, DP, HAS_BIAS, B, CAREFUL, 1, 1))  # fmt: skip  # noqa: E501
            keep, p = _weights(x, start, mark, cut, base, CAREFUL)
            out, poison = add_finite(out, poison, p, keep, V, start, d, m, stride_v, D, CAREFUL)
        store_mended(OUT, out, poison, weight, i, n, d, stride_o, D)


@triton.jit(do_not_specialize=RUN_TIME)
def streaming_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS,
    scale_value, n, m, heads, group, offset, z_score,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Output (n, D), log-partition (n,), k-th score and cut (2, n) of B queries of one head."""
    tensors = (Q, K, V, BIAS, OUT)
    strides = (
        stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_ob, stride_oh
    )  # fmt: skip
    Q, K, V, BIAS, OUT, batch, head, query = locate(tl.program_id(0), tensors, strides, n, heads, group, B)
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    i = query + tl.arange(0, B)
    last = tl.minimum(query + B, n) - 1 + offset
    walk = key_range(query + offset, last, m, LEFT, RIGHT, PREFIX, FIRST, T)
    rows = (i + offset, query + offset, last)
    keys = (K, V, BIAS, scale, m, stride_kn, stride_vn)
    q = load_rows(Q, query, tl.arange(0, B), n, stride_qn, D, DP, "")

    top, bottom, number, mean, deviation = _extremes(q, keys, rows, walk, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), (D, DP, HAS_BIAS, B, T, STAGES, COPIES))  # fmt: skip  # noqa: E501
    lo = ordinal_of_float(bottom)
    few = number <= TOP_K
    settled = few | (top != top) | (i >= n)
    hi = tl.where(settled, lo + 1, ordinal_of_float(top) + 1)
    lo, at_lo, at_hi = _narrow(lo, hi, number.to(tl.int32), settled, mean + z_score * deviation, 0.2 * deviation, q, keys, rows, walk, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), (D, DP, HAS_BIAS, B, T, STAGES, COPIES), TOP_K)  # fmt: skip  # noqa: E501
    mark = float_of_ordinal(lo)
    cut = tl.zeros([B], tl.int32) + 2 * FAR
    if not KEEP_TIES:
        tied = (at_lo > TOP_K) & ~few
        if tl.max(tied.to(tl.int32), 0) > 0:
            cut = _cut(mark, tl.where(tied, TOP_K - at_hi, 0), q, keys, rows, walk, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), (D, DP, HAS_BIAS, B, T, STAGES, COPIES))  # fmt: skip  # noqa: E501
    base = tl.where(top == float("-inf"), 0.0, top)
    weight, out = _collect(mark, cut, base, q, keys, rows, walk, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), (D, DP, HAS_BIAS, B, T, STAGES, COPIES))  # fmt: skip  # noqa: E501
    # A row that hears NaN answers NaN.
    weight = tl.where(top == top, weight, top)
    check = tl.sum(out, 1)
    if tl.max(((check != check) & (top == top)).to(tl.int32), 0) > 0:
        row_strides = (stride_qn, stride_kn, stride_vn, stride_on)
        _mend(mark, cut, base, weight, tensors, strides, row_strides, scale, n, m, heads, group, offset, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), D, DP, HAS_BIAS, B)  # fmt: skip  # noqa: E501
    else:
        out *= (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None]
        d = tl.arange(0, DP)
        place = OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :]
        tl.store(place, out.to(OUT.dtype.element_ty), mask=(i < n)[:, None] & (d < D)[None, :])
    safe = tl.where(weight == 0.0, 1.0, weight)
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(safe) * LN2)
    tl.store(LOGZ + (batch * heads + head) * n + i, logz, mask=i < n)
    SAVED = BITS + (batch * heads + head) * n * 2
    tl.store(SAVED + i, mark.to(tl.int32, bitcast=True), mask=i < n)
    tl.store(SAVED + n + i, cut, mask=i < n)


def launch_streaming(hood: Tiling, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any]) -> None:
    """Launch `streaming_kernel`; arguments as prepared by `launch.forward`."""
    q, k = arrays[:2]
    batch, heads, n, _ = q.shape
    block = 64 if common["DP"] <= 128 and q.dtype != torch.float32 else 32
    z_score, _ = expected_threshold(hood, k.shape[-2])
    # Three blocks share a multiprocessor then, where products read their operands from shared memory.
    registers = 168 if is_hopper(q) and block == 64 and common["DP"] <= 64 else None
    streaming_kernel[(batch * heads * triton.cdiv(n, block),)](
        *arrays, *numbers, z_score, *strides, **common, B=block, T=block, STAGES=1, COPIES=128 // block,
        **launch_options(4, registers=registers),
    )  # fmt: skip
