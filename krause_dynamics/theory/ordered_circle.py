"""Stationary laws of noisy USA attention on the circle: their order, their moments and their free energy.

The equation and its units are those of `krause_dynamics.theory.noisy_attention`, in d = 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Reals, Whole
from krause_dynamics.theory._formula import formula


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
