"""Forward kernel that keeps a whole row of candidate scores in registers: exact windowed top-k attention in one launch.

A program owns B queries and the NT tiles of T keys that any of them may hear. Row r of the block hears, in band coordinates
j' = key - query_offset + left, the interval [i, i + W - 1], i its index; tile t starts at j' = block * B + t * T.

Selection. The scores of a row are mapped monotonically to half precision, centred where the k-th score is expected, so that numbers
near the threshold keep their order; the threshold is bisected there (two scores per instruction, at most 16 steps after three
Newton steps). A row in which more than one score shares the half-precision cell of the threshold is mapped again, the cell's own
float32 range filling the half-precision range, until the cell holds one score: at most four rounds, none on ordinary data. Equal scores
that remain are cut by index, in the words of the bit mask.
"""

import triton
import triton.language as tl

from .primitives import (
    FAR,
    HALF_END,
    HALF_LOWEST,
    LN2,
    LOG2E,
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
    population,
    position_of_bit,
    row_maximum,
    scores,
)


@triton.jit
def _tile(
    q, K, BIAS, t, first, row, low, span, scale, m, stride_k,
    T: tl.constexpr, B: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, FULL: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    """Scores of tile t, -inf where the row does not hear the key."""
    c = tl.arange(0, T)
    j = first + t * T + c
    bias = load_bias(BIAS, j, m, HAS_BIAS)
    k = load_rows(K, j, m, stride_k, D, DP, POLICY)
    s = scores(q, k, scale, bias, HAS_BIAS)
    if FULL:
        heard = admitted(row[:, None], j[None, :], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
        if HAS_BIAS:
            heard = heard & (bias > float("-inf"))[None, :]
        return tl.where(heard, s, float("-inf"))
    else:
        # Position in the row's interval, one unsigned comparison for both ends; span is W - 1 except at the ends of the sequence.
        place = (c[None, :] + (low + t * T)[:, None]).to(tl.uint32, bitcast=True)
        heard = place <= span[:, None]
        if HAS_BIAS:
            heard = heard & (bias > float("-inf"))[None, :]
        return tl.where(heard, s, float("-inf"))


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

    The first NEWTON proposals follow the expected density of the scores (slope = 1 / density) where they fall inside the bracket.
    """
    if NEWTON > 0:
        middle = tl.zeros_like(lo)
        for step in tl.static_range(NEWTON):
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
def _cut_ties(y, threshold, wanted, tied, NT: tl.constexpr, T: tl.constexpr):
    """Drop all but the first `wanted` of a row's numbers that equal the threshold, in the rows where `tied`."""
    cut = tl.zeros_like(wanted) + 2 * FAR
    for t in tl.static_range(NT):
        word = pack(y[t] == threshold[:, None], T)
        here = population(word)
        inside = (wanted > 0) & (here >= wanted)
        cut = tl.where(inside, t * T + position_of_bit(word, wanted), cut)
        # Once found, no later tile can hold the last one: here >= wanted needs wanted >= 1.
        wanted = tl.where(inside, -FAR, wanted - here)
    cut = tl.where(tied, cut, 2 * FAR)
    kept = ()
    for t in tl.static_range(NT):
        column = t * T + tl.arange(0, T)
        late = (y[t] == threshold[:, None]) & (column[None, :] > cut[:, None])
        kept = kept + (tl.where(late, float("-inf"), y[t]).to(tl.float16),)
    return kept


@triton.jit
def _moments(s, reach, about, COUNT: tl.constexpr, B: tl.constexpr):
    """Number, mean and standard deviation of a row's finite scores within `reach` of `about`."""
    seen = tl.zeros([B], tl.float32)
    total = tl.zeros([B], tl.float32)
    squares = tl.zeros([B], tl.float32)
    about = tl.zeros([B], tl.float32) + about
    reach = tl.zeros([B], tl.float32) + reach
    for t in tl.static_range(COUNT):
        x = s[t] - about[:, None]
        near = (s[t] > float("-inf")) & (tl.abs(x) <= reach[:, None])
        x = tl.where(near, x, 0.0)
        seen += tl.sum(near.to(tl.float32), 1)
        total += tl.sum(x, 1)
        squares += tl.sum(x * x, 1)
    known = tl.maximum(seen, 1.0)
    mean = total / known
    return seen, mean + about, tl.sqrt(tl.maximum(squares / known - mean * mean, 0.0))


@triton.jit
def _cell(
    q, K, BIAS, first, row, low, span, scale, m, stride_k, inverse, shift, threshold, unresolved,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Least and largest float32 score that share the threshold's half-precision number; in resolved rows, twice the k-th score."""
    least = tl.zeros([B], tl.float32) + float("inf")
    most = tl.zeros([B], tl.float32) + float("-inf")
    for t in range(NT):
        x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "")  # fmt: skip  # noqa: E501
        y = tl.fma(x, inverse[:, None], shift[:, None]).to(tl.float16)
        inside = (y >= threshold[:, None]) & (x > float("-inf")) & ((y == threshold[:, None]) | ~unresolved[:, None])
        least = tl.minimum(least, tl.min(tl.where(inside, x, float("inf")), 1))
        most = tl.maximum(most, tl.max(tl.where(inside, x, float("-inf")), 1))
    return least, tl.where(unresolved, most, least)


@triton.jit
def _exact_threshold(
    q, K, BIAS, first, row, low, span, scale, m, stride_k, least, most, above, unresolved, TOP_K: tl.constexpr,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """The k-th score of every row, between `least` and `most`, by bisection on float32 ordinals; scores are computed again in each step.

    `above` counts the scores larger than `most`. A row in which only the largest of the cell is wanted is settled at once.
    """
    lo = ordinal_of_float(least)
    hi = ordinal_of_float(most)
    settled = (least >= most) | (above + 1 >= TOP_K)
    lo = tl.where(settled & (least < most), hi, lo)
    hi = tl.where(settled, lo + 1, hi + 1)
    going = tl.max((hi - lo != 1).to(tl.int32), 0)
    while going > 0:
        middle = midpoint(lo, hi)
        mark = float_of_ordinal(middle)
        n = tl.zeros([B], tl.float32)
        for t in range(NT):
            x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "")  # fmt: skip  # noqa: E501
            n += tl.sum((x >= mark[:, None]).to(tl.float32), 1)
        enough = n >= TOP_K
        lo = tl.where(enough, middle, lo)
        hi = tl.where(enough, tl.where(n == TOP_K, middle + 1, hi), middle)
        going = tl.max((hi - lo != 1).to(tl.int32), 0)
    return tl.where(least > most, -3.4028234e38, float_of_ordinal(lo))


@triton.jit
def _finite_values(
    q, K, V, BIAS, BITS, cleared, i, block, first, row, low, span, scale, n, m, stride_k, stride_v,
    T: tl.constexpr, B: tl.constexpr, NT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    FULL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr,
    RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Weighted values once more: those that are not finite count as 0 where not selected (0 * NaN is NaN) and give NaN where selected."""
    out = tl.zeros([B, DP], tl.float32)
    poison = tl.zeros([B, DP], tl.float32)
    for t in range(NT):
        x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_k, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "")  # fmt: skip  # noqa: E501
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
        v = load_rows(V, first + t * T + c, m, stride_v, D, DP, "")
        finite = tl.abs(v.to(tl.float32)) < float("inf")
        out = tl.dot(p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out, input_precision="ieee")
        poison = tl.dot(keep.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
    return tl.where(poison > 0, float("nan"), out)


@triton.jit
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
    r = tl.arange(0, B)
    i = block * B + r
    q = load_rows(Q, i, n, stride_qn, D, DP, "")
    row = i + offset
    if FULL:
        first = 0
        low = i
        span = i.to(tl.uint32)
        possible = tl.zeros([B], tl.int32) + m
    else:
        first = block * B + offset - LEFT
        skip = tl.maximum(LEFT - row, 0)
        last = tl.minimum(LEFT + RIGHT, m - 1 - row + LEFT)
        possible = tl.maximum(last - skip + 1, 0)
        low = tl.where(possible > 0, -r - skip, -FAR)
        span = tl.maximum(last - skip, 0).to(tl.uint32)

    # Where the k-th score is expected, from the moments of the sampled tiles.
    s = ()
    for t in tl.static_range(SAMPLE_FROM, SAMPLE_TO):
        s = s + (_tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, ""),)  # fmt: skip  # noqa: E501
    seen, mean, deviation = _moments(s, float("inf"), 0.0, SAMPLE_TO - SAMPLE_FROM, B)
    if SAMPLE_TO - SAMPLE_FROM == NT:
        possible = seen.to(tl.int32)
    # Once more without what lies far out, so that a few distant keys do not blur the rest.
    seen, mean, deviation = _moments(s, 2.0 * deviation, mean, SAMPLE_TO - SAMPLE_FROM, B)
    deviation = tl.maximum(deviation, tl.maximum(tl.abs(mean) * 1e-6, 1e-30))
    centre = mean + z_score * deviation
    # Rows that hear at most K keys keep all: 0 * s is 0 for a finite s, NaN (never counted) for -inf.
    everything = possible <= TOP_K
    usable = (tl.abs(centre) < 1e30) & (deviation < 1e30) & (seen > 0)
    inverse = tl.where(everything, 0.0, tl.where(usable, 1.0 / deviation, 1.0))
    shift = tl.where(usable & ~everything, -centre * inverse, 0.0)

    top = tl.zeros([B], tl.float32) + float("-inf")
    y = ()
    if not HOLD:
        low = opaque(low)
    for t in tl.static_range(NT):
        if HOLD:
            x = s[t]
        else:
            x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "")  # fmt: skip  # noqa: E501
        top = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
        y = y + (tl.fma(x, inverse[:, None], shift[:, None]).to(tl.float16),)

    lo = tl.where(everything, 0, HALF_LOWEST)
    hi = tl.zeros([B], tl.int32) + HALF_END
    at_lo = tl.where(everything, 1.0 * TOP_K, 1.0 * NT * T)
    at_hi = tl.zeros([B], tl.float32)
    slope = slope_unit / tl.maximum(possible, 1).to(tl.float32)
    lo, hi, at_lo, at_hi = _bisect(y, lo, hi, at_lo, at_hi, slope, TOP_K, NEWTON, ASM, CONSTRAINTS, NT, B, T)

    unresolved = at_lo > TOP_K
    threshold = half_of_ordinal(lo)
    if tl.max(unresolved.to(tl.int32), 0) > 0:
        least, most = _cell(
            q, K, BIAS, first, row, low, span, scale, m, stride_kn, inverse, shift, threshold, unresolved,
            T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
        )  # fmt: skip
        # A cell of equal scores is a group of ties, for which y serves as it is; an empty one (at -inf) belongs to a row of at most K keys.
        if tl.max((unresolved & (least != most)).to(tl.int32), 0) > 0:
            exact = _exact_threshold(
                q, K, BIAS, first, row, low, span, scale, m, stride_kn, least, most, at_hi, unresolved, TOP_K,
                T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
            )  # fmt: skip
            mapped = ()
            low = opaque(low)
            for t in tl.static_range(NT):
                if HOLD:
                    x = s[t]
                else:
                    x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "evict_last")  # fmt: skip  # noqa: E501
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
            y = _cut_ties(y, threshold, TOP_K - above.to(tl.int32), tied, NT, T)

    # Softmax over the selected keys.
    empty = top == float("-inf")
    base = tl.where(empty, 0.0, top)
    cleared = -base * LOG2E
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    words = ()
    if not HOLD:
        low = opaque(low)
    for t in tl.static_range(NT):
        if HOLD:
            x = s[t]
        else:
            x = _tile(q, K, BIAS, t, first, row, low, span, scale, m, stride_kn, T, B, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, "evict_first")  # fmt: skip  # noqa: E501
        keep = y[t] >= threshold[:, None]
        words = words + (pack(keep, T),)
        p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, cleared[:, None])), 0.0)
        weight += tl.sum(p, 1)
        v = load_rows(V, first + t * T + tl.arange(0, T), m, stride_vn, D, DP, "")
        out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")
    BITS += unit.to(tl.int64) * n * WORDS
    _store_words(BITS, words, i, r, block, n, FULL, B, T, NT, WORDS)
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        tl.debug_barrier()
        out = _finite_values(
            q, K, V, BIAS, BITS, cleared, i, block, first, row, low, span, scale, n, m, stride_kn, stride_vn,
            T, B, NT, D, DP, HAS_BIAS, FULL, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX,
        )  # fmt: skip
    weight = tl.where(top == top, weight, top)
    out = out / tl.where(weight == 0.0, 1.0, weight)[:, None]
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(weight) * LN2)

    d = tl.arange(0, DP)
    mask = (i < n)[:, None] & (d < D)[None, :]
    tl.store(OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :], out.to(OUT.dtype.element_ty), mask=mask)
    tl.store(LOGZ + unit.to(tl.int64) * n + i, logz, mask=i < n)


@triton.jit
def _store_words(
    BITS,
    words,
    i,
    r,
    block,
    n,
    FULL: tl.constexpr,
    B: tl.constexpr,
    T: tl.constexpr,
    NT: tl.constexpr,
    WORDS: tl.constexpr,
):
    """Write the words (WORDS, n): word w of row i covers band coordinates 32 (i // 32 + w) onwards (key 32 w onwards when FULL)."""
    if T == 32:
        for t in tl.static_range(NT):
            if FULL:
                w = tl.zeros_like(r) + t
            else:
                w = t - r // 32
            tl.store(BITS + w.to(tl.int64) * n + i, words[t], mask=(i < n) & (w >= 0) & (w < WORDS))
    else:
        # Tiles of 16 (B = 16): two make a word; an odd block starts in the middle of its first one.
        odd = 0
        if not FULL:
            odd = block % 2
        for w in tl.static_range(WORDS):
            even_low = tl.zeros_like(i)
            even_high = tl.zeros_like(i)
            odd_low = tl.zeros_like(i)
            if 2 * w < NT:
                even_low = words[2 * w]
            if 2 * w + 1 < NT:
                even_high = words[2 * w + 1]
            if (w > 0) and (2 * w - 1 < NT):
                odd_low = words[2 * w - 1]
            low = tl.where(odd > 0, odd_low, even_low)
            high = tl.where(odd > 0, even_low, even_high)
            tl.store(BITS + w * n.to(tl.int64) + i, low | (high << 16), mask=i < n)
