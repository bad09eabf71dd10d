"""Forward kernel that keeps a whole row of candidate scores in registers: exact windowed top-k attention in one launch.

A program owns B queries and the NT tiles of T keys that any of them may hear. Row r of the block hears, in band
coordinates j' = key - query_offset + left, the interval [i, i + W - 1], i its index; tile t starts at j' = block * B +
t * T.

Selection. The scores of a row are mapped monotonically to half precision, centred where the k-th score is expected, so
that numbers near the threshold keep their order; the threshold is bisected there (two scores per instruction, at most
16 steps after three Newton steps). Where more than one score shares the threshold's half-precision
number, the k-th score itself is bisected on float32 ordinals, with scores computed again in a loop over the tiles; this
is rare on ordinary data. Equal scores that remain are cut by index, in words of bits.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import launch_options, padded
from .neighbourhood import Neighbourhood
from .primitives import (
    FAR,
    HALF_END,
    HALF_LOWEST,
    INTERPRETED,
    LN2,
    LOG2E,
    RUN_TIME,
    admitted,
    float_of_ordinal,
    half_of_ordinal,
    load_bias,
    load_rows,
    load_scale,
    midpoint,
    opaque,
    ordinal_of_float,
    ordinal_of_half,
    pack,
    pack_pair,
    population,
    position_of_bit,
    row_maximum,
    scores,
)


@triton.jit
def _tile(
    q, K, BIAS, t, first, row, scale, m, stride_k,
    T: tl.constexpr, B: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, FULL: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, MASK: tl.constexpr, BELOW: tl.constexpr, ABOVE: tl.constexpr,
    POLICY: tl.constexpr,
):  # fmt: skip
    """Scores of tile t, -inf where the row does not hear the key.

    The bias is -inf outside the sequence and for invalid keys. BELOW and ABOVE: whether some row's interval begins or
    ends inside this tile; tiles in the middle need no comparison. Without MASK scores of pairs that do not hear each
    other are arbitrary.
    """
    start = first + t * T
    c = tl.arange(0, T)
    bias = load_bias(BIAS, start, c, m, HAS_BIAS)
    k = load_rows(K, start, c, m, stride_k, D, DP, POLICY)
    return _scores_of_tile(q, k, bias, t, start, row, scale, m, T, B, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, MASK, BELOW, ABOVE)  # fmt: skip  # noqa: E501


@triton.jit
def _scores_of_tile(
    q, k, bias, t, start, row, scale, m,
    T: tl.constexpr, B: tl.constexpr, HAS_BIAS: tl.constexpr, FULL: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, MASK: tl.constexpr, BELOW: tl.constexpr, ABOVE: tl.constexpr,
):  # fmt: skip
    """Scores of a tile whose keys and bias are loaded; arguments as those of `_tile`."""
    c = tl.arange(0, T)
    s = scores(q, k, scale, bias)
    if MASK and HAS_BIAS:
        s = tl.where((bias > float("-inf"))[None, :], s, float("-inf"))
    if FULL:
        if BELOW or ABOVE:
            heard = admitted(row[:, None], (start + c)[None, :], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
            s = tl.where(heard, s, float("-inf"))
    else:
        r = tl.arange(0, B)
        place = t * T + c
        if BELOW:
            s = tl.where(r[:, None] <= place[None, :], s, float("-inf"))
        if ABOVE:
            s = tl.where(r[:, None] >= (place - LEFT - RIGHT)[None, :], s, float("-inf"))
    return s


@triton.jit
def _geometry(block, offset, LEFT: tl.constexpr, FULL: tl.constexpr, B: tl.constexpr):
    """First key of tile 0 and positions of the rows.

    Called with an opaque block number before every pass, so that no pass keeps another's vectors alive in registers.
    """
    first = block * B + offset - LEFT
    if FULL:
        first = block * 0
    return first, block * B + tl.arange(0, B) + offset


@triton.jit
def _count(
    y, threshold, ASM: tl.constexpr, CONSTRAINTS: tl.constexpr, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr
):
    """How many of a row's half-precision numbers are at least the threshold, as float32 (B,)."""
    if ASM is None:
        n = tl.sum((y[0] >= threshold[:, None]).to(tl.float32), 1)
        for t in tl.static_range(1, NT):
            n += tl.sum((y[t] >= threshold[:, None]).to(tl.float32), 1)
        return n
    else:
        # Sums of ones are exact in half precision up to 2048.
        wide = tl.broadcast_to(threshold[:, None], (B, T))
        ones = tl.inline_asm_elementwise(ASM, CONSTRAINTS, y + (wide,), dtype=tl.float16, is_pure=True, pack=2)
        return tl.sum(ones, 1).to(tl.float32)


