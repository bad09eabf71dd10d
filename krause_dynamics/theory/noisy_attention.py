"""Noisy USA attention on the sphere: where the uniform law loses stability, and whether the transition is continuous.

dx = K grad(W*mu) dt + sqrt(2) dB on S^{d-1}, W(x, y) = exp(beta <x, y>)/beta. A drift with K = 1 and noise sigma dB is
the same in time units of sigma^2/2: K = 2/sigma^2. (arXiv 2606.05140 has an interaction energy with factor 1/2: its
constant is K_lin/2.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Reals, Whole
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


@formula(beta=POSITIVE, coupling=POSITIVE, modes=Whole(1, 4096))
def circle_order_parameter(*, beta: float, coupling: float, modes: int = 64) -> float:
    r"""Largest r = int cos(t) f of a stationary law f ~ exp(K W*f) of noisy USA attention on the circle (d = 2).

    Args:
        beta: inverse temperature > 0.
        coupling: K = 2/sigma^2.
        modes: Fourier modes kept.

    Returns:
        r in [0, 1); below 1e-6 the uniform law is the only stationary one found.

    Raises:
        ValueError: As `ordered_state`.

    Source: arXiv 2604.16288, 2606.05140 (stationary laws), d = 2.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.circle_order_parameter(beta=1.0, coupling=2.2), 6)
        0.676559
    """
    return float(abs(ordered_state(beta=beta, coupling=coupling, modes=modes)[0]))


@formula(beta=POSITIVE, coupling=POSITIVE, modes=Whole(1, 4096))
def ordered_state(*, beta: float, coupling: float, modes: int = 64) -> np.ndarray:
    r"""The most ordered stationary law of noisy USA attention on the circle: its moments r_l = int cos(l t) f.

    Fixed point of f ~ exp(K W*f) with W*f = (1/beta)(I_0 + 2 sum_l I_l r_l cos(l t)): iterated from a concentrated
    law, which selects the ordered branch wherever it exists, then solved by Newton's method, which ends also near the
    threshold, where the iteration hardly moves.

    Args:
        beta: inverse temperature > 0.
        coupling: K = 2/sigma^2.
        modes: Fourier modes kept; the law must be wider than a cell of 2 pi/(8 modes).

    Returns:
        r_1, ..., r_modes; the density is (1 + 2 sum_l r_l cos(l t))/(2 pi), all 0 for the uniform law.

    Raises:
        ValueError: the law is too narrow for ``modes``, or the search does not converge.

    Source: arXiv 2606.05140 (stationary laws); the search is ours.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.ordered_state(beta=1.0, coupling=2.2)[:3].round(6).tolist()
        [0.676559, 0.330522, 0.130495]
    """
    circle = _CircleLaw(beta, coupling, modes)
    moments = np.exp(-(np.arange(1, modes + 1) ** 2) / 200.0)
    for _ in range(200):
        moments = circle.moments(circle.density(moments))
    for _ in range(200):
        density = circle.density(moments)
        residual = circle.moments(density) - moments
        if np.max(np.abs(residual)) < 1e-15:
            break
        change = np.linalg.solve(np.eye(modes) - circle.slope(density), residual)
        moments = moments + change
        if np.max(np.abs(change)) < 1e-13:
            break
    else:
        raise ValueError(f"coupling must leave a law that can be found, got {coupling!r} at beta={beta!r}")
    if circle.unresolved(density) > 0.1:  # moments are then off by its fourth power: widths double, aliases quadruple
        raise ValueError(f"modes must resolve the law, which is narrower than a cell, got {modes}; give more")
    return moments


class _CircleLaw:
    """Laws f ~ exp(K W*f) on the circle, even about 0, on 8 points a mode."""

    def __init__(self, beta: float, coupling: float, modes: int) -> None:
        from scipy.special import iv

        degrees = np.arange(1, modes + 1)
        self.cosines = np.cos(degrees[:, None] * (2.0 * np.pi * np.arange(8 * modes) / (8 * modes)))
        self.strength = 2.0 * coupling / beta * iv(degrees, beta)
        if not np.isfinite(self.strength).all():
            raise ValueError(f"beta must keep exp(beta) within the range of floats, got {beta!r}")

    def density(self, moments: Any) -> Any:
        """Relative density at the points, of mean 1."""
        field = (self.strength * moments) @ self.cosines
        density = np.exp(field - field.max())
        return density / density.mean()

    def moments(self, density: Any) -> Any:
        return self.cosines @ density / len(density)

    def unresolved(self, density: Any) -> float:
        """The highest coefficient of the law that its points can tell."""
        return float(abs(np.mean(density * (-1.0) ** np.arange(len(density)))))

    def slope(self, density: Any) -> Any:
        """D moments_l / d moments_k: covariances of cosines times the strength of k."""
        mean = self.moments(density)
        return ((self.cosines * density) @ self.cosines.T / len(density) - np.outer(mean, mean)) * self.strength


@formula(moments=Reals(-1.0, 1.0, "[]", ndim=1), beta=POSITIVE, coupling=POSITIVE)
def attention_free_energy(*, moments: ArrayLike, beta: float, coupling: float) -> float:
    r"""Free energy of a law on the circle under noisy USA attention, per unit length: mean(f log f) - (K/2) <f, W f>.

    With f the density relative to the uniform law, of moments r_l = mean(f cos(l t)), and
    <f, W f> = (1/beta)(I_0 + 2 sum_l I_l r_l^2). Noisy USA descends it, and its stationary points are the stationary
    laws (`ordered_state`); the uniform law has -(K/2) I_0(beta)/beta.

    Args:
        moments: r_1, ..., r_m; higher ones are 0.
        beta: inverse temperature > 0.
        coupling: K = 2/sigma^2.

    Raises:
        ValueError: the moments are those of no density (it would be negative).

    Source: arXiv 2606.05140, with the factor 1/2 of the interaction; see `landau_quartic`.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.attention_free_energy(moments=[0.3, 0.05], beta=1.0, coupling=2.5), 6)
        -1.618403
    """
    from scipy.special import iv, xlogy

    r = np.asarray(moments)
    degrees = np.arange(1, len(r) + 1)
    points = 16 * len(r) + 256
    density = 1.0 + 2.0 * r @ np.cos(degrees[:, None] * (2.0 * np.pi * np.arange(points) / points))
    if density.min() < -1e-9:
        raise ValueError(f"moments must be those of a density, got a law that falls to {density.min():.3g}")
    interaction = (iv(0, beta) + 2.0 * float(iv(degrees, beta) @ r**2)) / beta
    return float(np.mean(xlogy(np.maximum(density, 0.0), np.maximum(density, 0.0))) - 0.5 * coupling * interaction)
