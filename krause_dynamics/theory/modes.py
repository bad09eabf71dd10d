"""Linear instability of the uniform law on the sphere: growth of each degree, the winning mode, counts of modes.

The uniform law mu on S^{d-1} is a fixed point of SA and USA. A perturbation by a spherical harmonic of degree l
grows at the rate given by `mode_growth`; the fastest degree predicts the number of metastable clusters
(arXiv 2410.23228). Four counts of clusters that scale like sqrt(beta) are kept apart here: the winning mode
(sqrt(2 beta)), the modes of the initial field (sqrt(3 beta / 2)), the modes of a kernel density estimate of Gaussian
data (sqrt(beta log beta), in ``density_modes``), and the Renyi centres of causal attention (in ``causal``).
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Flag, Maybe, Real, Reals, Whole
from krause_dynamics.theory._bessel import iv_ratio, log_iv
from krause_dynamics.theory._formula import formula


@formula(degree=Reals(0.0), beta=POSITIVE, dimension=Whole(2), scaled=Flag())
def kernel_coefficient(*, degree: ArrayLike, beta: float, dimension: int, scaled: bool = False) -> np.ndarray:
    r"""Funk-Hecke coefficient of exp(beta <x, y>) on S^{d-1} under the uniform probability.

    kappa_l = Gamma(d/2) (2/beta)^{d/2 - 1} I_{l + d/2 - 1}(beta);  d = 2: kappa_l = I_l(beta).

    Args:
        degree: degree l >= 0, any shape.
        beta: inverse temperature > 0.
        dimension: d >= 2 of the ambient space.
        scaled: multiply by exp(-beta), which keeps large beta representable.

    Source: Funk-Hecke formula; used as in arXiv 2410.23228.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.kernel_coefficient(degree=[0, 1], beta=1.0, dimension=2).round(6).tolist()
        [1.266066, 0.565159]
    """
    return np.exp(_log_kernel_coefficient(degree, beta, dimension) - (beta if scaled else 0.0))


def _log_kernel_coefficient(degree: ArrayLike, beta: float, dimension: int) -> np.ndarray:
    # In logarithms, as both factors leave the range of floats in high dimension while their product does not.
    from scipy.special import gammaln

    half = dimension / 2
    order = np.asarray(degree, dtype=float) + half - 1
    return gammaln(half) + log_iv(order, beta) - (half - 1) * np.log(beta / 2.0)


@formula(degree=Reals(0.0), beta=POSITIVE, dimension=Whole(2), normalised=Flag())
def mode_growth(*, degree: ArrayLike, beta: float, dimension: int, normalised: bool = True) -> np.ndarray:
    r"""Growth rate of a perturbation of degree l of the uniform law.

    USA: l (l + d - 2) kappa_l / beta;   SA: the same divided by kappa_0.

    Args:
        degree: degree l >= 0, any shape.
        beta: inverse temperature > 0.
        dimension: d >= 2.
        normalised: True for SA, False for USA.

    Source: linearisation of the continuity equation (velocity grad(K*mu)/beta, or grad log(K*mu)/beta);
    the rule of arXiv 2410.23228.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.mode_growth(degree=[1, 2, 3], beta=4.0, dimension=2).round(6).tolist()
        [0.215881, 0.568239, 0.664389]
    """
    eigenvalue = degree * (degree + dimension - 2)
    log_kappa = _log_kernel_coefficient(degree, beta, dimension)
    if normalised:
        log_kappa = log_kappa - _log_kernel_coefficient(0, beta, dimension)
    return eigenvalue * np.exp(log_kappa) / beta


@formula(beta=Real(0.0, 1e12, "(]"), dimension=Whole(2))
def winning_mode(beta: float, *, dimension: int = 2) -> int:
    r"""Degree with the largest growth rate, the same for SA and USA (they differ by the factor kappa_0).

    Searches l up to 4 sqrt(beta) + 20; the maximum sits near sqrt(2 beta) for d = 2.

    Args:
        beta: inverse temperature in (0, 1e12].
        dimension: d >= 2 of the ambient space.

    Source: arXiv 2410.23228.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.winning_mode(20.0)
        6
    """
    degrees = np.arange(1, int(4 * np.sqrt(beta)) + 20)
    return int(degrees[np.argmax(mode_growth(degree=degrees, beta=beta, dimension=dimension))])


@formula(degree=Whole(1, 10**6), dimension=Whole(2))
def switching_beta(degree: int, *, dimension: int = 2) -> float:
    r"""The beta at which degrees l and l + 1 grow equally fast: below it l wins, above it l + 1.

    Root of l (l+d-2) kappa_l = (l+1)(l+d-1) kappa_{l+1}; the ratio kappa_{l+1}/kappa_l increases with beta, so
    there is exactly one.

    Args:
        degree: l >= 1.
        dimension: d >= 2.

    Source: derived from the rule of arXiv 2410.23228.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.switching_beta(1), 6)
        1.044457
    """
    from scipy.optimize import brentq

    order = degree + dimension / 2 - 1
    target = degree * (degree + dimension - 2) / ((degree + 1) * (degree + dimension - 1))
    # Amos 1974: x/(a + sqrt(x^2 + c^2)) with a = order + 1/2 is above the ratio for c = a, and below for c = a + 1.
    low = _amos_root(target, order + 0.5, order + 0.5)
    high = _amos_root(target, order + 0.5, order + 1.5)
    return brentq(
        lambda beta: iv_ratio(order, beta) / target - 1.0, low * (1 - 1e-6), high * (1 + 1e-6), xtol=1e-12, rtol=1e-14
    )


def _amos_root(ratio: float, a: float, c: float) -> float:
    """X with x/(a + sqrt(x^2 + c^2)) = ratio."""
    slope = 1.0 / ratio
    half = a * slope / (slope * slope - 1.0)
    return half + float(np.sqrt(half * half + (c * c - a * a) / (slope * slope - 1.0)))


@formula(beta=Reals(0.0, ends="()"))
def large_beta_mode(beta: ArrayLike) -> np.ndarray:
    r"""Winning degree on the circle for large beta, l* ~ sqrt(2 beta); the SA rate there tends to 2/e.

    From kappa_l/kappa_0 ~ exp(-l^2 / (2 beta)): the maximum of l^2 exp(-l^2 / (2 beta))/beta. Relative error of the
    rate is O(1/beta).

    Args:
        beta: inverse temperature > 0, any shape.

    Source: derived (Laplace's method); rule of arXiv 2410.23228.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(float(theory.large_beta_mode(800.0)), 6)
        40.0
    """
    return np.sqrt(2.0 * beta)


@formula(beta=Real(0.0, 1e12, "(]"), tokens=Maybe(Whole()))
def expected_initial_modes(beta: float, *, tokens: int | None = None) -> float:
    r"""Expected number of local maxima of the field f(x) = sum_j exp(beta cos(x - x_j)) of uniform tokens on a circle.

    sqrt(sum_l l^4 I_l(beta)^2 / sum_l l^2 I_l(beta)^2), which tends to sqrt(3 beta / 2).

    Args:
        beta: inverse temperature > 0.
        tokens: when given, checked to be many (n >= 10 sqrt(beta)): the formula treats f' as Gaussian.

    Raises:
        ValueError: fewer tokens than the Gaussian approximation needs.

    Source: Rice's formula for the down-crossings of f'.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.expected_initial_modes(30.0), 6)
        6.699236
    """
    b = beta
    if tokens is not None and tokens < 10.0 * np.sqrt(b):
        raise ValueError(
            f"tokens must be at least 10 sqrt(beta) = {10 * np.sqrt(b):.0f} for Rice's count, got {tokens}"
        )
    ell = np.arange(1.0, 12.0 * np.sqrt(b) + 40.0)
    log_field = log_iv(ell, b)
    power = (ell * np.exp(log_field - log_field.max())) ** 2
    return float(np.sqrt(np.sum(ell**2 * power) / np.sum(power)))
