"""Noisy USA attention on the sphere: where the uniform law loses stability, and whether the transition is continuous.

dx = K grad(W*mu) dt + sqrt(2) dB on S^{d-1}, W(x, y) = exp(beta <x, y>)/beta. A drift with K = 1 and noise sigma dB is
the same in time units of sigma^2/2: K = 2/sigma^2. (arXiv 2606.05140 has an interaction energy with factor 1/2: its
constant is K_lin/2.)
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.theory._checks import positive, positive_integer
from krause_dynamics.theory.modes import kernel_coefficient


def linear_threshold(beta: float, dimension: int, *, degree: int = 1) -> float:
    r"""Coupling K at which degree l of the uniform law becomes unstable: beta/kappa_l.

    l = 1, the first: K_lin = beta^{d/2}/(2^{d/2-1} Gamma(d/2) I_{d/2}(beta)).

    Args:
        beta: inverse temperature > 0.
        dimension: d >= 2.
        degree: l >= 1.

    Source: arXiv 2606.05140 up to its factor 2; derived: rate K l (l+d-2) kappa_l/beta - l (l+d-2).
    """
    return float(positive("beta", beta) / kernel_coefficient(positive_integer("degree", degree), beta, dimension))


def critical_attention_noise(beta: float, dimension: int) -> float:
    r"""sigma_c of dx = drift dt + sigma dB (USA, K = 1) above which the uniform law is stable: sqrt(2/K_lin)."""
    return float(np.sqrt(2.0 / linear_threshold(beta, dimension)))


def transition_order_threshold(dimension: int) -> float:
    r"""beta* with I_{d/2+1}(beta*)/I_{d/2}(beta*) = 1/d: the transition at K_lin is continuous iff beta <= beta*.

    Above it the ordered branch bends backwards and the order parameter jumps.

    Args:
        dimension: d >= 2.

    Source: arXiv 2604.16288, 2606.05140; for d = 2 see :func:`landau_quartic`.
    """
    from scipy.optimize import brentq
    from scipy.special import ive

    d = positive_integer("dimension", dimension, at_least=2)

    def excess(beta: float) -> float:
        return float(ive(d / 2 + 1, beta) / ive(d / 2, beta) - 1.0 / d)

    return brentq(excess, 1e-6, 50.0 * d, xtol=1e-13, rtol=1e-14)


def is_transition_continuous(beta: float, dimension: int) -> bool:
    """Whether order sets in without a jump at the linear threshold: beta <= beta*."""
    return positive("beta", beta) <= transition_order_threshold(dimension)


def landau_quartic(beta: float) -> float:
    r"""Coefficient of a^4 of the free energy at K_lin on the circle: 1/32 - 1/(64 (1 - w2/w1)), w_l = I_l(beta)/beta.

    Density 1 + a cos t + c cos 2t, c eliminated, F = int f log f - (K/2) <f, W f> per unit length. Positive
    (continuous transition) iff I_2/I_1 < 1/2.
    """
    from scipy.special import ive

    ratio = float(ive(2, positive("beta", beta)) / ive(1, beta))
    return 1.0 / 32.0 - 1.0 / (64.0 * (1.0 - ratio))


def circle_order_parameter(beta: float, coupling: float, *, modes: int = 64) -> float:
    r"""Largest r = int cos(t) f of a stationary law f ~ exp(K W*f) of noisy USA attention on the circle (d = 2).

    Fixed point of the even Fourier coefficients r_l = int cos(l t) f, with W*f = (1/beta)(I_0 + 2 sum_l I_l r_l cos(l
    t)), iterated from a concentrated law, which selects the ordered branch wherever it exists.

    Args:
        beta: inverse temperature > 0.
        coupling: K = 2/sigma^2.
        modes: Fourier modes kept.

    Returns:
        r in [0, 1); below 1e-6 the uniform law is the only stationary one found.
    """
    from scipy.special import iv

    angle = 2.0 * np.pi * np.arange(8 * modes) / (8 * modes)
    degrees = np.arange(1, modes + 1)
    cosines = np.cos(degrees[:, None] * angle)
    strength = 2.0 * positive("coupling", coupling) / positive("beta", beta) * iv(degrees, beta)
    moments = np.exp(-(degrees**2) / 200.0)
    for _ in range(20_000):
        field = (strength * moments) @ cosines
        density = np.exp(field - field.max())
        updated = cosines @ density / density.sum()
        if np.max(np.abs(updated - moments)) < 1e-13:
            break
        moments = updated
    return float(abs(moments[0]))
