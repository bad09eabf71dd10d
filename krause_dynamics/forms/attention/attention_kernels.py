"""Compiled loops for small softmax and Gaussian flows: many steps a call, coordinates first so that loops vectorise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.extending import intrinsic

from krause_dynamics._compiled import njit

SMALLEST_EXPONENT = -708.0  # below, exp is a denormal number
SHIFTER = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the last bits
LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
EULER, RK4 = 0, 1
METHODS = {"euler": EULER, "rk4": RK4}


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _number(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@njit()
def exponentials(x, count, shift):
    """``x <- exp(x - shift)`` in place, for arguments at most about 700 after the shift: relative error below 4e-16.

    Cody & Waite reduction to |r| <= ln(2)/2 and the Taylor polynomial of degree 13 (remainder 4e-18); no branch and no
    call, so that the loop vectorises. No reordering is allowed here: the shift trick depends on the order.
    """
    for j in range(count):
        z = max(x[j] - shift, SMALLEST_EXPONENT)
        rounded = z * LOG2E + SHIFTER
        k = rounded - SHIFTER
        r = (z - k * LN2_HIGH) - k * LN2_LOW
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        x[j] = p * _number((_bits(rounded) + 1023) << 52)  # type: ignore[call-arg]  # intrinsics lose the typing context


@njit(fastmath={"reassoc", "contract", "nsz"})
def scores(x, i, first, last, inner, column, out):
    """``out[j - first] = inner <x_i, x_j> + column_j``, and the largest of them."""
    count = last - first
    for j in range(count):
        out[j] = column[first + j]
    for c in range(x.shape[0]):
        factor = inner * x[c, i]
        for j in range(count):
            out[j] += factor * x[c, first + j]
    largest = out[0]
    for j in range(1, count):
        largest = max(largest, out[j])
    return largest


@njit(fastmath={"reassoc", "contract", "nsz"})
def weighted_sum(x, c, weights, first, count):
    """``sum_j weights_j x[c, first + j]``."""
    total = 0.0
    for j in range(count):
        total += weights[j] * x[c, first + j]
    return total


@njit(fastmath={"reassoc", "contract", "nsz"})
def plain_sum(weights, count):
    """``sum_j weights_j``."""
    total = 0.0
    for j in range(count):
        total += weights[j]
    return total


@njit()
def hear(x, rule, log_mass, mean, log_partition, column, buffer):
    """Means (d, n) and log-partitions (n,) of positions x (d, n); rule = (inner, radial, low, high)."""
    d, n = x.shape
    inner, radial, low, high = rule
    for j in range(n):
        column[j] = log_mass[j]
        if radial:
            for c in range(d):
                column[j] -= 0.5 * inner * x[c, j] * x[c, j]
    for i in range(n):
        first, last = max(0, i - high), min(n, i - low + 1)
        largest = scores(x, i, first, last, inner, column, buffer)
        exponentials(buffer, last - first, largest)
        total = plain_sum(buffer, last - first)
        for c in range(d):
            mean[c, i] = weighted_sum(x, c, buffer, first, last - first) / total
        log_partition[i] = largest + np.log(total)
        if radial:
            for c in range(d):
                log_partition[i] -= 0.5 * inner * x[c, i] * x[c, i]


@njit()
def drift(x, rule, form, log_mass, out, log_partition, column, buffer):
    """Velocity (d, n); form = (normalised, relative, sphere, project)."""
    d, n = x.shape
    normalised, relative, sphere, project = form
    hear(x, rule, log_mass, out, log_partition, column, buffer)
    for i in range(n):
        scale = 1.0 if normalised else np.exp(log_partition[i])
        along = 0.0
        for c in range(d):
            heard = out[c, i] - x[c, i] if relative else out[c, i]
            out[c, i] = heard * scale
            along += out[c, i] * x[c, i]
        if sphere and project:
            for c in range(d):
                out[c, i] -= along * x[c, i]


@njit()
def move(x, velocity, dt, sphere, out):
    """``out = x + dt velocity``, normalised on spheres."""
    d, n = x.shape
    for c in range(d):
        for i in range(n):
            out[c, i] = x[c, i] + dt * velocity[c, i]
    if sphere:
        for i in range(n):
            square = 0.0
            for c in range(d):
                square += out[c, i] * out[c, i]
            scale = 1.0 / np.sqrt(square)
            for c in range(d):
                out[c, i] *= scale


@njit()
def advance(x, rule, form, log_mass, dt, steps, method):
    """``steps`` steps of Euler or RK4 in place on x (d, n)."""
    d, n = x.shape
    sphere = form[2]
    one, two, three, four = np.empty((d, n)), np.empty((d, n)), np.empty((d, n)), np.empty((d, n))
    stage, log_partition, column, buffer = np.empty((d, n)), np.empty(n), np.empty(n), np.empty(n)
    for _ in range(steps):
        drift(x, rule, form, log_mass, one, log_partition, column, buffer)
        if method == RK4:
            move(x, one, dt / 2, sphere, stage)
            drift(stage, rule, form, log_mass, two, log_partition, column, buffer)
            move(x, two, dt / 2, sphere, stage)
            drift(stage, rule, form, log_mass, three, log_partition, column, buffer)
            move(x, three, dt, sphere, stage)
            drift(stage, rule, form, log_mass, four, log_partition, column, buffer)
            for c in range(d):
                for i in range(n):
                    one[c, i] = (one[c, i] + 2 * two[c, i] + 2 * three[c, i] + four[c, i]) / 6
        move(x, one, dt, sphere, x)
