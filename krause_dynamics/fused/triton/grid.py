"""Forward kernel for neighbourhoods on grids: a program owns a patch of the grid and meets its halo, nothing else.

The queries of a patch of PH x PW cells (at most 16, the rows of one matrix product) hear cells of the patch enlarged by
the radius, HH x HW with HH = PH + 2 radius, HW = PW + 2 radius, and the PREFIX first keys. These candidates, prefix
first, then the halo row by row, are in the order of their keys; 4 x 4 cells and radius 2 have 64 for the 25 that a
query hears, where a band of the flattened grid holds 4 radius width.

One warp keeps the scores of its 16 rows in registers. The k-th score is bracketed by counting passes (`_threshold`) on
float32, so that ranks are those of the scores themselves; equal scores are cut by the order of candidates.

The selected set is saved as bits: bit p < PREFIX for a prefix key, bit PREFIX + (dr + radius) (2 radius + 1) + dc +
radius for the key dr rows and dc columns away. Prefix rows, which hear all m keys, have a program each in the same
launch and save one bit a key.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import launch_options, padded
from .neighbourhood import Neighbourhood
from .primitives import (
    FAR,
    LN2,
    LOG2E,
    RUN_TIME,
    float_of_ordinal,
    load_bias,
    load_rows,
    load_scale,
    midpoint,
    ordinal_of_float,
    pack,
    pack_pair,
    population,
    position_of_bit,
    row_maximum,
)

# Rows of one matrix product.
ROWS = 16
# Keys up to which one warp takes a prefix row, beside the patches; longer rows have a launch with more warps.
LARGEST_PREFIX_ROW = 512
# Constants that the kernel shares with the others.
SHARED = (
    "TOP_K", "KEEP_TIES", "WIDTH", "RADIUS", "MANHATTAN", "PREFIX", "D", "DP", "HAS_BIAS", "SCALE_TENSOR",
)  # fmt: skip
# Code of a column that nobody hears, and the bits that mark a failed comparison (see `code`).
NOBODY = tl.constexpr(3 << 29)
FAILED = tl.constexpr(0x40008080)


@triton.jit
def candidates(
    c, pr, pc, m, PREFIX: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr,
):  # fmt: skip
    """Candidates c of the patch (pr, pc): (key, whether there is one, row and column in the halo)."""
    HW: tl.constexpr = PW + 2 * RADIUS
    place = c - PREFIX
    halo_row = place // HW
    halo_column = place % HW
    row = pr * PH - RADIUS + halo_row
    column = pc * PW - RADIUS + halo_column
    j = PREFIX + row * WIDTH + column
    inside = (halo_row < PH + 2 * RADIUS) & (row >= 0) & (column >= 0) & (column < WIDTH)
    if PREFIX > 0:
        leading = c < PREFIX
        j = tl.where(leading, c, j)
        inside = inside | leading
    return j, inside & (j < m), halo_row, halo_column


@triton.jit
def code(row, column, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr):
    """Two small numbers in one: a query hears a key if both numbers' differences lie in [0, 2 RADIUS].

    Those are rows and columns, or their sums and differences for |dr| + |dc| <= RADIUS.
    """
    if MANHATTAN:
        return ((row + column - RADIUS) << 8) + (row - column + RADIUS)
    else:
        return (row << 8) + column


@triton.jit
def heard(column_code, row_code, RADIUS: tl.constexpr):
    """Whether both differences of two codes lie in [0, 2 RADIUS]: none negative, and none negative when reversed."""
    x = column_code - row_code
    return ((x | (2 * RADIUS * 257 - x)) & FAILED) == 0


@triton.jit
def bits_of(c, a, b, PREFIX: tl.constexpr, RADIUS: tl.constexpr, PW: tl.constexpr):
    """Number of the bit in which cell (a, b) of the patch saves candidate c."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    HW: tl.constexpr = PW + 2 * RADIUS
    place = c - PREFIX
    bit = (PREFIX + place // HW * SIDE + place % HW)[None, :] - (a * SIDE + b)[:, None]
    if PREFIX > 0:
        bit = tl.where((c < PREFIX)[None, :], c[None, :], bit)
    return bit


@triton.jit
def cells_of_patch(
    pr, pc, n, offset, PREFIX: tl.constexpr, WIDTH: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    """Cells of the patch: (rows and columns inside it, query of each, whether there is one)."""
    r = tl.arange(0, B)
    a = r // PW
    b = r % PW
    column = pc * PW + b
    i = PREFIX + (pr * PH + a) * WIDTH + column - offset
    return a, b, i, (a < PH) & (column < WIDTH) & (i >= 0) & (i < n)


@triton.jit
def load_listed(pointer, index, inside, stride, D: tl.constexpr, DP: tl.constexpr):
    """Rows `index` of a matrix as a tile (rows, DP); zero where not `inside`."""
    d = tl.arange(0, DP)
    mask = inside[:, None]
    if D != DP:
        mask = mask & (d < D)[None, :]
    return tl.load(pointer + (index.to(tl.int64) * stride)[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def products(x, y, X, i, there, stride_x, Y, j, inside, stride_y, D: tl.constexpr, DP: tl.constexpr):
    """Products <x_i, y_j> of two tiles of rows, summed in float32.

    Rows of float32 are read again, 16 dimensions at a time: the operands of their products would not fit the registers.
    """
    if (X.dtype.element_ty == tl.float32) and (DP > 16):
        PIECE: tl.constexpr = 16
        sums = tl.zeros([x.shape[0], y.shape[0]], tl.float32)
        for start in range(0, DP, PIECE):
            d = start + tl.arange(0, PIECE)
            known = (d < D)[None, :]
            a = tl.load(X + (i.to(tl.int64) * stride_x)[:, None] + d[None, :], mask=there[:, None] & known, other=0.0)
            b = tl.load(Y + (j.to(tl.int64) * stride_y)[:, None] + d[None, :], mask=inside[:, None] & known, other=0.0)
            sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee")
        return sums
    else:
        return tl.dot(x, tl.trans(y), input_precision="ieee")


@triton.jit
def _at_least(s, threshold, NT: tl.constexpr):
    """How many of a row's scores are at least the threshold (B,)."""
    n = (s[0] >= threshold[:, None]).to(tl.float32)
    for t in tl.static_range(1, NT):
        n += (s[t] >= threshold[:, None]).to(tl.float32)
    return tl.sum(n, 1)


@triton.jit
def _largest_below(s, bound, NT: tl.constexpr):
    """Largest of a row's scores below the bound (B,)."""
    x = tl.where(s[0] < bound[:, None], s[0], float("-inf"))
    for t in tl.static_range(1, NT):
        x = tl.maximum(x, tl.where(s[t] < bound[:, None], s[t], float("-inf")))
    return tl.max(x, 1)


@triton.jit
def _least_from(s, bound, NT: tl.constexpr):
    """Least of a row's scores that reach the bound (B,)."""
    x = tl.where(s[0] >= bound[:, None], s[0], float("inf"))
    for t in tl.static_range(1, NT):
        x = tl.minimum(x, tl.where(s[t] >= bound[:, None], s[t], float("inf")))
    return tl.min(x, 1)


@triton.jit
def _threshold(s, lo, hi, number, settled, K: tl.constexpr, NT: tl.constexpr):
    """The k-th score of every row, or the least of rows that hear at most K.

    Rows that are `settled` need no search. In the others a bracket lo < hi with count(lo) >= K > count(hi) is narrowed
    until count(lo) = K, or count(hi) = K - 1, or all scores in it are equal. Two proposals at the place that the counts
    suggest, then one half-way between the ordinals, which bounds the steps by 96 whatever the scores.
    """
    at_lo = number
    at_hi = tl.zeros_like(number)
    step = 0
    going = tl.max((~settled).to(tl.int32), 0)
    while going > 0:
        half = float_of_ordinal(midpoint(ordinal_of_float(lo), ordinal_of_float(hi)))
        guess = lo + (hi - lo) * ((at_lo - K + 0.5) / tl.maximum(at_lo - at_hi, 1.0))
        middle = tl.where((guess > lo) & (guess < hi) & (step % 3 != 2), guess, half)
        n = _at_least(s, middle, NT)
        up = (n >= K) & ~settled
        down = (n < K) & ~settled
        lo = tl.where(up, middle, lo)
        at_lo = tl.where(up, n, at_lo)
        hi = tl.where(down, middle, hi)
        at_hi = tl.where(down, n, at_hi)
        settled = settled | (at_lo == K) | (at_hi == K - 1)
        step += 1
        if (step > 5) & (step % 3 == 0):
            settled = settled | (_largest_below(s, hi, NT) == _least_from(s, lo, NT))
        going = tl.max((~settled).to(tl.int32), 0)
    return tl.where(at_lo <= K, lo, _largest_below(s, hi, NT))


@triton.jit
def cut_in_word(word, column, cut, wanted):
    """The wanted-th tie, if this word holds it: (its column, ties still wanted, which is negative once found)."""
    here = population(word)
    inside = (wanted > 0) & (here >= wanted)
    return tl.where(inside, column + position_of_bit(word, wanted), cut), tl.where(inside, -FAR, wanted - here)


@triton.jit
def _cut_ties(s, threshold, excess, K: tl.constexpr, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
    """Scores with -inf for those equal to the threshold beyond the K-th, in rows that have an `excess`."""
    above = tl.zeros_like(threshold)
    for t in tl.static_range(NT):
        above += tl.sum((s[t] > threshold[:, None]).to(tl.float32), 1)
    wanted = K - above.to(tl.int32)
    cut = tl.zeros_like(wanted) + 2 * FAR
    for t in tl.static_range(NT):
        equal = s[t] == threshold[:, None]
        if T == 64:
            word, second = pack_pair(equal, B)
            cut, wanted = cut_in_word(word, t * T, cut, wanted)
            cut, wanted = cut_in_word(second, t * T + 32, cut, wanted)
        else:
            cut, wanted = cut_in_word(pack(equal, T), t * T, cut, wanted)
    kept = ()
    for t in tl.static_range(NT):
        late = (s[t] == threshold[:, None]) & ((t * T + tl.arange(0, T))[None, :] > cut[:, None]) & excess[:, None]
        kept = kept + (tl.where(late, float("-inf"), s[t]),)
    return kept


@triton.jit
def _words(
    s, threshold, a, b, PREFIX: tl.constexpr, RADIUS: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
    NT: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Words (B,) of the bits of all scores that reach the threshold."""
    words = ()
    for w in tl.static_range(WORDS):
        word = tl.zeros([B, T], tl.int32)
        for t in tl.static_range(NT):
            c = t * T + tl.arange(0, T)
            bit = bits_of(c, a, b, PREFIX, RADIUS, PW)
            keep = s[t] >= threshold[:, None]
            if WORDS > 1:
                keep = keep & (bit >> 5 == w)
            word |= tl.where(keep, 1 << (bit & 31), 0)
        words = words + (tl.sum(word, 1),)
    return words


@triton.jit
def _values(
    V, pr, pc, m, stride, WIDTH: tl.constexpr, RADIUS: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
):  # fmt: skip
    """Values of the candidates, a tile each."""
    values = ()
    for t in tl.static_range(NT):
        j, inside, halo_row, halo_column = candidates(t * T + tl.arange(0, T), pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW)
        values = values + (load_listed(V, j, inside, stride, D, DP),)
    return values


@triton.jit
def _finite_values(
    s, V, pr, pc, threshold, cleared, m, stride, WIDTH: tl.constexpr, RADIUS: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
    NT: tl.constexpr,
):  # fmt: skip
    """Weighted values once more: where not finite, 0 if not selected (0 * NaN is NaN) and NaN if selected."""
    values = _values(V, pr, pc, m, stride, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, T, NT)
    out = tl.zeros([B, DP], tl.float32)
    poison = tl.zeros([B, DP], tl.float32)
    for t in tl.static_range(NT):
        keep = s[t] >= threshold[:, None]
        p = tl.where(keep, tl.exp2(tl.fma(s[t], LOG2E, cleared[:, None])), 0.0)
        v = values[t]
        finite = tl.abs(v.to(tl.float32)) < float("inf")
        out = tl.dot(p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out, input_precision="ieee")
        poison = tl.dot(keep.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
    return tl.where(poison > 0, float("nan"), out)


@triton.jit
def _patch(
    Q, K, V, BIAS, OUT, LOGZ, BITS, pr, pc, scale, n, m, offset, stride_qn, stride_kn, stride_vn, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr,
    PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Output, log-partition and bits of the queries of one patch of one head."""
    a, b, i, there = cells_of_patch(pr, pc, n, offset, PREFIX, WIDTH, PH, PW, B)
    row_code = code(a, b, 0, MANHATTAN)
    # All loads before the first product waits for one.
    keys = ()
    for t in tl.static_range(NT):
        j, inside, halo_row, halo_column = candidates(t * T + tl.arange(0, T), pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW)
        keys = keys + (load_listed(K, j, inside, stride_kn, D, DP),)
    q = load_listed(Q, i, there, stride_qn, D, DP)
    s = ()
    for t in tl.static_range(NT):
        c = t * T + tl.arange(0, T)
        j, inside, halo_row, halo_column = candidates(c, pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW)
        x = products(q, keys[t], Q, i, there, stride_qn, K, j, inside, stride_kn, D, DP) * scale
        if HAS_BIAS:
            bias = tl.load(BIAS + j.to(tl.int64), mask=inside, other=float("-inf"))
            inside = inside & (bias > float("-inf"))
            x = x + bias[None, :]
        hears = heard(
            tl.where(inside, code(halo_row, halo_column, RADIUS, MANHATTAN), NOBODY)[None, :], row_code[:, None], RADIUS
        )
        if t * T < PREFIX:
            hears = hears | ((c < PREFIX) & inside)[None, :]
        s = s + (tl.where(hears, x, float("-inf")),)
    highest = s[0]
    for t in tl.static_range(1, NT):
        highest = tl.maximum(highest, s[t], propagate_nan=tl.PropagateNan.ALL)
    top = row_maximum(highest)
    threshold = tl.zeros([B], tl.float32) - 3.4028234e38
    if TOP_K > 0:
        lowest = tl.zeros([B, T], tl.float32) + float("inf")
        seen = tl.zeros([B, T], tl.float32)
        for t in tl.static_range(NT):
            finite = s[t] > float("-inf")
            seen += finite.to(tl.float32)
            lowest = tl.minimum(lowest, tl.where(finite, s[t], float("inf")))
        number = tl.sum(seen, 1)
        lo = tl.min(lowest, 1)
        # One past the largest: fewer than K scores reach it.
        hi = float_of_ordinal(ordinal_of_float(top) + 1)
        settled = (number <= TOP_K) | ~there | (top != top) | (lo >= top)
        threshold = _threshold(s, lo, hi, number, settled, TOP_K, NT)
        words = _words(s, threshold, a, b, PREFIX, RADIUS, PW, B, T, NT, WORDS)
        if not KEEP_TIES:
            chosen = population(words[0])
            for w in tl.static_range(1, WORDS):
                chosen += population(words[w])
            excess = (chosen > TOP_K) & there
            if tl.max(excess.to(tl.int32), 0) > 0:
                s = _cut_ties(s, threshold, excess, TOP_K, NT, B, T)
                words = _words(s, threshold, a, b, PREFIX, RADIUS, PW, B, T, NT, WORDS)
        for w in tl.static_range(WORDS):
            tl.store(BITS + w * n.to(tl.int64) + i, words[w], mask=there)

    base = tl.where(top == float("-inf"), 0.0, top)
    cleared = -base * LOG2E
    values = _values(V, pr, pc, m, stride_vn, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, T, NT)
    weights = tl.zeros([B, T], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    for t in tl.static_range(NT):
        p = tl.where(s[t] >= threshold[:, None], tl.exp2(tl.fma(s[t], LOG2E, cleared[:, None])), 0.0)
        weights += p
        out = tl.dot(p.to(values[t].dtype), values[t], out, input_precision="ieee")
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        out = _finite_values(s, V, pr, pc, threshold, cleared, m, stride_vn, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, B, T, NT)  # fmt: skip  # noqa: E501
    weight = tl.where(top == top, tl.sum(weights, 1), top)
    out = out / tl.where(weight == 0.0, 1.0, weight)[:, None]
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    d = tl.arange(0, DP)
    tl.store(
        OUT + (i.to(tl.int64) * stride_on)[:, None] + d[None, :],
        out.to(OUT.dtype.element_ty),
        mask=there[:, None] & (d < D)[None, :],
    )
    tl.store(LOGZ + i, logz, mask=there)


@triton.jit
def _count_saved(SAVED, m, threshold, CHUNK: tl.constexpr):
    """How many of m scores in memory are at least the threshold."""
    n = tl.zeros([CHUNK], tl.float32)
    for start in range(0, m, CHUNK):
        c = start + tl.arange(0, CHUNK)
        n += (tl.load(SAVED + c, mask=c < m, other=float("-inf")) >= threshold).to(tl.float32)
    return tl.sum(n, 0)


@triton.jit
def _bracket_of_saved(SAVED, m, lo, hi, CHUNK: tl.constexpr):
    """(Least of m scores in memory that reaches lo, largest below hi)."""
    least = tl.zeros([CHUNK], tl.float32) + float("inf")
    most = tl.zeros([CHUNK], tl.float32) + float("-inf")
    for start in range(0, m, CHUNK):
        c = start + tl.arange(0, CHUNK)
        x = tl.load(SAVED + c, mask=c < m, other=float("-inf"))
        least = tl.minimum(least, tl.where(x >= lo, x, float("inf")))
        most = tl.maximum(most, tl.where(x < hi, x, float("-inf")))
    return tl.min(least, 0), tl.max(most, 0)


@triton.jit
def _threshold_of_saved(SAVED, m, lo, top, number, K: tl.constexpr, CHUNK: tl.constexpr):
    """The k-th of m scores in memory, or the least (lo) where there are at most K; as `_threshold`."""
    hi = float_of_ordinal(ordinal_of_float(top) + 1)
    at_lo = number
    at_hi = number * 0.0
    going = (number > K) & (top == top) & (lo < top)
    step = 0
    while going:
        middle = float_of_ordinal(midpoint(ordinal_of_float(lo), ordinal_of_float(hi)))
        guess = lo + (hi - lo) * ((at_lo - K + 0.5) / tl.maximum(at_lo - at_hi, 1.0))
        middle = tl.where((guess > lo) & (guess < hi) & (step % 3 < 2), guess, middle)
        n = _count_saved(SAVED, m, middle, CHUNK)
        enough = n >= K
        lo = tl.where(enough, middle, lo)
        at_lo = tl.where(enough, n, at_lo)
        hi = tl.where(enough, hi, middle)
        at_hi = tl.where(enough, at_hi, n)
        going = (at_lo != K) & (at_hi != K - 1)
        step += 1
        if step % 3 == 0:
            least, most = _bracket_of_saved(SAVED, m, lo, hi, CHUNK)
            going = going & (least != most)
    least, most = _bracket_of_saved(SAVED, m, lo, hi, CHUNK)
    return tl.where((at_lo <= K) | (lo >= top), lo, most)


@triton.jit
def _last_tie(SAVED, m, threshold, wanted, CHUNK: tl.constexpr):
    """Index of the wanted-th of the scores in memory that equal the threshold."""
    cut = wanted * 0 + 2 * FAR
    for start in range(0, m, CHUNK):
        c = start + tl.arange(0, CHUNK)
        equal = (tl.load(SAVED + c, mask=c < m, other=float("-inf")) == threshold).to(tl.int32)
        rank = tl.cumsum(equal, 0)
        place = tl.max(tl.where((equal == 1) & (rank == wanted), c, -1), 0)
        cut = tl.where(place >= 0, place, cut)
        wanted -= tl.sum(equal, 0)
    return cut


@triton.jit
def _prefix_row(
    Q, K, V, BIAS, SAVED, OUT, LOGZ, BITS, i, scale, m, stride_qn, stride_kn, stride_vn, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    KEYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Output, log-partition and bits of query i, which hears all m keys; its scores pass through memory."""
    d = tl.arange(0, DP)
    q = tl.load(Q + i.to(tl.int64) * stride_qn + d, mask=d < D, other=0.0).to(tl.float32)
    least = tl.zeros([KEYS], tl.float32) + float("inf")
    most = tl.zeros([KEYS], tl.float32) + float("-inf")
    seen = tl.zeros([KEYS], tl.float32)
    for u in range(tl.cdiv(m, KEYS)):
        start = u * KEYS + i * 0
        c = tl.arange(0, KEYS)
        k = load_rows(K, start, c, m, stride_kn, D, DP, "").to(tl.float32)
        bias = load_bias(BIAS, start, c, m, HAS_BIAS)
        x = tl.sum(k * q[None, :], 1) * scale
        if HAS_BIAS:
            x = x + bias
        x = tl.where(bias > float("-inf"), x, float("-inf"))
        tl.store(SAVED + start + c, x, mask=start + c < m)
        most = tl.maximum(most, x, propagate_nan=tl.PropagateNan.ALL)
        least = tl.minimum(least, tl.where(x > float("-inf"), x, float("inf")))
        seen += (x > float("-inf")).to(tl.float32)
    top = tl.max(row_maximum(most[None, :]), 0)
    number = tl.sum(seen, 0)
    threshold = tl.min(least, 0)
    cut = i * 0 + 2 * FAR
    # Other threads' scores are read from here on.
    tl.debug_barrier()
    if TOP_K > 0:
        threshold = _threshold_of_saved(SAVED, m, threshold, top, number, TOP_K, CHUNK)
        if not KEEP_TIES:
            if _count_saved(SAVED, m, threshold, CHUNK) > TOP_K:
                above = _count_saved(SAVED, m, float_of_ordinal(ordinal_of_float(threshold) + 1), CHUNK)
                cut = _last_tie(SAVED, m, threshold, TOP_K - above.to(tl.int32), CHUNK)
        for start in range(0, m, CHUNK):
            c = start + tl.arange(0, CHUNK)
            x = tl.load(SAVED + c, mask=c < m, other=float("-inf"))
            keep = ((x > threshold) | ((x == threshold) & (c <= cut))) & (x > float("-inf"))
            word = tl.sum(tl.reshape(tl.where(keep, 1 << (c & 31), 0), (CHUNK // 32, 32)), 1)
            w = start // 32 + tl.arange(0, CHUNK // 32)
            tl.store(BITS + w, word, mask=w * 32 < m)
    base = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.zeros([KEYS], tl.float32)
    sums = tl.zeros([KEYS, DP], tl.float32)
    for u in range(tl.cdiv(m, KEYS)):
        start = u * KEYS + i * 0
        c = tl.arange(0, KEYS)
        x = tl.load(SAVED + start + c, mask=start + c < m, other=float("-inf"))
        keep = ((x > threshold) | ((x == threshold) & (start + c <= cut))) & (x > float("-inf"))
        p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, -base * LOG2E)), 0.0)
        weights += p
        v = load_rows(V, start, c, m, stride_vn, D, DP, "").to(tl.float32)
        sums += tl.where(keep[:, None], p[:, None] * v, 0.0)
    total = tl.sum(weights, 0)
    weight = tl.where(top == top, total, top)
    out = tl.sum(sums, 0) / tl.where(weight == 0.0, 1.0, weight)
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    tl.store(OUT + i.to(tl.int64) * stride_on + d, out.to(OUT.dtype.element_ty), mask=d < D)
    tl.store(LOGZ + i, logz)


@triton.jit(do_not_specialize=(*RUN_TIME, "units", "patches", "stored"))
def grid_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, SAVED,
    scale_value, n, m, heads, group, offset, units, patches, stored,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr,
    PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
    LEADING: tl.constexpr, PATCHES: tl.constexpr, KEYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Programs of the first LEADING queries of every head, which take longest, then (if PATCHES) those of patches."""
    program = tl.program_id(0)
    first = units * LEADING
    each = LEADING if program < first else patches
    place = program if program < first else program - first
    unit = place // each
    patch = place % each
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    OUT += batch * stride_ob + head * stride_oh
    LOGZ += unit.to(tl.int64) * n
    BITS += unit.to(tl.int64) * stored
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    if LEADING > 0:
        if program < first:
            if TOP_K > 0:
                # Its own words are not read; nothing saved is left to chance.
                for w in tl.static_range(WORDS):
                    tl.store(BITS + w * n.to(tl.int64) + patch, 0)
            _prefix_row(
                Q, K, V, BIAS, SAVED + (unit.to(tl.int64) * LEADING + patch) * m, OUT, LOGZ,
                BITS + WORDS * n.to(tl.int64) + patch * tl.cdiv(m, 32), patch, scale, m, stride_qn, stride_kn,
                stride_vn, stride_on, TOP_K, KEEP_TIES, D, DP, HAS_BIAS, KEYS, CHUNK,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _patch(
                Q, K, V, BIAS, OUT, LOGZ, BITS, patch // across, patch % across, scale, n, m, offset, stride_qn,
                stride_kn, stride_vn, stride_on, TOP_K, KEEP_TIES, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS,
                PH, PW, B, T, NT, WORDS,
            )  # fmt: skip


def patch_shape(
    height: int, width: int, radius: int, prefix: int, tiles: tuple[int, ...] = (64, 32, 16)
) -> tuple[int, int, int]:
    """(Rows, columns, candidates a tile) of the patches that cover a grid at the least cost, at most 16 cells each.

    A program costs its candidates, in whole tiles, and what stands beside (48 of them, from measurements on an H200).
    Among equals the largest tile and the squarest patch.
    """

    def cost(choice: tuple[int, int, int]) -> tuple[int, int, int]:
        rows, columns, tile = choice
        programs = -(-height // rows) * -(-width // columns)
        candidates = prefix + (rows + 2 * radius) * (columns + 2 * radius)
        return programs * (48 + -(-candidates // tile) * tile), -tile, abs(rows - columns)

    shapes = ((rows, columns) for rows in range(1, ROWS + 1) for columns in range(1, ROWS // rows + 1))
    return min(((rows, columns, tile) for rows, columns in shapes for tile in tiles), key=cost)


@dataclass(frozen=True)
class Sizes:
    """Cells of a patch, candidates a tile, warps, cap of a thread's registers."""

    rows: int
    columns: int
    tile: int
    warps: int
    registers: int | None = None


@dataclass(frozen=True)
class Launch:
    """One launch of a grid kernel: programs of prefix tokens and of patches for each head, constants, options."""

    leading: int
    patches: int
    constants: dict[str, Any]
    options: dict[str, Any]

    @property
    def programs(self) -> int:
        """Programs for each head."""
        return self.leading + (self.patches if self.constants["PATCHES"] else 0)


def _sizes(hood: Neighbourhood, height: int, d: int, dtype: torch.dtype, backward: bool) -> Sizes:
    """By the registers that tiles of keys, scores and sums take."""
    if dtype == torch.float32:
        tiles, warps = ((16,), 4 if d <= 128 else 8) if backward else (((32,), 4) if d <= 64 else ((16,), 8))
    elif backward:
        tiles, warps = ((64, 32), 2) if d <= 64 else ((64,), 4) if d <= 128 else ((32,), 8)
    else:
        tiles, warps = ((64, 32, 16), 1) if d <= 64 else ((64,), 2) if d <= 128 else ((32,), 4)
    _, width, radius, _ = hood.grid or (0, 1, 0, "")
    rows, columns, tile = patch_shape(height, width, radius, hood.prefix, tiles)
    held = hood.prefix + (rows + 2 * radius) * (columns + 2 * radius)
    # With 64 candidates all fits 168 registers; twelve warps share a multiprocessor then, not eight.
    return Sizes(rows, columns, tile, warps, registers=168 if warps == 1 and held <= 64 else None)


@lru_cache(maxsize=256)
def plan(
    hood: Neighbourhood, positions: int, leading: int, walked: int, d: int, dtype: torch.dtype, backward: bool,
    chosen: Sizes | None = None,
) -> list[Launch]:  # fmt: skip
    """Launches for patches of all `positions` and for `leading` prefix tokens, each of which meets `walked` tokens.

    Args:
        hood: Who is heard.
        positions: Tokens to cover with patches, prefix included.
        leading: Prefix tokens that need a program.
        walked: Tokens that such a program walks over; where it is long it has more warps, in a launch before.
        d: Head dimension.
        dtype: Type of the tokens.
        backward: Whether for the backward pass, whose prefix programs hold two sums.
        chosen: Sizes instead of the tabulated ones; for measurements.
    """
    _, width, radius, _ = hood.grid or (0, 1, 0, "")
    d = padded(d)
    numbers = 1024 if backward else 2048
    height = -(-max(positions - hood.prefix, 0) // width)
    size = chosen or _sizes(hood, height, d, dtype, backward)
    patches = -(-height // size.rows) * -(-width // size.columns)
    tiles = -(-(hood.prefix + (size.rows + 2 * radius) * (size.columns + 2 * radius)) // size.tile)
    constants = {"PH": size.rows, "PW": size.columns, "B": ROWS, "T": size.tile, "NT": tiles, "WORDS": hood.cell_words}
    launches = []
    if leading and walked > LARGEST_PREFIX_ROW:
        special = {"LEADING": leading, "PATCHES": False, "KEYS": 8 * numbers // d}
        launches.append(Launch(leading, 1, constants | special, launch_options(8)))
        leading = 0
    if leading + patches:
        special = {"LEADING": leading, "PATCHES": patches > 0, "KEYS": size.warps * numbers // d}
        options = launch_options(size.warps, registers=size.registers)
        launches.append(Launch(leading, max(patches, 1), constants | special, options))
    return launches


def launch_grid(
    hood: Neighbourhood, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any],
    chosen: Sizes | None = None,
) -> None:  # fmt: skip
    """Launch `grid_kernel`; arguments as prepared by `launch.forward`."""
    q, _, _, _, _, _, log_partition, selected = arrays
    batch, heads, n, d = q.shape
    _, _, m, _, _, offset = numbers
    leading = min(max(hood.prefix - offset, 0), n)
    saved = torch.empty((batch, heads, leading, m), dtype=torch.float32, device=q.device) if leading else log_partition
    constants = {name: common[name] for name in SHARED}
    stored = selected.shape[-1] * selected.shape[-2]
    for one in plan(hood, offset + n, leading, m, d, q.dtype, False, chosen):
        grid_kernel[(batch * heads * one.programs,)](
            *arrays, saved, *numbers, batch * heads, one.patches, stored, *strides, **constants, **one.constants,
            CHUNK=max(256, 128 * one.options["num_warps"]), **one.options,
        )  # fmt: skip