@triton.jit
def _bisect(
    y, lo, hi, at_lo, at_hi, slope, K: tl.constexpr, NEWTON: tl.constexpr,
    ASM: tl.constexpr, CONSTRAINTS: tl.constexpr, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Narrow ordinals lo < hi with count(lo) >= K > count(hi) until count(lo) = K or they are neighbours.

    The first NEWTON proposals follow the expected density of the scores (slope = 1 / density), inside the bracket.
    """
    if NEWTON > 0:
        middle = tl.zeros_like(lo)
        for _ in tl.static_range(NEWTON):
            threshold = half_of_ordinal(middle)
            n = _count(y, threshold, ASM, CONSTRAINTS, NT, B, T)
            enough = n >= K
            lo = tl.where(enough, middle, lo)
            at_lo = tl.where(enough, n, at_lo)
            hi = tl.where(enough, hi, middle)
            at_hi = tl.where(enough, at_hi, n)
            guess = ordinal_of_half((threshold.to(tl.float32) + (n - K) * slope).to(tl.float16))
            middle = tl.where((guess > lo) & (guess < hi), guess, (lo + hi) >> 1)
    going = tl.max(((at_lo != K) & (hi - lo > 1)).to(tl.int32), 0)
    while going > 0:
        for _ in tl.static_range(2):
            middle = (lo + hi) >> 1
            n = _count(y, half_of_ordinal(middle), ASM, CONSTRAINTS, NT, B, T)
            enough = n >= K
            lo = tl.where(enough, middle, lo)
            at_lo = tl.where(enough, n, at_lo)
            hi = tl.where(enough, hi, middle)
            at_hi = tl.where(enough, at_hi, n)
        going = tl.max(((at_lo != K) & (hi - lo > 1)).to(tl.int32), 0)
    return lo, hi, at_lo, at_hi


@triton.jit
def _moments(s, reach, about, COUNT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
    """Number, mean and standard deviation of a row's finite scores within `reach` of `about`."""
    seen = tl.zeros([B, T], tl.float32)
    total = tl.zeros([B, T], tl.float32)
    squares = tl.zeros([B, T], tl.float32)
    for t in tl.static_range(COUNT):
        x = s[t] - about[:, None]
        near = (s[t] > float("-inf")) & (tl.abs(x) <= reach[:, None])
        x = tl.where(near, x, 0.0)
        seen += near.to(tl.float32)
        total += x
        squares = tl.fma(x, x, squares)
    number = tl.sum(seen, 1)
    known = 1.0 / tl.maximum(number, 1.0)
    mean = tl.sum(total, 1) * known
    return number, mean + about, tl.sqrt(tl.maximum(tl.sum(squares, 1) * known - mean * mean, 0.0))


@triton.jit
def _cell(
    Q, K, BIAS, block, offset, scale, n, m, stride_q, stride_k, inverse, shift, threshold, unresolved,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Least and largest score that share the threshold's half-precision number; twice the k-th in resolved rows."""
    block = opaque(block)
    first, row = _geometry(block, offset, LEFT, FULL, B)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_q, D, DP, "")
    least = tl.zeros([B], tl.float32) + float("inf")
    most = tl.zeros([B], tl.float32) + float("-inf")
    for t in range(NT):
        x = _tile(q, K, BIAS, t, first, row, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, True, True, "")  # fmt: skip  # noqa: E501
        y = tl.fma(x, inverse[:, None], shift[:, None]).to(tl.float16)
        inside = (y >= threshold[:, None]) & (x > float("-inf")) & ((y == threshold[:, None]) | ~unresolved[:, None])
        least = tl.minimum(least, tl.min(tl.where(inside, x, float("inf")), 1))
        most = tl.maximum(most, tl.max(tl.where(inside, x, float("-inf")), 1))
    return least, tl.where(unresolved, most, least)


@triton.jit
def _exact_threshold(
    Q, K, BIAS, block, offset, scale, n, m, stride_q, stride_k, least, most, above, unresolved, TOP_K: tl.constexpr,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """The k-th score of every row, between `least` and `most`: bisection on float32 ordinals, scores computed again.

    `above` counts the scores larger than `most`. A row in which only the largest of the cell is wanted is settled at
    once.
    """
    block = opaque(block)
    first, row = _geometry(block, offset, LEFT, FULL, B)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_q, D, DP, "")
    lo = ordinal_of_float(least)
    hi = ordinal_of_float(most)
    settled = (least >= most) | (above + 1 >= TOP_K)
    lo = tl.where(settled & (least < most), hi, lo)
    hi = tl.where(settled, lo + 1, hi + 1)
    still = (hi > lo) & (hi - lo != 1)
    while tl.max(still.to(tl.int32), 0) > 0:
        middle = midpoint(lo, hi)
        mark = float_of_ordinal(middle)
        count = tl.zeros([B], tl.float32)
        for t in range(NT):
            x = _tile(q, K, BIAS, t, first, row, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, True, True, "")  # fmt: skip  # noqa: E501
            count += tl.sum((x >= mark[:, None]).to(tl.float32), 1)
        enough = count >= TOP_K
        lo = tl.where(still & enough, middle, lo)
        hi = tl.where(still & enough & (count == TOP_K), middle + 1, tl.where(still & ~enough, middle, hi))
        still = (hi > lo) & (hi - lo != 1)
    return tl.where(least > most, -3.4028234e38, float_of_ordinal(lo))


@triton.jit
def _cut_in_word(word, column, cut, wanted):
    """The wanted-th tie, if this word holds it: (its column, ties still wanted, which is negative once found)."""
    here = population(word)
    inside = (wanted > 0) & (here >= wanted)
    return tl.where(inside, column + position_of_bit(word, wanted), cut), tl.where(inside, -FAR, wanted - here)


@triton.jit
def _tie_cut(
    Q, K, BIAS, block, offset, scale, n, m, stride_q, stride_k, exact, wanted, tied,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Column of the last of the `wanted` first scores equal to `exact` where `tied`; beyond every column elsewhere."""
    block = opaque(block)
    first, row = _geometry(block, offset, LEFT, FULL, B)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_q, D, DP, "")
    cut = tl.zeros_like(wanted) + 2 * FAR
    for t in range(NT):
        x = _tile(q, K, BIAS, t, first, row, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, True, True, "")  # fmt: skip  # noqa: E501
        equal = x == exact[:, None]
        if T == 64:
            word, second = pack_pair(equal, B)
            cut, wanted = _cut_in_word(word, t * 64, cut, wanted)
            cut, wanted = _cut_in_word(second, t * 64 + 32, cut, wanted)
        else:
            cut, wanted = _cut_in_word(pack(equal, T), t * T, cut, wanted)
    return tl.where(tied, cut, 2 * FAR)


@triton.jit
def _finite_values(
    Q, K, V, BIAS, BITS, cleared, block, offset, scale, n, m, stride_q, stride_k, stride_v,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Weighted values once more: where not finite, 0 if not selected (0 * NaN is NaN) and NaN if selected."""
    block = opaque(block)
    first, row = _geometry(block, offset, LEFT, FULL, B)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_q, D, DP, "")
    i = block * B + tl.arange(0, B)
    out = tl.zeros([B, DP], tl.float32)
    poison = tl.zeros([B, DP], tl.float32)
    for t in range(NT):
        x = _tile(q, K, BIAS, t, first, row, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, True, True, "")  # fmt: skip  # noqa: E501
        c = tl.arange(0, T)
        if FULL:
            place = t * T + c[None, :] + tl.zeros_like(i)[:, None]
        else:
            place = block * B - i[:, None] // 32 * 32 + t * T + c[None, :]
        words = tl.load(
            BITS + (place >> 5).to(tl.int64) * n + i[:, None],
            mask=(i < n)[:, None] & (place >= 0) & (x > float("-inf")),
            other=0,
        )
        keep = ((words >> (place & 31)) & 1) != 0
        p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, cleared[:, None])), 0.0)
        v = load_rows(V, first + t * T, c, m, stride_v, D, DP, "")
        finite = tl.abs(v.to(tl.float32)) < float("inf")
        out = tl.dot(p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out, input_precision="ieee")
        poison = tl.dot(keep.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
    return tl.where(poison > 0, float("nan"), out)


@triton.jit
def _store_word(
    BITS, word, i, r, block, n, t, FULL: tl.constexpr, B: tl.constexpr, T: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Write tile t's bits into the words (WORDS, n): word w of row i starts at place 32 (i // 32 + w), 32 w if FULL."""
    if T == 32:
        if FULL:
            w = tl.zeros_like(r) + t
        else:
            w = t - r // 32
        tl.store(BITS + w.to(tl.int64) * n + i, word, mask=(i < n) & (w >= 0) & (w < WORDS))
    else:
        # Half words (B = 16): an odd block starts in the middle of its first word.
        half = t
        if not FULL:
            half = t + block % 2
        halves = BITS.to(tl.pointer_type(tl.int16), bitcast=True)
        tl.store(
            halves + ((half // 2) * n.to(tl.int64) + i) * 2 + half % 2,
            word.to(tl.int16),
            mask=(i < n) & (half + i * 0 < 2 * WORDS),
        )


@triton.jit
def _clear_words(BITS, i, block, n, FULL: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr):
    """Zero the half words that no tile of 16 covers: the first one of an odd block, those after the last tile."""
    odd = block % 2
    if FULL:
        odd = block * 0
    halves = BITS.to(tl.pointer_type(tl.int16), bitcast=True)
    zero = tl.zeros_like(i).to(tl.int16)
    tl.store(halves + i.to(tl.int64) * 2, zero, mask=(i < n) & (odd + i * 0 > 0))
    for half in tl.static_range(NT, 2 * WORDS):
        tl.store(
            halves + ((half // 2) * n.to(tl.int64) + i) * 2 + half % 2, zero, mask=(i < n) & (half - odd + i * 0 >= NT)
        )


@triton.jit(do_not_specialize=RUN_TIME)
def forward_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS,
    scale_value, n, m, heads, group, offset, z_score, slope_unit,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    FULL: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
    HOLD: tl.constexpr, SAMPLE_FROM: tl.constexpr, SAMPLE_TO: tl.constexpr, NEWTON: tl.constexpr,
    ASM: tl.constexpr, CONSTRAINTS: tl.constexpr,
):  # fmt: skip
    """Output (n, D), log-partition (n,) and selected set (WORDS, n) of one block of B queries of one head."""
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
    first, row = _geometry(block, offset, LEFT, FULL, B)
    # Keys that a row can hear at most.
    possible = tl.minimum(row + RIGHT, m - 1) - tl.maximum(row - LEFT, 0) + 1
    if GRID or (PREFIX > 0):
        possible = tl.zeros([B], tl.int32) + m
    # All loads before the first product waits for one: a block's latency is paid once.
    keys = ()
    biases = ()
    if HOLD:
        for t in tl.static_range(NT):
            biases = biases + (load_bias(BIAS, first + t * T, tl.arange(0, T), m, HAS_BIAS),)
            keys = keys + (load_rows(K, first + t * T, tl.arange(0, T), m, stride_kn, D, DP, ""),)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_qn, D, DP, "")

    # Where the k-th score is expected, from the moments of the sampled tiles.
    s = ()
    sample = ()
    for t in tl.static_range(NT):
        if HOLD:
            x = _scores_of_tile(q, keys[t], biases[t], t, first + t * T, row, scale, m, T, B, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, FULL or (t * T < B - 1), FULL or (t * T + T - 1 > LEFT + RIGHT))  # fmt: skip  # noqa: E501
            s = s + (x,)
            if (t >= SAMPLE_FROM) and (t < SAMPLE_TO):
                sample = sample + (x,)
        elif (t >= SAMPLE_FROM) and (t < SAMPLE_TO):
            sample = sample + (_tile(q, K, BIAS, t, first, row, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, FULL or (t * T < B - 1), FULL or (t * T + T - 1 > LEFT + RIGHT), ""),)  # fmt: skip  # noqa: E501
    nowhere = tl.zeros([B], tl.float32)
    seen, mean, deviation = _moments(sample, nowhere + float("inf"), nowhere, SAMPLE_TO - SAMPLE_FROM, B, T)
    if SAMPLE_TO - SAMPLE_FROM == NT:
        possible = seen.to(tl.int32)
    # Once more without what lies far out, so that a few distant keys do not blur the rest.
    seen, mean, deviation = _moments(sample, 2.0 * deviation, mean, SAMPLE_TO - SAMPLE_FROM, B, T)
    deviation = tl.maximum(deviation, tl.maximum(tl.abs(mean) * 1e-6, 1e-30))
    centre = mean + z_score * deviation
    # Rows that hear at most K keys keep all: 0 * s is 0 for a finite s, NaN (never counted) for -inf.
    everything = possible <= TOP_K
    usable = (tl.abs(centre) < 1e30) & (deviation < 1e30) & (seen > 0)
    inverse = tl.where(everything, 0.0, tl.where(usable, 1.0 / deviation, 1.0))
    shift = tl.where(usable & ~everything, -centre * inverse, 0.0)

    highest = tl.zeros([B, T], tl.float32) + float("-inf")
    y = ()
    if not HOLD:
        again = opaque(block)
        first, row = _geometry(again, offset, LEFT, FULL, B)
    for t in tl.static_range(NT):
        if HOLD:
            x = s[t]
        else:
            x = _tile(q, K, BIAS, t, first, row, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, FULL or (t * T < B - 1), FULL or (t * T + T - 1 > LEFT + RIGHT), "")  # fmt: skip  # noqa: E501
        highest = tl.maximum(highest, x, propagate_nan=tl.PropagateNan.ALL)
        y = y + (tl.fma(x, inverse[:, None], shift[:, None]).to(tl.float16),)

    top = row_maximum(highest)
    lo = tl.where(everything, 0, HALF_LOWEST)
    hi = tl.zeros([B], tl.int32) + HALF_END
    at_lo = tl.where(everything, 1.0 * TOP_K, 1.0 * NT * T)
    at_hi = tl.zeros([B], tl.float32)
    slope = slope_unit / tl.maximum(possible, 1).to(tl.float32)
    lo, hi, at_lo, at_hi = _bisect(y, lo, hi, at_lo, at_hi, slope, TOP_K, NEWTON, ASM, CONSTRAINTS, NT, B, T)

    unresolved = at_lo > TOP_K
    threshold = half_of_ordinal(lo)
    exact = tl.zeros([B], tl.float32)
    if tl.max(unresolved.to(tl.int32), 0) > 0:
        least, most = _cell(
            Q, K, BIAS, block, offset, scale, n, m, stride_qn, stride_kn, inverse, shift, threshold, unresolved,
            T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
        )  # fmt: skip
        exact = least
        # A cell of equal scores is a group of ties, for which y serves as it is; an empty one (at -inf) belongs to a
        # row of at most K keys.
        if tl.max((unresolved & (least != most)).to(tl.int32), 0) > 0:
            exact = _exact_threshold(
                Q, K, BIAS, block, offset, scale, n, m, stride_qn, stride_kn, least, most, at_hi, unresolved, TOP_K,
                T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
            )  # fmt: skip
            mapped = ()
            if not HOLD:
                again = opaque(block)
                first, row = _geometry(again, offset, LEFT, FULL, B)
            for t in tl.static_range(NT):
                if HOLD:
                    x = s[t]
                else:
                    x = _tile(q, K, BIAS, t, first, row, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, True, FULL or (t * T < B - 1), FULL or (t * T + T - 1 > LEFT + RIGHT), "evict_last")  # fmt: skip  # noqa: E501
                z = tl.where(x > exact[:, None], 1.0, tl.where(x == exact[:, None], 0.0, float("-inf")))
                mapped = mapped + (z.to(tl.float16),)
            y = mapped
            lo = tl.zeros([B], tl.int32)
            threshold = half_of_ordinal(lo)
            at_lo = _count(y, threshold, ASM, CONSTRAINTS, NT, B, T)
    if not KEEP_TIES:
        tied = at_lo > TOP_K
        if tl.max(tied.to(tl.int32), 0) > 0:
            above = _count(y, half_of_ordinal(lo + 1), ASM, CONSTRAINTS, NT, B, T)
            cut = _tie_cut(
                Q, K, BIAS, block, offset, scale, n, m, stride_qn, stride_kn, exact, TOP_K - above.to(tl.int32), tied,
                T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
            )  # fmt: skip
            kept = ()
            for t in tl.static_range(NT):
                late = (y[t] == threshold[:, None]) & ((t * T + tl.arange(0, T))[None, :] > cut[:, None])
                kept = kept + (tl.where(late, float("-inf"), y[t]).to(tl.float16),)
            y = kept

    # Softmax over the selected keys.
    empty = top == float("-inf")
    base = tl.where(empty, 0.0, top)
    cleared = -base * LOG2E
    weights = tl.zeros([B, T], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    again = opaque(block)
    start, row = _geometry(again, offset, LEFT, FULL, B)
    r = tl.arange(0, B)
    i = again * B + r
    BITS += unit.to(tl.int64) * n * WORDS
    if T == 16:
        _clear_words(BITS, i, again, n, FULL, NT, WORDS)
    following = load_rows(V, start, tl.arange(0, T), m, stride_vn, D, DP, "")
    if not HOLD:
        first, row = _geometry(again, offset, LEFT, FULL, B)
    for t in tl.static_range(NT):
        if HOLD:
            x = s[t]
        else:
            x = _tile(q, K, BIAS, t, first, row, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, False, False, False, "evict_first")  # fmt: skip  # noqa: E501
        keep = y[t] >= threshold[:, None]
        if T == 64:
            word, second = pack_pair(keep, B)
            _store_word(BITS, word, i, r, again, n, 2 * t, FULL, B, 32, WORDS)
            _store_word(BITS, second, i, r, again, n, 2 * t + 1, FULL, B, 32, WORDS)
        else:
            _store_word(BITS, pack(keep, T), i, r, again, n, t, FULL, B, T, WORDS)
        p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, cleared[:, None])), 0.0)
        weights += p
        v = following
        if t + 1 < NT:
            following = load_rows(V, start + (t + 1) * T, tl.arange(0, T), m, stride_vn, D, DP, "")
        out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        tl.debug_barrier()
        out = _finite_values(
            Q, K, V, BIAS, BITS, cleared, block, offset, scale, n, m, stride_qn, stride_kn, stride_vn,
            T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
        )  # fmt: skip
    weight = tl.where(top == top, tl.sum(weights, 1), top)
    out = out / tl.where(weight == 0.0, 1.0, weight)[:, None]
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(weight) * LN2)

    d = tl.arange(0, DP)
    mask = (i < n)[:, None] & (d < D)[None, :]
    tl.store(OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :], out.to(OUT.dtype.element_ty), mask=mask)
    tl.store(LOGZ + unit.to(tl.int64) * n + i, logz, mask=i < n)


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of one launch of the register kernel."""

    queries: int
    keys: int
    warps: int
    hold: bool
    sample: int
    registers: int | None = None


def _tiles(hood: Neighbourhood, full: bool, keys: int, d: int, dtype: torch.dtype) -> Tiles:
    """Tile sizes by window and head dimension, from measurements on an H200 (benchmarks/results/attention_h200.md)."""
    span = keys if full else hood.left + hood.right + 1
    wide = padded(d) > 128 or dtype == torch.float32
    if span <= 64 and not full and not wide:
        return Tiles(16, 16, 1, hold=True, sample=1, registers=128)
    if wide or full:
        return Tiles(32, 32, 4, hold=False, sample=1)
    return Tiles(64, 32, 4, hold=span <= 160, sample=1)


@lru_cache(maxsize=64)
def _count_program(tiles: int) -> tuple[str | None, str | None]:
    """PTX that counts, two at a time, how many of `tiles` half-precision numbers reach the threshold (last operand)."""
    if INTERPRETED.value:
        return None, None
    names = [f"x{t}" for t in range(tiles)]
    lines = [".reg .b32 " + ", ".join(names) + ";"]
    lines += [f"set.ge.f16x2.f16x2 {name}, ${t + 1}, ${tiles + 1};" for t, name in enumerate(names)]
    while len(names) > 1:
        pairs = zip(names[::2], names[1::2], strict=False)
        lines += [f"add.f16x2 {a}, {a}, {b};" for a, b in pairs]
        names = names[::2]
    lines.append(f"mov.b32 $0, {names[0]};")
    return "{ " + " ".join(lines) + " }", ",".join(["=r"] + ["r"] * (tiles + 1))


@lru_cache(maxsize=256)
def expected_threshold(hood: Neighbourhood, keys: int) -> tuple[float, float]:
    """Where the k-th of the expected number of normal scores lies, and the reciprocal of the density there."""
    number = hood.expected(keys)
    share = min(max(hood.top_k, 0.5), number - 0.5) / number if number > 1 else 0.5
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - share)
    return z, 1.0 / normal.pdf(z)


def launch_registers(
    hood: Neighbourhood, full: bool, keys: int, words: int, tiles: Tiles | None, arrays: tuple, numbers: tuple,
    strides: tuple, common: dict[str, Any],
) -> None:  # fmt: skip
    """Launch `forward_kernel`: as many key tiles as a block of queries can hear."""
    q = arrays[0]
    batch, heads, n, d = q.shape
    tiles = tiles or _tiles(hood, full, keys, d, q.dtype)
    span = keys if full else tiles.queries + hood.left + hood.right
    count = -(-span // tiles.keys)
    if full:
        count = -(-words * 32 // tiles.keys)
    asm, constraints = _count_program(count)
    # Sampled tiles: in the middle, where every row of the block hears every key.
    sample = count if full else min(tiles.sample, count)
    begin = (count - sample + 1) // 2
    z_score, slope_unit = expected_threshold(hood, keys)
    forward_kernel[(batch * heads * triton.cdiv(n, tiles.queries),)](
        *arrays,
        *numbers,
        z_score,
        slope_unit,
        *strides,
        **common,
        FULL=full,
        B=tiles.queries,
        T=tiles.keys,
        NT=count,
        WORDS=words,
        HOLD=tiles.hold,
        SAMPLE_FROM=begin,
        SAMPLE_TO=begin + sample,
        NEWTON=3,
        ASM=asm,
        CONSTRAINTS=constraints,
        **launch_options(tiles.warps, registers=tiles.registers),
    )
