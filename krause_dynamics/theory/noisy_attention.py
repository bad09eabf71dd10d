"""Noisy USA attention on the sphere: where the uniform law loses stability, and whether the transition is continuous.

dx = K grad(W*mu) dt + sqrt(2) dB on S^{d-1}, W(x, y) = exp(beta <x, y>)/beta. A drift with K = 1 and noise sigma dB is
the same in time units of sigma^2/2: K = 2/sigma^2. (arXiv 2606.05140 has an interaction energy with factor 1/2: its
constant is K_lin/2.)
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import POSITIVE, Whole
from krause_dynamics.theory._bessel import iv_ratio
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.modes import kernel_coefficient


@formula(beta=POSITIVE, dimension=Whole(2), degree=Whole())
def linear_threshold(*, beta: float, dimension: int, degree: int = 1) -> float:
    r"""Coupling K at which degree l of the uniform law becomes unstable: beta/kappa_l.

    l = 1, the first: K_lin = beta^{d/2}/(2^{d/2-1} Gamma(d/2) I_{d/2}(beta)).

    Args:
        beta: inverse temperature > 0.
        dimension: d >= 2.
        degree: l >= 1.

    Source: arXiv 2606.05140 up to its factor 2; derived: rate K l (l+d-2) kappa_l/beta - l (l+d-2).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.linear_threshold(beta=1.0, dimension=2), 6)
        1.769413
    """
    return float(beta / kernel_coefficient(degree=degree, beta=beta, dimension=dimension))


@formula(beta=POSITIVE, dimension=Whole(2))
def critical_attention_noise(*, beta: float, dimension: int) -> float:
    r"""sigma_c of dx = drift dt + sigma dB (USA, K = 1) above which the uniform law is stable: sqrt(2/K_lin).

    Args:
        beta: inverse temperature > 0.
        dimension: d >= 2 of the ambient space.

    Source: arXiv 2606.05140 up to its factor 2; `linear_threshold` in units of sigma.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.critical_attention_noise(beta=1.0, dimension=2), 6)
        1.063164
    """
    scaled = float(kernel_coefficient(degree=1, beta=beta, dimension=dimension, scaled=True))
    return float(np.sqrt(2.0 * scaled / beta) * np.exp(0.5 * beta))


@formula(dimension=Whole(2))
def transition_order_threshold(dimension: int) -> float:
    r"""beta* with I_{d/2+1}(beta*)/I_{d/2}(beta*) = 1/d: the transition at K_lin is continuous iff beta <= beta*.

    Above it the ordered branch bends backwards and the order parameter jumps. beta* tends to 1 as d grows, as the
    ratio is beta/(d + 2) to leading order.

    Args:
        dimension: d >= 2.

    Source: arXiv 2604.16288, 2606.05140; for d = 2 see `landau_quartic`.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.transition_order_threshold(3), 6)
        1.816155
    """
    from scipy.optimize import brentq

    # The ratio rises with beta and lies below beta/(d + 2), so that the root lies above (d + 2)/d.
    return brentq(lambda beta: iv_ratio(dimension / 2, beta) - 1.0 / dimension, 0.9, 4.0, xtol=1e-13, rtol=1e-14)


@formula(beta=POSITIVE, dimension=Whole(2))
def is_transition_continuous(*, beta: float, dimension: int) -> bool:
    """Whether order sets in without a jump at the linear threshold: beta <= beta*.

    Args:
        beta: inverse temperature > 0.
        dimension: d >= 2 of the ambient space.

    Source: arXiv 2604.16288, 2606.05140.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.is_transition_continuous(beta=1.0, dimension=2)
        True
    """
    return beta <= transition_order_threshold(dimension)


@formula(beta=POSITIVE)
def landau_quartic(beta: float) -> float:
    r"""Coefficient of a^4 of the free energy at K_lin on the circle: 1/32 - 1/(64 (1 - w2/w1)), w_l = I_l(beta)/beta.

    Density 1 + a cos t + c cos 2t, c eliminated, F = int f log f - (K/2) <f, W f> per unit length. Positive
    (continuous transition) iff I_2/I_1 < 1/2.

    Args:
        beta: inverse temperature > 0.

    Source: derived; order of the transition in arXiv 2604.16288, 2606.05140.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.landau_quartic(1.0), 6)
        0.010686
    """
    return 1.0 / 32.0 - 1.0 / (64.0 * (1.0 - iv_ratio(1.0, beta)))
