"""Modified Bessel functions in logarithms, where they themselves leave the range of floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Debye's polynomials u_k(p) of the uniform expansion, highest power first: DLMF 10.41.10 and its recursion.
_DEBYE = (
    np.polynomial.Polynomial([0, 3, 0, -5]) / 24.0,
    np.polynomial.Polynomial([0, 0, 81, 0, -462, 0, 385]) / 1152.0,
    np.polynomial.Polynomial([0, 0, 0, 30375, 0, -369603, 0, 765765, 0, -425425]) / 414720.0,
    np.polynomial.Polynomial([0, 0, 0, 0, 4465125, 0, -94121676, 0, 349922430, 0, -446185740, 0, 185910725])
    / 39813120.0,
)


def log_iv(order: Any, x: float) -> np.ndarray:
    """Log I_order(x) for order >= 0 and x > 0, relative error of I about 1e-11.

    Directly where I is a float; by its power series where x^2/4 is below the order; else, where the order is above a
    hundred, by Debye's expansion (DLMF 10.41.3).
    """
    from scipy.special import gammaln, hyp0f1, ive

    order = np.asarray(order, dtype=float)
    with np.errstate(divide="ignore"):
        direct = x + np.log(ive(order, x))
    lost = ~np.isfinite(direct)
    if not lost.any():
        return direct
    near = lost & (x * x / 4.0 < order + 1.0)
    series = order * np.log(x / 2.0) - gammaln(order + 1.0)
    series = series + np.log(hyp0f1(np.where(near, order, 0.0) + 1.0, np.where(near, x * x / 4.0, 0.0)))
    nu = np.where(lost & ~near, order, 1.0)
    z = x / nu
    root = np.hypot(1.0, z)
    exponent = nu * (root + np.log(z) - np.log1p(root))
    terms = sum(u(1.0 / root) / nu ** (k + 1) for k, u in enumerate(_DEBYE))
    uniform = exponent - 0.5 * np.log(2.0 * np.pi * nu * root) + np.log1p(terms)
    return np.where(near, series, np.where(lost, uniform, direct))


def iv_ratio(order: float, x: float) -> float:
    """I_{order+1}(x)/I_order(x) for order >= 0 and x > 0, in (0, 1), relative error about 1e-13.

    By scaled functions where both are floats; else by the continued fraction of Gauss (DLMF 10.33.1) from further out,
    where Amos's bounds (1974) close in on the ratio to order/x^2 or to a few terms.
    """
    from scipy.special import ive

    below, above = float(ive(order, x)), float(ive(order + 1.0, x))
    if below > 1e-290 and above > 1e-290:  # nan beyond about 1e9
        return above / below
    terms = 200 + int(min(20.0 * x / max(order, 1.0), 10_000.0))
    far = order + terms
    ratio = x / (far + 0.5 + math.hypot(x, far + 1.5))
    for k in range(terms, 0, -1):
        ratio = 1.0 / (2.0 * (order + k) / x + ratio)
    return ratio
