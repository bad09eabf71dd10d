"""Attention of independent Gaussian scores as a random energy model: it freezes on few keys at a finite temperature.

Scores b sqrt(log T) g_j, g_j standard normal, T keys. The participation E sum_j a_j^2 tends to 0 for b <= sqrt 2 and to
1 - sqrt 2/b above.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from krause_dynamics._arguments import ArrayLike, Real, Reals
from krause_dynamics.theory._formula import formula

NARROW = 0.1  # deviation of the scores below which the trapezoid misses them, and their second moment is exact to 1e-4
FINEST = 0.1  # step of the trapezoid, in units of a score: the integrands vary over 1


def freezing_beta() -> float:
    r"""Sqrt 2: above it attention of Gaussian scores b sqrt(log T) g rests on finitely many of many keys.

    Source: arXiv 2505.24333 (random energy model).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.freezing_beta(), 6)
        1.414214
    """
    return math.sqrt(2.0)


@formula(beta=Reals(0.0))
def participation_limit(beta: ArrayLike) -> np.ndarray:
    r"""Participation E sum a^2 of many keys: max(0, 1 - sqrt 2/b).

    Args:
        beta: b >= 0, scores b sqrt(log T) g; any shape.

    Source: arXiv 2505.24333; random energy model (Derrida 1981).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.participation_limit([1.0, 2.0, 4.0]).round(6).tolist()
        [0.0, 0.292893, 0.646447]
    """
    return np.where(beta > math.sqrt(2.0), 1.0 - math.sqrt(2.0) / np.maximum(beta, math.sqrt(2.0)), 0.0)


@formula(tokens=Real(2.0), beta=Real(0.0, 100.0, "(]"))
def expected_participation(*, tokens: float, beta: float) -> float:
    r"""Participation E sum_j a_j^2 of T independent Gaussian scores b sqrt(log T) g_j, at finite T.

    T int du E[h(s - u)] (E e^{-e^{s-u}})^{T-1} with h(x) = e^{2x - e^x}: the weight 1/Z^2 is an integral of e^{-z Z}
    over z = e^{-u}. Trapezoid in u and in s - u; relative error about 1e-6;
    of scores that spread by less than 0.1 the second order, (1 + (e^{s^2} - 1)(1 - 1/T))/T, to 1e-4.

    Args:
        tokens: T, may be a float such as 1e300: corrections fall only like log log T/log T.
        beta: b in (0, 100].

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.expected_participation(tokens=400, beta=2.0), 6)
        0.428758
    """
    log_tokens = math.log(tokens)
    sigma = beta * math.sqrt(log_tokens)
    if sigma < NARROW:
        return (1.0 + math.expm1(sigma**2) * (1.0 - 1.0 / tokens)) / tokens
    x = np.arange(-log_tokens - 45.0, 6.0, FINEST)
    heard, spent = np.exp(2.0 * x - np.exp(x)), -np.expm1(-np.exp(x))

    def with_density(values: np.ndarray, u: np.ndarray) -> np.ndarray:
        log_density = log_tokens - (u[:, None] + x) ** 2 / (2.0 * sigma**2) - math.log(sigma * math.sqrt(2.0 * math.pi))
        return FINEST * np.exp(log_density) @ values

    def crossed(u: np.ndarray) -> np.ndarray:
        from scipy.special import log_ndtr

        return with_density(spent, u) + np.exp(log_tokens + log_ndtr(-(u + x[-1] + FINEST / 2.0) / sigma))

    level = _level(crossed, -5.0 * sigma, sigma**2 + 2.0 * log_tokens + 10.0)
    width = max(1.0, beta)
    u = np.arange(level - 8.0 * width, level + 40.0 * width, FINEST * width)
    expected = np.minimum(crossed(u), tokens)
    log_empty = (tokens - 1.0) * np.log1p(-np.minimum(expected / tokens, 1.0 - 1e-16))
    return float(FINEST * width * np.sum(with_density(heard, u) * np.exp(log_empty)))


def _level(crossed: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    """Where one key is expected to be above: bisection of a falling function."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if crossed(np.array([middle]))[0] > 1.0 else (low, middle)
    return 0.5 * (low + high)
