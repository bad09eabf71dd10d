"""Gaussian laws stay Gaussian under Gaussian and dot-product attention in R^d: closed forms for their variances.

Multiplying N(m, S) by exp(-|x - y|^2/2 sigma^2) gives a normal law of mean m + S (S + sigma^2)^{-1}(x - m);
multiplying by exp(beta <x, y>) one of mean m + beta S x. Drifts are therefore linear, the law stays normal (arXiv
2501.18322), and the variance along each principal axis obeys a scalar equation. These are statements about the
mean-field limit.
"""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Flag, Real, Reals
from krause_dynamics.theory._formula import formula

FAR = 600.0  # logarithm of variance/bandwidth^2 beyond which one of the two does not count


@formula(times=Reals(), variance=Reals(0.0, ends="()"), sigma=POSITIVE)
def gaussian_rule_variance(*, times: ArrayLike, variance: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    r"""Variance of a normal law under the Gaussian rule in continuous time, relative form, per principal axis.

    v(t)^2 = sigma^2 W(u0 e^{u0 - 2t}),  u0 = v0^2/sigma^2, W Lambert's function; the mean stays. Solves
    u + log u = u0 + log u0 - 2t. For t large the variance decays as e^{-2t}.

    Args:
        times: t >= 0, broadcast against ``variance``.
        variance: initial variance(s) v0^2 > 0, one per principal axis; unit: position^2.
        sigma: bandwidth; unit: position.

    Source: normality kept, arXiv 2501.18322; closed form derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.gaussian_rule_variance(times=[0.0, 1.0], variance=0.5).round(6).tolist()
        [0.5, 0.100861]
    """
    from scipy.special import wrightomega

    # sigma^2 itself may be no float; far from the bandwidth a law stands still (wide) or shrinks like e^{-2t} (narrow).
    log_u0 = np.log(variance) - 2.0 * math.log(sigma)
    u0 = np.exp(np.clip(log_u0, -FAR, FAR))
    # W(e^y) is Wright's omega of y: no overflow for wide laws.
    share = np.real(wrightomega(u0 + np.log(u0) - 2.0 * times)) / u0
    return variance * np.where(log_u0 > FAR, 1.0, np.where(log_u0 < -FAR, np.exp(-2.0 * times), share))


@formula(deviation=Reals(0.0), sigma=POSITIVE, step=Real())
def gaussian_rule_deviation_step(deviation: ArrayLike, *, sigma: float = 1.0, step: float = 1.0) -> np.ndarray:
    r"""Standard deviation after one layer of the Gaussian rule: v -> v (1 - tau sigma^2/(v^2 + sigma^2)).

    tau = 1 is the full step, blurring mean shift: v -> v^3/(v^2 + sigma^2), cubic convergence.

    Args:
        deviation: v >= 0 per principal axis, any shape; unit: position.
        sigma: bandwidth; unit: position.
        step: tau, the relaxation of the layer; 1 replaces each point by its local mean.

    Source: derived; blurring mean shift of normal data.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.gaussian_rule_deviation_step([0.7, 1.2], sigma=1.0).round(6).tolist()
        [0.230201, 0.708197]
    """
    # sigma^2/(v^2 + sigma^2) as a square: squares of v and sigma themselves may leave the range of floats.
    narrow = (sigma / np.hypot(deviation, sigma)) ** 2
    wide = (deviation / np.hypot(deviation, sigma)) ** 2
    return deviation * (wide + (1.0 - step) * narrow)


@formula(times=Reals(), variance=POSITIVE, beta=POSITIVE, relative=Flag())
def dot_product_variance(*, times: ArrayLike, variance: float, beta: float, relative: bool = False) -> np.ndarray:
    r"""Variance of a centred normal law under dot-product attention in R^d, per principal axis.

    Plain, x' = sum a y:            l(t) = l0/(1 - 2 beta l0 t)
    relative, x' = sum a (y - x):   l(t) = 1/(beta + (1/l0 - beta) e^{2t});  1/beta is an unstable fixed point.

    Args:
        times: times before the blow-up, any shape.
        variance: l0 > 0; unit: position^2.
        beta: inverse temperature > 0; unit: 1/position^2.
        relative: which form.

    Raises:
        ValueError: a time at or beyond `dot_product_blow_up`.

    Source: derived (Riccati); normality kept, arXiv 2501.18322.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.dot_product_variance(times=[0.0, 1.0], variance=0.4, beta=0.5).round(6).tolist()
        [0.4, 0.666667]
    """
    t, l0, b = times, variance, beta
    limit = dot_product_blow_up(variance=l0, beta=b, relative=relative)
    if np.any(t >= limit):
        raise ValueError(f"times must lie before the blow-up at {limit:g}, got {float(np.max(t)):g}")
    if relative:
        return 1.0 / (b + (1.0 / l0 - b) * np.exp(2.0 * t))
    return l0 / (1.0 - 2.0 * b * l0 * t)


@formula(variance=POSITIVE, beta=POSITIVE, relative=Flag())
def dot_product_blow_up(*, variance: float, beta: float, relative: bool = False) -> float:
    r"""Time of infinite variance: 1/(2 beta l0), or (1/2) log(beta l0/(beta l0 - 1)) in relative form.

    Infinite in relative form when beta l0 <= 1.

    Args:
        variance: l0 > 0; unit: position^2.
        beta: inverse temperature > 0; unit: 1/position^2.
        relative: which form.

    Source: derived (Riccati equation of the variance).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.dot_product_blow_up(variance=0.4, beta=0.5)
        2.5
    """
    strength = beta * variance
    if relative:
        return -0.5 * math.log1p(-1.0 / strength) if strength > 1.0 else math.inf
    return 0.5 / strength if strength > 0.0 else math.inf
