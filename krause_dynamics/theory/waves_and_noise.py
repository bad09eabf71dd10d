"""Bounded confidence on a torus with noise: what makes the uniform law stable, and which wave grows fastest."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import POSITIVE, Flag, Real, Whole, affordable
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.dispersion import dispersion, growth_rate


@formula(radius=POSITIVE, length=POSITIVE, mode=Whole(), normalised=Flag())
def critical_noise(*, radius: float, length: float, mode: int = 1, normalised: bool = False) -> float:
    r"""sigma_c of dx = drift dt + sigma dB above which the uniform law on a torus is stable against one mode.

    Per capita: sigma_c^2 = (4 R^3/L)(sin q - q cos q)/q^3, q = 2 pi m R/L, tending to 4 R^3/(3L) for long waves.
    Normalised: sigma_c^2 = 2 R^2 g(q)/q^2, tending to 2 R^2/3.

    Args:
        radius: R; unit: position.
        length: circumference L >= 2R; unit: position.
        mode: wave number in units of 2 pi/L; 1 is the last to be stabilised for R << L.
        normalised: divide by the number of neighbours.

    Returns:
        sigma_c, or 0 when the mode is stable without noise.

    Raises:
        ValueError: the torus is shorter than the diameter of a neighbourhood.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.critical_noise(radius=1.0, length=6.0), 6)
        0.445857
    """
    r, ell = radius, length
    if ell < 2.0 * r:
        raise ValueError(f"length must be at least 2 radius = {2 * r:g} on a torus, got {ell:g}")
    q = 2.0 * np.pi * mode * r / ell
    share = 1.0 / 3.0 if q < 1e-8 else float(dispersion(q)) / q**2
    return r * float(np.sqrt(max(2.0 * share, 0.0) * (1.0 if normalised else 2.0 * r / ell)))


@formula(radius=POSITIVE, density=POSITIVE, normalised=Flag())
def long_wave_critical_noise(radius: float, *, density: float = 1.0, normalised: bool = False) -> float:
    r"""Limit of sigma_c for waves much longer than R: sigma_c^2 = 4 rho0 R^3/3, or 2 R^2/3 when normalised.

    Args:
        radius: confidence radius R; unit: position.
        density: rho0, mass per unit of position; unused when normalised.
        normalised: divide by the number of neighbours.

    Source: derived: g(q) ~ q^2/3.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.long_wave_critical_noise(1.0, normalised=True), 6)
        0.816497
    """
    squared = 2.0 * radius**2 / 3.0 if normalised else 4.0 * density * radius**3 / 3.0
    return float(np.sqrt(squared))


@formula(radius=POSITIVE, length=POSITIVE, noise=Real(0.0), normalised=Flag())
def winning_wave(*, radius: float, length: float, noise: float = 0.0, normalised: bool = False) -> int:
    r"""Mode m of the uniform law on a torus that grows fastest: the number of clusters that appear; 0: none grows.

    The largest `growth_rate` of k = 2 pi m/L at density 1/L. Without noise kR is near 2.744: clusters
    2.29 R apart, the "2R" of the literature; noise favours longer waves. Where the circumference is short, no mode may
    lie near it, and one of kR near 9.2 win; modes up to kR = 50 are compared, of equal ones the longest wins.

    Args:
        radius: R; unit: position.
        length: circumference L >= 2R; unit: position.
        noise: sigma of dx = drift dt + sigma dB; unit: position / sqrt(time).
        normalised: divide by the number of neighbours.

    Raises:
        ValueError: a torus shorter than the diameter of a neighbourhood.

    Source: derived; noisy bounded confidence of Wang, Li, E and Chazelle 2017, arXiv 1511.02975.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.winning_wave(radius=1.0, length=12.0), theory.winning_wave(radius=1.0, length=12.0, noise=0.3)
        (5, 2)
    """
    if length < 2.0 * radius:
        raise ValueError(f"length must be at least 2 radius = {2 * radius:g} on a torus, got {length:g}")
    count = 50.0 * length / (2.0 * np.pi * radius)
    affordable("length / radius, times 8,", count)
    modes = np.arange(1, int(count) + 1)
    rates = growth_rate(
        wavenumber=2.0 * np.pi * modes / length, radius=radius, density=1.0 / length, normalised=normalised, noise=noise
    )
    largest = float(rates.max())
    return int(modes[rates >= largest - 1e-12][0]) if largest > 0.0 else 0
