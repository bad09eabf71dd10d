"""Wasserstein distances on the circle, exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from krause_dynamics._arguments import POSITIVE, Entries, Real, reads
from krause_dynamics._array import Array
from krause_dynamics.analysis.measures._measure import Measure, two


@reads(x=Entries((1, 2)), y=Entries((1, 2)), p=Real(1.0), period=POSITIVE)
def wasserstein_circle(
    x: Array,
    y: Array,
    *,
    p: float = 1,
    period: float = 2 * math.pi,
    x_log_mass: Array | None = None,
    y_log_mass: Array | None = None,
) -> float:
    """Wasserstein distance on a circle with the arc as distance, exact: the best cut of the line form.

    ``W_p^p = min_a int_0^1 |F^-1(s) - G^-1(s - a)|^p ds`` with lifted quantiles. For p = 1 the best a is a median of
    F - G; for p > 1 the cost is convex in a and piecewise linear, and golden sections find its minimum to rounding.

    Args:
        x: (n,) angles, or (n, 2) points of the plane whose angle counts (unit vectors of `Circle`).
        y: (m,) or (m, 2), likewise.
        p: Exponent, at least 1.
        period: Length of the circle in units of x; ``length`` on a `Torus`.
        x_log_mass: (n,) log-masses, by default equal.
        y_log_mass: (m,), likewise.

    Returns:
        The distance in units of x, at most ``period / 2``.

    Raises:
        ValueError: Points of more than two dimensions, p < 1, a period that is not positive, NaN, or no mass.

    Source: Delon, Salomon & Sobolevski, SIAM J. Appl. Math. 70 (2010), 2239; Rabin, Delon & Gousseau, J. Math. Imaging
    Vis. 41 (2011), 147 for the median.
    """
    if not period > 0:
        raise ValueError(f"period must be positive, got {period}")
    first, second = two(x, y, x_log_mass, y_log_mass, p)
    (a, a_levels), (b, b_levels) = (_on_circle(one, period) for one in (first, second))
    if p == 1:
        return period * _circle_by_median(a, a_levels, b, b_levels)
    from krause_dynamics.analysis.measures._kernels import rotated_cost

    def cost(shift: float) -> float:
        return rotated_cost(a, a_levels, b, b_levels, shift, float(p))

    return period * _convex_minimum(cost, -1.5, 1.5) ** (1 / p)


def _on_circle(measure: Measure, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Ascending places in [0, 1) and cumulated masses that end at 1."""
    points = measure.points
    if points.shape[1] > 2:
        raise ValueError(f"a circle has angles (n,) or plane points (n, 2), got shape {points.shape}")
    angles = points[:, 0] / period if points.shape[1] == 1 else np.arctan2(points[:, 1], points[:, 0]) / (2 * math.pi)
    places = angles - np.floor(angles)
    order = np.argsort(np.where(places < 1.0, places, 0.0))
    levels = np.cumsum(measure.share[order])
    return np.where(places < 1.0, places, 0.0)[order], levels / levels[-1]


def _circle_by_median(a: np.ndarray, a_levels: np.ndarray, b: np.ndarray, b_levels: np.ndarray) -> float:
    """``min_c int_0^1 |F - G - c|``: c is the median of F - G weighted by arc."""
    places = np.concatenate([a, b])
    order = np.argsort(places, kind="stable")
    places = places[order]
    jumps = np.concatenate([np.diff(a_levels, prepend=0.0), -np.diff(b_levels, prepend=0.0)])[order]
    difference = np.cumsum(jumps)
    arcs = np.diff(places, append=places[0] + 1)
    rank = np.argsort(difference)
    middle = int(np.searchsorted(np.cumsum(arcs[rank]), 0.5))
    return float(np.sum(arcs * np.abs(difference - difference[rank[min(middle, len(rank) - 1)]])))


def _convex_minimum(f: Callable[[float], float], low: float, high: float) -> float:
    """Smallest value of a convex function on an interval, by golden sections to the last bits."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    f_left, f_right = f(left), f(right)
    while right - left > 1e-16 * max(1.0, abs(left)):
        if f_left <= f_right:
            high, right, f_right = right, left, f_left
            left = high - golden * (high - low)
            f_left = f(left)
        else:
            low, left, f_left = left, right, f_right
            right = low + golden * (high - low)
            f_right = f(right)
    return min(f_left, f_right)
