"""Value matrices drawn anew at every layer: tokens that hear common noise (stochastic depth, homogenised Transformers).

dx_i = P_i dV A_i on the sphere, A_i = sum_j a_ij x_j, dV a (d, d) Brownian motion common to all tokens whose entries
have variance 1 per unit of time (`kd.matrices.gaussian` has 1/d: divide rates by d). By Ito's formula the inner product
R of two tokens has drift

    (d - 2 + R^2) c - (d - 1) R p,    c = <A_1, A_2>,  p = |A_1|^2 = |A_2|^2,

and variance 2 (1 - R^2)(p - c R) per unit of time.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Real, Whole, within
from krause_dynamics.theory._formula import formula


@formula(similarity=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2), dimension=Whole(2))
def random_value_rate(*, similarity: float, beta: float, tokens: int, dimension: int) -> float:
    r"""Mean speed of the inner product of equiangular tokens under random values, divided by d.

    (1/d)[(d - 2 + rho^2) c - (d - 1) rho p] with p = rho + (1-rho) f, c = rho + (1-rho) g, f = a^2 + (1-a)^2/(n-1) and
    g = 2 a b + (n-2) b^2 for self weight a and other weights b.

    Args:
        similarity: rho in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: n, at most ``dimension``.
        dimension: d.

    Returns:
        The speed in the time of `kd.matrices.gaussian`, whose entries have variance 1/d.

    Source: derived. `random_value_closure` is its limit of high dimension; they differ by
        (rho p - (2 - rho^2) c)/d: two orthogonal tokens in the plane do not approach, where the closure says 1/2.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.random_value_rate(similarity=0.3, beta=1.0, tokens=16, dimension=64), 6)
        0.231139
    """
    d, rho = dimension, within("similarity", similarity, -1.0 / (tokens - 1), 1.0)
    Whole(tokens).read("dimension", dimension)
    closed, _, c = heard_by_equiangular(rho, beta, tokens)
    return (1.0 - rho) * ((d - 1) * closed - (1.0 + rho) * c) / d


@formula(similarity=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2))
def random_value_closure(*, similarity: float, beta: float, tokens: int) -> float:
    r"""Simplex closure of random values: rho + (1-rho) g - rho (rho + (1-rho) f), the limit of high dimension.

    Args:
        similarity: rho in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: n.

    Returns:
        The speed of rho in the time of `kd.matrices.gaussian`; f and g as in `random_value_rate`.

    Source: arXiv 2604.01978.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.random_value_closure(similarity=0.3, beta=1.0, tokens=16), 6)
        0.239771
    """
    rho = within("similarity", similarity, -1.0 / (tokens - 1), 1.0)
    return (1.0 - rho) * heard_by_equiangular(rho, beta, tokens)[0]


def heard_by_equiangular(rho: float, beta: float, n: int) -> tuple[float, float, float]:
    """(c - rho p)/(1 - rho) = rho (1 - f) + g, without cancellation; p = |A_1|^2; c = <A_1, A_2>."""
    others = (n - 1) * float(np.exp(-np.logaddexp(beta * (1.0 - rho), np.log(n - 1))))
    own, other = 1.0 - others, others / (n - 1)
    product = 2.0 * own * other + (n - 2) * other**2
    below_one = others * (2.0 - others * n / (n - 1))  # 1 - own^2 - others other
    return rho * below_one + product, 1.0 - (1.0 - rho) * below_one, rho + (1.0 - rho) * product


@formula(beta=Real(), dimension=Whole(2))
def random_value_exponents(*, beta: float, dimension: int) -> tuple[float, float]:
    r"""Lyapunov exponents of two tokens under random values near R = -1 and near R = 1.

    1 + R grows like e^{lambda t} with lambda_- = (d - 3) - (d - 1) tanh^2 beta, and 1 - R with lambda_+ = -(d - 1) for
    every beta: both are geometric Brownian motions to first order.

    Args:
        beta: inverse temperature.
        dimension: d of the tokens.

    Returns:
        (lambda_-, lambda_+), per unit of time in which an entry of V has variance 1.

    Source: arXiv 2601.21942 states the sign of lambda_-; the exponents are derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(float(part), 6) for part in theory.random_value_exponents(beta=1.0, dimension=4)]
        [-0.740077, -3.0]
    """
    d = dimension
    return (d - 3.0) - (d - 1.0) * float(np.tanh(beta)) ** 2, -(d - 1.0)


@formula(dimension=Whole(3))
def antipodal_threshold(dimension: int) -> float:
    r"""Inverse temperature above which antipodal pairs attract under random values: arccosh(d - 2)/2.

    lambda_- of `random_value_exponents` is negative iff cosh 2 beta > d - 2.

    Args:
        dimension: d >= 3.

    Source: arXiv 2601.21942.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.antipodal_threshold(4), 6)
        0.658479
    """
    return float(np.arccosh(dimension - 2.0)) / 2.0
