"""Compiled loops of one-dimensional transport: two pointers over sorted atoms. Needs numba."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._compiled import njit


@njit(nogil=True)
def power(distance, p):
    """``|distance|^p`` without ``pow`` for the common exponents."""
    distance = abs(distance)
    if p == 1.0:
        return distance
    if p == 2.0:
        return distance * distance
    return distance**p


@njit(nogil=True)
def sortable_keys(x, bits, keys):
    """Fill ``keys`` (n,) with integers in the order of the doubles x; their last ``bits`` bits hold the index."""
    raw = x.view(np.int64)
    for i in range(x.shape[0]):
        key = raw[i]
        if key < 0:
            key ^= np.int64(0x7FFFFFFFFFFFFFFF)  # negative doubles order backwards
        keys[i] = ((key >> bits) << bits) | i


@njit(nogil=True)
def take_in_order(keys, bits, x, mass, places, masses):
    """Fill ``places`` and ``masses`` in the order of sorted keys; neighbours that the cut bits confused are put right.

    Returns:
        Whether the few moves allowed were enough.
    """
    n = x.shape[0]
    mask = (np.int64(1) << bits) - 1
    for k in range(n):
        i = keys[k] & mask
        places[k], masses[k] = x[i], mass[i]
    moves = 4 * n
    for k in range(1, n):
        if places[k] >= places[k - 1]:
            continue
        place, weight, hole = places[k], masses[k], k
        while hole > 0 and places[hole - 1] > place and moves > 0:
            places[hole], masses[hole] = places[hole - 1], masses[hole - 1]
            hole -= 1
            moves -= 1
        places[hole], masses[hole] = place, weight
    return moves > 0


@njit(nogil=True)
def cumulate(masses):
    """Cumulated masses in place, at most 1 and 1 at the end whatever the rounding."""
    total = 0.0
    for k in range(masses.shape[0]):
        total += masses[k]
        masses[k] = min(total, 1.0)
    masses[-1] = 1.0


@njit(nogil=True)
def coupled_cost(x, x_levels, y, y_levels, p):
    """``int_0^1 |F^-1(s) - G^-1(s)|^p ds`` for sorted atoms.

    Args:
        x: (n,) ascending.
        x_levels: (n,) cumulated masses, ascending, the last one 1.
        y: (m,) ascending.
        y_levels: (m,) likewise.
        p: Exponent, at least 1.
    """
    i, j, total, level = 0, 0, 0.0, 0.0
    while i < x.shape[0] and j < y.shape[0]:
        mine, theirs = x_levels[i], y_levels[j]
        upto = min(mine, theirs)
        total += (upto - level) * power(x[i] - y[j], p)
        level = upto
        # Sums instead of branches: which side ends first is a coin toss that no processor predicts.
        i += mine <= theirs
        j += theirs <= mine
    return total


@njit(nogil=True)
def rotated_cost(x, x_levels, y, y_levels, shift, p):
    """``int_0^1 |F^-1(s) - G^-1(s - shift)|^p ds`` on a circle of period 1; lifted quantiles, ``Q(s + 1) = Q(s) + 1``.

    Args:
        x: (n,) in [0, 1), ascending.
        x_levels: (n,) cumulated masses, the last one 1.
        y: (m,) likewise.
        y_levels: (m,).
        shift: In units of mass.
        p: Exponent, at least 1.
    """
    turn = math.floor(-shift)
    j = np.searchsorted(y_levels, -shift - turn, side="right")
    if j == y.shape[0]:
        j, turn = 0, turn + 1
    total, level, i = 0.0, 0.0, 0
    while i < x.shape[0]:
        end = y_levels[j] + turn + shift
        upto = min(x_levels[i], end)
        if upto > level:
            total += (upto - level) * power(x[i] - y[j] - turn, p)
            level = upto
        if end <= x_levels[i]:
            j += 1
            if j == y.shape[0]:
                j, turn = 0, turn + 1
        else:
            i += 1
    return total
