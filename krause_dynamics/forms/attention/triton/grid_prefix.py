"""One row that hears all keys, as those of prefix tokens do: its scores pass through memory, whatever their number."""

import triton
import triton.language as tl

from .primitives import (
    FAR,
    LN2,
    LOG2E,
    float_of_ordinal,
    load_bias,
    load_rows,
    midpoint,
    ordinal_of_float,
    row_maximum,
)


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
    """The k-th of m scores in memory, or the least (lo) where there are at most K; as `kth_scores`."""
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
def prefix_row(
    Q, K, V, BIAS, SAVED, OUT, LOGZ, BITS, i, ranks, scale, m, stride_qn, stride_kn, stride_vn, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    KEYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Output, log-partition and bits of query i, which hears all m keys; its scores pass through memory.

    ``ranks``: whether its keys are ranked; else it selects all that are there.
    """
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
        # A row without a rank has no more than m to select.
        threshold = _threshold_of_saved(SAVED, m, threshold, top, tl.where(ranks, number, 0.0), TOP_K, CHUNK)
        if not KEEP_TIES:
            if ranks & (_count_saved(SAVED, m, threshold, CHUNK) > TOP_K):
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
