"""Tokens that hear only themselves but share random value matrices: synchronisation by common noise."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import LARGEST, ArrayLike, Reals, Whole
from krause_dynamics.theory._formula import formula


@formula(similarity=Reals(-1.0, 1.0, "[]"))
def common_noise_moments(similarity: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""Drift and variance of the inner product u of two tokens under dx_i = P_i dV x_i, per unit of time.

    du = -u (1 - u^2) dt + sqrt(2) (1 - u^2) dB in every dimension, entries of V of variance 1 (`kd.matrices.gaussian`:
    times d). It is the slow motion of homogenised Transformers, in times of order d, where attention is on oneself.

    Args:
        similarity: u in [-1, 1], any shape.

    Returns:
        (-u (1 - u^2), 2 (1 - u^2)^2).

    Source: arXiv 2604.01978 (slow motion); `random_values` with A_i = x_i.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(float(part), 6) for part in theory.common_noise_moments(0.5)]
        [-0.375, 1.125]
    """
    rest = 1.0 - similarity**2
    return -similarity * rest, 2.0 * rest**2


def common_noise_exponent() -> float:
    r"""-2: Lyapunov exponent of 1 - |u| under common noise alone, in every dimension.

    Twice the gap lambda_2 - lambda_1 = -1 of products of Gaussian matrices (Newman 1986): tokens synchronise without
    any attention. With attention a near pair closes at -(d - 1), see ``random_value_exponents``.

    Source: derived; the phenomenon in arXiv 2604.26898.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.common_noise_exponent()
        -2.0
    """
    return -2.0


@formula(dimension=Whole(1, LARGEST))
def common_noise_spectrum(dimension: int) -> np.ndarray:
    r"""Lyapunov exponents of dX = dV X with Gaussian V: (d - 2k)/2, k = 1..d.

    All gaps are 1, and their sum is -d/2. Angles between vectors close at twice the first gap, `common_noise_exponent`.

    Args:
        dimension: d.

    Returns:
        Shape (d,), falling, per unit of time in which an entry of V has variance 1.

    Source: Newman 1986 (products of Gaussian matrices, in continuous time: Ito); phenomenon in arXiv 2604.26898.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.common_noise_spectrum(3).tolist()
        [0.5, -0.5, -1.5]
    """
    return 0.5 * dimension - np.arange(1.0, dimension + 1.0)
