"""Tokens that hear only themselves but share random value matrices: synchronisation by common noise."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals
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
    """
    rest = 1.0 - similarity**2
    return -similarity * rest, 2.0 * rest**2


def common_noise_exponent() -> float:
    r"""-2: Lyapunov exponent of 1 - |u| under common noise alone, in every dimension.

    Twice the gap lambda_2 - lambda_1 = -1 of products of Gaussian matrices (Newman 1986): tokens synchronise without
    any attention. With attention a near pair closes at -(d - 1), see ``random_value_exponents``.

    Source: derived; the phenomenon in arXiv 2604.26898.
    """
    return -2.0
