"""Compiled loops of one-dimensional transport: two pointers over sorted atoms. Needs numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def power(distance, p):
    """``|distance|^p`` without ``pow`` for the common exponents."""
    distance = abs(distance)
    if p == 1.0:
        return distance
    if p == 2.0:
        return distance * distance
    return distance**p


@njit(cache=True, nogil=True)
def coupled_cost(x, x_mass, y, y_mass, p):
    """``int_0^1 |F^-1(s) - G^-1(s)|^p ds`` for sorted atoms with masses that sum to one number on both sides.

    Args:
        x: (n,) ascending.
        x_mass: (n,) at least 0.
        y: (m,) ascending.
        y_mass: (m,) at least 0.
        p: Exponent, at least 1.
    """
    i, j, total = 0, 0, 0.0
    left, right = x_mass[0], y_mass[0]
    while True:
        moved = min(left, right)
        total += moved * power(x[i] - y[j], p)
        left -= moved
        right -= moved
        # What rounding leaves on the other side when one side is used up is below one rounding of the total mass.
        if left <= 0.0:
            i += 1
            if i == x.shape[0]:
                return total
            left = x_mass[i]
        if right <= 0.0:
            j += 1
            if j == y.shape[0]:
                return total
            right = y_mass[j]


@njit(cache=True, nogil=True)
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
