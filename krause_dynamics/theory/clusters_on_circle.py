"""Regular clusters on the circle under USA: stability, and the window of beta in which consensus is the only attractor.

USA on the circle is dtheta_i/dt = (1/n) sum_j f(theta_j - theta_i) with f(x) = exp(beta cos x) sin x. For m equal,
equally spaced clusters the linearisation splits into Fourier modes of the clusters and one eigenvalue for
separation inside a cluster.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Real, Reals, Whole
from krause_dynamics.theory._formula import formula


@formula(clusters=Whole(most=10_000), beta=Real())
def regular_cluster_eigenvalues(*, clusters: int, beta: float) -> tuple[np.ndarray, float]:
    r"""Eigenvalues at m equal clusters spaced 2 pi/m on the circle, under USA.

    With f'(x) = e^{beta cos x}(cos x - beta sin^2 x), x_a = 2 pi a/m:

        moving clusters:   lambda_p = (1/m) sum_a f'(x_a)(cos(p x_a) - 1),   p = 1..m-1
        splitting one:     -(1/m) sum_a f'(x_a)

    m = 3 gives lambda_1 = (1/2 + 3 beta/4) e^{-beta/2}: three clusters are stable iff beta < -2/3.

    Args:
        clusters: m >= 1.
        beta: inverse temperature, any sign.

    Returns:
        (lambda of shape (m-1,), eigenvalue of splitting); the configuration is stable when all are negative.

    Source: bound beta < -2/3 in arXiv 2507.22857; mechanism derived.

    Examples:
        >>> import numpy as np
        >>> from krause_dynamics import theory
        >>> [np.round(part, 6).tolist() for part in theory.regular_cluster_eigenvalues(clusters=3, beta=-0.8)]
        [[-0.149182, -0.149182], -0.249231]
    """
    m = clusters
    angle = 2.0 * np.pi * np.arange(m) / m
    exponent = beta * np.cos(angle)
    shape = np.cos(angle) - beta * np.sin(angle) ** 2
    modes = np.arange(1, m)[:, None]
    # The largest exponential of each sum is taken out, as it may be no float; the own cluster does not move itself.
    near, all_of_them = (float(part.max()) if part.size else 0.0 for part in (exponent[1:], exponent))
    moving = (np.exp(exponent[1:] - near) * shape[1:] * (np.cos(modes * angle[1:]) - 1.0)).sum(axis=1)
    splitting = -float(np.sum(np.exp(exponent - all_of_them) * shape))
    return moving / m * np.exp(near), splitting / m * float(np.exp(all_of_them))


@formula(beta=Real())
def three_cluster_eigenvalue(beta: float) -> float:
    r"""(1/2 + 3 beta/4) e^{-beta/2}, the eigenvalue that decides three clusters at 120 degrees (USA).

    Negative, i.e. stable, iff beta < -2/3. Source: arXiv 2507.22857 for the bound.

    Args:
        beta: inverse temperature, any sign.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.three_cluster_eigenvalue(-0.8), 6)
        -0.149182
    """
    return float((0.5 + 0.75 * beta) * np.exp(-beta / 2.0))


@formula(dimension=Whole(2), beta=Real())
def is_single_cluster_proved(*, dimension: int, beta: float) -> bool:
    """Whether almost every start is proved to reach consensus: d >= 3, beta >= 0; d = 2, beta >= -0.16.

    False does not mean that consensus fails. Sources: Markdahl (d >= 3, beta = 0); arXiv 2405.18273 (d >= 3);
    arXiv 2507.22857 (d = 2; stated to two digits).

    Args:
        dimension: d >= 2 of the ambient space.
        beta: inverse temperature, any sign.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.is_single_cluster_proved(dimension=3, beta=4.0)
        True
    """
    return beta >= (0.0 if dimension >= 3 else -0.16)


@formula(tokens=Reals(ndim=1))
def boolean_limit_rank(tokens: np.ndarray) -> int:
    r"""Largest rank of the limiting 0/1 attention matrix of one-dimensional tokens.

    For x_i' = sum_j softmax_j(beta x_i x_j) x_j in one dimension, without normalisation, attention tends to a 0/1
    matrix: a positive token listens to the largest, a negative one to the smallest. Rank 1 when all start with one
    sign, at most 2 otherwise.

    Args:
        tokens: initial values, shape (n,), none of them zero.

    Raises:
        ValueError: a token is exactly zero, where the theorem says nothing.

    Source: arXiv 2305.05465, theorem 2.1.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.boolean_limit_rank([1.0, -0.5, 2.0])
        2
    """
    if np.any(tokens == 0.0):
        raise ValueError("tokens must not contain zero: the limit is stated for almost every start; got a zero token")
    return 1 if np.all(tokens > 0.0) or np.all(tokens < 0.0) else 2
