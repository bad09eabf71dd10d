"""Distance between N particles and the mean-field limit."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals, Whole
from krause_dynamics.theory._formula import formula


@formula(times=Reals(), particles=Whole())
def linear_model_error(*, times: ArrayLike, particles: int) -> np.ndarray:
    r"""Mean squared W2 of N i.i.d. uniform particles to their limit, full range: (1 + e^{-2t})/(12 N).

    At t = 0, E W2^2 = 1/(6N). Half is the variance of the mean, which stays; the flow shrinks the centred
    half by e^{-2t}.

    Args:
        times: t >= 0, any shape.
        particles: N.

    Source: derived; exact for every N.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.linear_model_error(times=[0.0, 2.0], particles=50).round(6).tolist()
        [0.003333, 0.001697]
    """
    return (1.0 + np.exp(-2.0 * times)) / (12.0 * particles)


@formula(particles=Whole())
def quantile_start_error(particles: int) -> float:
    r"""W2 between N midpoints (i + 1/2)/N and the uniform law on [0, 1]: 1/(2 sqrt(3) N), exact.

    Args:
        particles: N.

    Source: exact.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(float(theory.quantile_start_error(100)), 6)
        0.002887
    """
    return 1.0 / (2.0 * np.sqrt(3.0) * particles)


@formula(dimension=Whole())
def sampling_rate_exponent(dimension: int = 1) -> float:
    r"""Exponent of N in W2 between an empirical measure and a smooth law: -1/2 for d = 1, -1/d for d >= 3.

    In d = 2 the rate is N^{-1/2} up to a logarithm. Smooth rules (Gaussian, softmax) keep this rate for finite
    times.

    Args:
        dimension: d of the space.

    Source: standard (Fournier and Guillin 2015).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.sampling_rate_exponent(3), 6)
        -0.333333
    """
    return -0.5 if dimension <= 2 else -1.0 / dimension
