"""Selection of the k best of every row of scores that a warp holds in registers (tuples of tiles), and their bits."""

import triton
import triton.language as tl

from .grid_geometry import bits_of, halo
from .primitives import (
    FAR,
    float_of_ordinal,
    midpoint,
    ordinal_of_float,
    pack,
    pack_pair,
    population,
    position_of_bit,
)


@triton.jit
def at_least(s, threshold, NT: tl.constexpr):
    """How many of a row's scores are at least the threshold (B,)."""
    n = (s[0] >= threshold[:, None]).to(tl.float32)
    for t in tl.static_range(1, NT):
        n += (s[t] >= threshold[:, None]).to(tl.float32)
    return tl.sum(n, 1)


@triton.jit
def largest_below(s, bound, NT: tl.constexpr):
    """Largest of a row's scores below the bound (B,)."""
    x = tl.where(s[0] < bound[:, None], s[0], float("-inf"))
    for t in tl.static_range(1, NT):
        x = tl.maximum(x, tl.where(s[t] < bound[:, None], s[t], float("-inf")))
    return tl.max(x, 1)


@triton.jit
def least_from(s, bound, NT: tl.constexpr):
    """Least of a row's scores that reach the bound (B,)."""
    x = tl.where(s[0] >= bound[:, None], s[0], float("inf"))
    for t in tl.static_range(1, NT):
        x = tl.minimum(x, tl.where(s[t] >= bound[:, None], s[t], float("inf")))
    return tl.min(x, 1)


@triton.jit
def kth_scores(s, lo, hi, number, settled, K: tl.constexpr, NT: tl.constexpr):
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
        n = at_least(s, middle, NT)
        up = (n >= K) & ~settled
        down = (n < K) & ~settled
        lo = tl.where(up, middle, lo)
        at_lo = tl.where(up, n, at_lo)
        hi = tl.where(down, middle, hi)
        at_hi = tl.where(down, n, at_hi)
        settled = settled | (at_lo == K) | (at_hi == K - 1)
        step += 1
        if (step > 5) & (step % 3 == 0):
            settled = settled | (largest_below(s, hi, NT) == least_from(s, lo, NT))
        going = tl.max((~settled).to(tl.int32), 0)
    return tl.where(at_lo <= K, lo, largest_below(s, hi, NT))


@triton.jit
def cut_in_word(word, column, cut, wanted):
    """The wanted-th tie, if this word holds it: (its column, ties still wanted, which is negative once found)."""
    here = population(word)
    inside = (wanted > 0) & (here >= wanted)
    return tl.where(inside, column + position_of_bit(word, wanted), cut), tl.where(inside, -FAR, wanted - here)


@triton.jit
def cut_ties(s, threshold, excess, K: tl.constexpr, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
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
def words_of_scores(
    s, threshold, a, b, pr, pc, PREFIX: tl.constexpr, RADIUS: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Words (B,) of the bits of all scores that reach the threshold."""
    words = ()
    for w in tl.static_range(WORDS):
        word = tl.zeros([B, T], tl.int32)
        for t in tl.static_range(NT):
            c = t * T + tl.arange(0, T)
            row, column = halo(c, pr, pc, PREFIX, RADIUS, PH, PW, HW)
            bit = bits_of(c, row, column, a, b, PREFIX, RADIUS)
            keep = s[t] >= threshold[:, None]
            if WORDS > 1:
                keep = keep & (bit >> 5 == w)
            word |= tl.where(keep, 1 << (bit & 31), 0)
        words = words + (tl.sum(word, 1),)
    return words
