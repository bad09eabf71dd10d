"""Sums that do not depend on their order: products as pairs of integers whose sums cannot overflow.

Two agents that hear the same set then get the same mean, bit for bit, in whatever order the set was found, so that a
finished cluster is one point; and integer sums vectorise without licence to reorder roundings.
"""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.arithmetic import fma, quotient, two_sum

SAMPLE = 1024
SMALLEST_EXPONENT = -900  # keeps the scale itself finite when a column is all but zero


def limb_bits(terms: int) -> int:
    """Bits of one limb such that ``terms`` of them sum below 2^62."""
    return 61 - math.ceil(math.log2(terms + 1))


@njit()
def split(mass, value, bits, high, low):
    """``mass * value`` as ``(high + low / 2^bits) / scale`` with integer limbs; returns the scale, a power of two.

    The error is 2^-2bits of the largest product, far below the rounding of the values themselves.
    """
    largest = 0.0
    for j in range(mass.size):
        largest = max(largest, abs(mass[j] * value[j]))
    _, exponent = math.frexp(largest)
    scale = math.ldexp(1.0, bits - max(exponent, SMALLEST_EXPONENT))
    unit = math.ldexp(1.0, bits)
    for j in range(mass.size):
        p = mass[j] * value[j]
        error = fma(mass[j], value[j], -p)
        first = np.rint(p * scale)
        high[j] = np.int64(first)
        low[j] = np.int64(np.rint((p * scale - first + error * scale) * unit))
    return scale


@njit(inline="always")
def join(high, low, unit):
    """``high + low * unit`` as a rounded number and its rest."""
    first = np.float64(high)  # at most 2^62: the rounding is recovered exactly below
    return two_sum(first, np.float64(high - np.int64(first)) + np.float64(low) * unit)


def keeps_digits(mass, values):
    """Whether one quantum for all of ``mass * values`` (dv, m) is far below the rounding of nearly every one of them.

    Outliers ten decades above the rest would take it beyond; a sample tells.
    """
    stride = max(1, mass.size // SAMPLE)
    for value in values:
        largest, sizes = float(np.abs(mass * value).max()), np.abs(mass * value)[::stride]
        sizes = sizes[sizes > 0]
        if sizes.size and math.ldexp(largest, -2 * limb_bits(mass.size)) > 2.0**-50 * np.quantile(
            sizes, 0.1, method="lower"
        ):
            return False
    return True


def columns(mass, values):
    """Integer columns of masses (m,) and of ``mass * values``, given as (dv, m), with what `means` needs to read
    their sums.

    Returns:
        columns (1 + 2 dv, m), or (2 + 2 dv, m) where masses are no whole multiples of a power of two; bits; scales (1
        + dv,).
    """
    bits, dv = limb_bits(mass.size), values.shape[0]
    result, scales = np.empty((2 + 2 * dv, mass.size), np.int64), np.empty(1 + dv)
    scales[0] = split(mass, np.ones(mass.size), bits, result[1], result[0])
    first = 1 if not result[0].any() else 0
    for k in range(dv):
        scales[k + 1] = split(mass, values[k], bits, result[2 + 2 * k], result[3 + 2 * k])
    return result[first:], bits, scales


@njit()
def means(sums, bits, scales, mean, partition):
    """Means and masses from sums of the limbs of `columns`, (n, K); a row without mass gets 0 and 0."""
    unit = math.ldexp(1.0, -bits)
    offset = sums.shape[1] % 2  # 1 where the lower limb of the masses was left out
    for i in range(sums.shape[0]):
        divisor, divisor_low = join(sums[i, 1 - offset], sums[i, 0] if offset == 0 else 0, unit)
        partition[i] = divisor / scales[0]
        for k in range(mean.shape[1]):
            d, e = join(sums[i, 2 + 2 * k - offset], sums[i, 3 + 2 * k - offset], unit)
            ratio = scales[0] / scales[k + 1]
            mean[i, k] = quotient(d, e, divisor, divisor_low) * ratio if divisor > 0.0 else 0.0
