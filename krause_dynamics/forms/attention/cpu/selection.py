"""The k largest scores of a row, the earlier one winning a tie: exact, in a time that hardly depends on the data."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import LARGE, highest, lowest
from krause_dynamics.forms.attention.cpu.compiled import at_ordinal, ordinal, plain, smaller, sums

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

PATIENCE = 3  # rounds after which a tie is suspected: then the bracket's lower end moves on to the next score
ROUNDS = 8  # probes by interpolation before bisection alone, which ends after as many steps as a float has bits
SPREAD = 0.06  # how far from the expected place, as a share of the bracket, the outer two of three probes fall


@sums
def not_admitted(values, count):
    """How many are NaN and how many -inf; counted in floating point, which vectorises and is exact here."""
    one, zero, nobody = values.dtype.type(1), values.dtype.type(0), values.dtype.type(-np.inf)
    broken = absent = zero
    for t in range(count):
        broken += one if values[t] != values[t] else zero
        absent += one if values[t] == nobody else zero
    return int(broken), int(absent)


@sums
def _count_from(values, count, bound):
    """How many values are at least bound."""
    one, zero = values.dtype.type(1), values.dtype.type(0)
    reached = zero
    for t in range(count):
        reached += one if values[t] >= bound else zero
    return int(reached)


@sums
def _count_from_four(values, count, a, b, c, d):
    """How many values are at least each of four bounds."""
    one, zero = values.dtype.type(1), values.dtype.type(0)
    ra = rb = rc = rd = zero
    for t in range(count):
        value = values[t]
        ra += one if value >= a else zero
        rb += one if value >= b else zero
        rc += one if value >= c else zero
        rd += one if value >= d else zero
    return int(ra), int(rb), int(rc), int(rd)


@sums
def _least_from(values, count, bound):
    """Smallest value that is at least bound, and how many are above it."""
    beyond = values.dtype.type(LARGE)
    least = beyond
    for t in range(count):
        least = smaller(least, values[t] if values[t] >= bound else beyond)
    one, zero = values.dtype.type(1), values.dtype.type(0)
    above = zero
    for t in range(count):
        above += one if values[t] > least else zero
    return least, int(above)


@plain
def _kth_largest(values, count, k):
    """A bound which k values reach, or else the k-th largest value (when it ties); and how many reach it."""
    low, high = lowest(values, count), highest(values, count)
    below, above = ordinal(low), ordinal(high) + 1  # k values reach the one, fewer the other
    reached, beyond, rounds = _count_from(values, count, low), 0, 0
    while reached != k and above > below + 1:  # their difference may overflow
        middle = at_ordinal((below >> 1) + (above >> 1) + (below & above & 1), low)
        first = second = third = middle
        if rounds < ROUNDS and beyond < reached:
            # Ordinary scores spread evenly enough that a straight line finds the place.
            share = type(low)(reached - k) / type(low)(reached - beyond)
            first = low + (share - type(low)(SPREAD)) * (high - low)
            second = low + share * (high - low)
            third = low + (share + type(low)(SPREAD)) * (high - low)
        seen = _count_from_four(values, count, middle, first, second, third)
        for probe, number in ((middle, seen[0]), (first, seen[1]), (second, seen[2]), (third, seen[3])):
            if below < ordinal(probe) < above:  # not so for the NaN that an infinite end makes
                if number >= k:
                    below, low, reached = ordinal(probe), probe, number
                else:
                    above, high, beyond = ordinal(probe), probe, number
        rounds += 1
        if rounds >= PATIENCE and reached != k:
            low, over = _least_from(values, count, low)
            if over < k:
                return low, reached
            below = ordinal(low)
    return low, reached


@plain
def keep_best(scores, count, k, keep_ties):
    """Set all but the k largest scores to -inf, where the earlier of equal ones stays (or all, with ``keep_ties``).

    Needs 0 < k < the number of finite scores, and no NaN. Returns how many stay.
    """
    nobody = scores.dtype.type(-np.inf)
    bound, reached = _kth_largest(scores, count, k)
    for t in range(count):
        scores[t] = scores[t] if scores[t] >= bound else nobody
    if keep_ties:
        return reached
    surplus, t = reached - k, count
    while surplus > 0:  # they tie at the bound: the last ones go
        t -= 1
        if scores[t] == bound:
            scores[t] = nobody
            surplus -= 1
    return k


@plain
def store_bits(scores, count, bits, begin):
    """Set the bits of the keys that stay (scores above -inf, or NaN) in ``bits[begin:]``."""
    nobody = scores.dtype.type(-np.inf)
    for t in range(count):
        bits[begin + (t >> 3)] |= np.uint8((scores[t] != nobody) << (t & 7))


@plain
def apply_bits(scores, count, bits, begin):
    """Set the scores to -inf that `store_bits` found there."""
    nobody = scores.dtype.type(-np.inf)
    for t in range(count):
        score = scores[t]  # read whether it stays or not: else the compiler makes a branch, which nobody can foresee
        stays = (bits[begin + (t >> 3)] >> (t & 7)) & 1
        scores[t] = score if stays else nobody


@plain
def chosen(columns, count, bits, begin):
    """Columns of a packed row that are selected move to the front; returns their number."""
    number = 0
    for t in range(count):
        columns[number] = columns[t]
        number += (bits[begin + (t >> 3)] >> (t & 7)) & 1
    return number
