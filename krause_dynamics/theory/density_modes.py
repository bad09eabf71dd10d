"""Number of modes of a Gaussian kernel density estimate of normal data on the line.

f(t) = sum_j exp(-beta (t - x_j)^2/2) for n samples x_j of N(0, 1): the field that tokens on a line see at inverse
temperature beta = bandwidth^{-2}. Scaling sqrt(beta log beta): Geshkovski, Rigollet and Sun, arXiv 2412.09080.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import POSITIVE, Whole
from krause_dynamics.theory._formula import formula

#: Modes per bandwidth of a dense homogeneous sample, by Rice's formula: sqrt(3/2)/(2 pi).
RICE_DENSITY = np.sqrt(1.5) / (2.0 * np.pi)
NODES = 10**7  # of the quadrature: a few seconds


@formula(samples=Whole(2), beta=POSITIVE)
def expected_density_modes_on_line(*, samples: int, beta: float) -> float:
    r"""Expected number of modes of the kernel density estimate of n samples of N(0, 1), bandwidth beta^{-1/2}.

    int rho(t) (1 - e^{-lambda(t)/D}) dt: rho is the Kac-Rice density of down-crossings of f' for a Gaussian process
    with the exact means and covariances of (f', f''), lambda = n beta^{-1/2} phi(t) the samples per bandwidth and
    D = sqrt(3/2)/(2 pi). Where samples are dense this is Rice's count; where they are few, f' is no longer Gaussian,
    and the factor makes each isolated sample one mode.

    Args:
        samples: n >= 2.
        beta: inverse squared bandwidth > 0; unit: 1/position^2, where the samples have deviation 1.

    Returns:
        The count; 1 for wide kernels. Against counted modes it is 0-3 % low for n from 200 to 10^4 and beta from
        n^0.2 to n^1.7.

    Source: Kac-Rice with the moments of Gaussian kernels; the factor for isolated samples is an interpolation.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.expected_density_modes_on_line(samples=1000, beta=1000.0), 6)
        37.030381
    """
    from scipy.special import ndtr

    n, b = samples, beta
    edge = np.sqrt(2.0 * np.log(n)) + 4.0
    # Narrowest is the window |t| < n^{-1/2} beta^{3/4} in which noise competes with the slope of the density.
    nodes = 20_001 + 20 * int(edge * np.sqrt(n) * b**-0.75)
    if nodes > NODES:
        raise ValueError(f"beta must resolve {n} samples in {NODES} nodes, got {b!r}, which takes {nodes:.1e}")
    t = np.linspace(-edge, edge, nodes)
    slope, curvature, var_slope, var_curvature, covariance = _moments(t, n, b)
    # f'' given f' = 0.
    mean = curvature - covariance / var_slope * slope
    deviation = np.sqrt(np.maximum(var_curvature - covariance**2 / var_slope, 1e-300))
    z = mean / deviation
    downward = deviation * (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - z * ndtr(-z))
    crossings = downward * np.exp(-(slope**2) / (2 * var_slope)) / np.sqrt(2 * np.pi * var_slope)
    per_bandwidth = n / np.sqrt(b) * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    return float(np.trapezoid(crossings * -np.expm1(-per_bandwidth / RICE_DENSITY), t))


def _moments(t: np.ndarray, n: int, b: float) -> tuple[np.ndarray, ...]:
    """Means of f', f'', then their variances and covariance, at t.

    With y = t - x: f' = sum -b y K, f'' = sum (b^2 y^2 - b) K, K = exp(-b y^2/2). Under exp(-c y^2/2) N(x; 0, 1), y is
    normal with mean t/(1 + c) and variance 1/(1 + c).
    """

    def raw(c: float) -> tuple[np.ndarray, ...]:
        v = 1.0 / (1.0 + c)
        u, weight = t * v, np.sqrt(v) * np.exp(-0.5 * t**2 * c * v)
        powers = (np.ones_like(t), u, u**2 + v, u**3 + 3 * u * v, u**4 + 6 * u**2 * v + 3 * v**2)
        return tuple(n * weight * power for power in powers)

    one, two = raw(b), raw(2 * b)
    slope, curvature = -b * one[1], b * b * one[2] - b * one[0]
    return (
        slope,
        curvature,
        b * b * two[2] - slope**2 / n,
        b**4 * two[4] - 2 * b**3 * two[2] + b * b * two[0] - curvature**2 / n,
        -(b**3) * two[3] + b * b * two[1] - slope * curvature / n,
    )


@formula(samples=Whole(2), beta=POSITIVE)
def density_modes_leading_order(*, samples: int, beta: float) -> float:
    r"""Leading order of `expected_density_modes_on_line` for n^c < beta < n^{2-c}.

    (sqrt(3 beta log n)/pi) (sqrt(1 - a/2) - sqrt(max(0, 1 - 3a/2))),   a = log(beta)/log(n).

    Noise decides where phi(t) < beta^{3/2}/n, samples end where phi(t) ~ beta^{1/2}/n, and between the two the modes
    have Rice's density. At a = 1 it is 0.39 sqrt(beta log beta), against 0.44 counted at n = 10^3..10^4: logarithmic
    corrections are of order 10 %.

    Args:
        samples: n >= 2.
        beta: inverse squared bandwidth, between 1 and n^2.

    Raises:
        ValueError: beta outside (1, n^2).

    Source: scaling of arXiv 2412.09080; the constant is heuristic.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.density_modes_leading_order(samples=1000, beta=1000.0), 6)
        32.401434
    """
    n, b = samples, beta
    log_n = np.log(n)
    exponent = np.log(b) / log_n
    if not 0.0 < exponent < 2.0:
        raise ValueError(f"beta must lie between 1 and samples^2 = {n**2}, got {b!r}")
    window = np.sqrt(1.0 - exponent / 2.0) - np.sqrt(max(0.0, 1.0 - 1.5 * exponent))
    return float(np.sqrt(3.0 * b * log_n) / np.pi * window)
