"""Exact selection of the k best of a row of float32 scores that a program holds in registers.

The k-th score is bracketed by counting: lo is reached by at least k scores, hi by fewer. Thresholds come first from the
distribution that the scores seem to have, then by regula falsi on the counts, then, in turns, from the data (the next
score inside the bracket) and from the middle of the bracket in the order of the floats, which ends after 32 turns
whatever the data. All rows of a program share one rolled loop: code that is unrolled here outgrows the instruction
cache, and waiting for instructions then costs more than counting.
"""

import triton
import triton.language as tl

from .primitives import (
    FAR,
    INTERPRETED,
    float_of_ordinal,
    midpoint,
    ordinal_of_float,
    pack,
    pack_pair,
    population,
    position_of_bit,
)


@triton.jit
def _ones(x, threshold):
    """1.0 where x >= threshold, else 0.0 (also for NaN), in one instruction."""
    if INTERPRETED:
        return (x >= threshold).to(tl.float32)
    else:
        return tl.inline_asm_elementwise(
            "set.ge.f32.f32 $0, $1, $2;", "=f,f,f", [x, threshold], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def _count(s, threshold, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
    """How many scores of each row reach its threshold, float32 (B,)."""
    wide = tl.broadcast_to(threshold[:, None], (B, T))
    ones = _ones(s[0], wide)
    for t in tl.static_range(1, NT):
        ones += _ones(s[t], wide)
    return tl.sum(ones, 1)


@triton.jit
def _largest(s, bound, sign, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
    """Largest sign * score of each row that is at most its bound; -inf where there is none."""
    best = tl.zeros([B, T], tl.float32) + float("-inf")
    for t in tl.static_range(NT):
        x = s[t] * sign[:, None]
        best = tl.maximum(best, tl.where(x <= bound[:, None], x, float("-inf")))
    return tl.max(best, 1)


@triton.jit
def sample_moments(x, B: tl.constexpr, T: tl.constexpr):
    """Mean and standard deviation of a tile's finite scores, row by row, without those far out.

    They set the first threshold; no result depends on them, and half of a wide tile is enough.
    """
    if T == 64:
        x, _ = tl.split(tl.reshape(x, (B, T // 2, 2)))
    there = tl.abs(x) < float("inf")
    x = tl.where(there, x, 0.0)
    number = tl.maximum(tl.sum(there.to(tl.float32), 1), 1.0)
    mean = tl.sum(x, 1) / number
    x = tl.where(there, x - mean[:, None], 0.0)
    # 2.6 mean absolute deviations are two standard deviations of a normal distribution.
    near = there & (tl.abs(x) <= (2.6 * tl.sum(tl.abs(x), 1) / number)[:, None])
    x = tl.where(near, x, 0.0)
    known = 1.0 / tl.maximum(tl.sum(near.to(tl.float32), 1), 1.0)
    centre = tl.sum(x, 1) * known
    spread = tl.sum(tl.where(near, tl.abs(x - centre[:, None]), 0.0), 1) * known
    # Of a normal distribution cut at two standard deviations.
    return mean + centre, 1.36 * spread


@triton.jit
def _propose(lo, hi, at_lo, at_hi, threshold, count, slope, K: tl.constexpr):
    """Next threshold: inside the bracket by its counts, else beyond the last one by the expected density, and more."""
    inside = lo + (hi - lo) * tl.minimum(tl.maximum((at_lo - K) / (at_lo - at_hi), 0.05), 0.95)
    beyond = threshold + (count - K + tl.where(count >= K, 2.0, -2.0)) * slope
    return tl.where((lo > float("-inf")) & (hi < float("inf")), inside, beyond)


@triton.jit
def _narrow(lo, hi, at_lo, at_hi, threshold, count, free, K: tl.constexpr):
    """The bracket after a count, in the rows that are free to move."""
    up = free & (count >= K)
    down = free & (count < K)
    lo = tl.where(up, threshold, lo)
    at_lo = tl.where(up, count, at_lo)
    hi = tl.where(down, threshold, hi)
    at_hi = tl.where(down, count, at_hi)
    return lo, hi, at_lo, at_hi


@triton.jit
def kth_score(
    s, everything, guess, slope, K: tl.constexpr, STEPS: tl.constexpr,
    NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """The k-th score of each row, how many reach it, how many exceed it where more than k reach it.

    Args:
        s: Tiles (B, T) of scores, -inf where a row does not hear the key.
        everything: Rows that hear at most K keys; their answer is -inf.
        guess: First thresholds (B,).
        slope: Expected distance of neighbouring scores there (B,).
        K: How many are selected.
        STEPS: Thresholds by density and regula falsi before those from the data.
        NT: Number of tiles.
        B: Rows.
        T: Columns of a tile.
    """
    lo = tl.zeros([B], tl.float32) + float("-inf")
    hi = tl.zeros([B], tl.float32) + float("inf")
    at_lo = tl.where(everything, 1.0 * K, 1.0 * NT * T)
    at_hi = tl.zeros([B], tl.float32)
    done = everything
    threshold = guess
    for _ in tl.range(STEPS):
        count = _count(s, threshold, NT, B, T)
        free = ~done & (threshold > lo) & (threshold < hi)
        lo, hi, at_lo, at_hi = _narrow(lo, hi, at_lo, at_hi, threshold, count, free, K)
        threshold = _propose(lo, hi, at_lo, at_hi, threshold, count, slope, K)
    done = done | (at_lo == K)
    going = tl.max((~done).to(tl.int32), 0)
    while going > 0:
        # The largest score below hi, or the smallest one from lo on and a threshold just above it.
        upper = (K - at_hi) <= (at_lo - K)
        bound = tl.where(upper, float_of_ordinal(ordinal_of_float(hi) - 1), -lo)
        sign = tl.where(upper, 1.0, -1.0)
        edge = _largest(s, bound, sign, NT, B, T) * sign + 0.0
        threshold = tl.where(upper, edge, float_of_ordinal(ordinal_of_float(edge) + 1))
        lo = tl.where(upper | done, lo, edge)
        done = done | (upper & (edge == float("-inf")))
        count = _count(s, threshold, NT, B, T)
        lo, hi, at_lo, at_hi = _narrow(lo, hi, at_lo, at_hi, threshold, count, ~done, K)
        # A bracket that holds one number only: scores tied with the k-th.
        done = done | (at_lo == K) | (upper == (count >= K))
        going = tl.max((~done).to(tl.int32), 0)
        if going > 0:
            threshold = float_of_ordinal(midpoint(ordinal_of_float(lo), ordinal_of_float(hi)))
            count = _count(s, threshold, NT, B, T)
            free = ~done & (threshold > lo) & (threshold < hi)
            lo, hi, at_lo, at_hi = _narrow(lo, hi, at_lo, at_hi, threshold, count, free, K)
            done = done | (at_lo == K)
            going = tl.max((~done).to(tl.int32), 0)
    return lo, at_lo, at_hi


@triton.jit
def _seek(word, column, chosen, base, rank, wanted):
    """Remember the word that holds the wanted-th tie: (word, its first column, rank in it, ties still wanted)."""
    here = population(word)
    inside = (wanted > 0) & (here >= wanted)
    chosen = tl.where(inside, word, chosen)
    base = tl.where(inside, column, base)
    return chosen, base, tl.where(inside, wanted, rank), tl.where(inside, -FAR, wanted - here)


@triton.jit
def tie_cut(s, mark, wanted, NT: tl.constexpr, B: tl.constexpr, T: tl.constexpr):
    """Column of the wanted-th (1-based) score equal to the mark; beyond every column where none is wanted."""
    chosen = tl.zeros_like(wanted)
    base = tl.zeros_like(wanted) + 2 * FAR
    rank = tl.zeros_like(wanted)
    for t in tl.static_range(NT):
        equal = s[t] == mark[:, None]
        if T == 64:
            word, second = pack_pair(equal, B)
            chosen, base, rank, wanted = _seek(word, t * 64, chosen, base, rank, wanted)
            chosen, base, rank, wanted = _seek(second, t * 64 + 32, chosen, base, rank, wanted)
        else:
            chosen, base, rank, wanted = _seek(pack(equal, T), t * T, chosen, base, rank, wanted)
    return base + position_of_bit(chosen, rank)
