"""Linear waves on a uniform density under bounded confidence: dispersion, fastest wave, selected wavelength.

A perturbation rho0 (1 + eta e^{ikx}) moves the mean of the neighbours of x by i eta e^{ikx} g(q)/k, with q = kR and
g(q) = sin(q)/q - cos(q). The push-forward adds -d/dx of it. Everything below follows from g.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from krause_dynamics._arguments import POSITIVE, Complexes, Flag, Real, Reals, Word
from krause_dynamics.theory._formula import formula

TimeModel = Literal["discrete", "normalised", "per_capita"]


@formula(q=Complexes())
def dispersion(q: Any) -> np.ndarray:
    r"""g(q) = sin(q)/q - cos(q), for real or complex q; g ~ q^2/3 for long waves.

    Args:
        q: wave number times radius, any shape; 0 gives 0.

    Source: derived: mean of z e^{ikz} over (-R, R).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.dispersion([0.0, 1.0, 2.74371]).round(6).tolist()
        [0.0, 0.301169, 1.063104]
    """
    z = q
    small = np.abs(z) < 1e-3
    safe = np.where(small, 1.0, z)
    return np.where(small, z**2 / 3.0 - z**4 / 30.0, np.sin(safe) / safe - np.cos(safe))


def _dispersion_slope(q: complex) -> complex:
    return complex(np.cos(q) / q - np.sin(q) / q**2 + np.sin(q))


@formula(wavenumber=Complexes(), radius=POSITIVE)
def step_multiplier(*, wavenumber: Any, radius: float) -> np.ndarray:
    r"""Factor per step of the discrete map: 1 + g(kR).

    Valid for amplitudes much larger than the spacing of particles and much smaller than the wavelength: below
    the spacing a lattice sees a frozen graph, `frozen_graph_multiplier`.

    Args:
        wavenumber: k, real or complex, any shape; radians per unit of position.
        radius: confidence radius R; unit: position.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(float(theory.step_multiplier(wavenumber=2.744, radius=1.0)), 6)
        2.063104
    """
    return 1.0 + dispersion(wavenumber * radius)


@formula(wavenumber=Complexes(), radius=POSITIVE, density=POSITIVE, normalised=Flag(), noise=Real(0.0))
def growth_rate(
    *, wavenumber: Any, radius: float, density: float = 1.0, normalised: bool = False, noise: float = 0.0
) -> np.ndarray:
    r"""Growth rate in continuous time: g(kR) (normalised) or 2 rho0 R g(kR) (per capita), minus sigma^2 k^2/2.

    Args:
        wavenumber: k, any shape; radians per unit of position.
        radius: confidence radius R; unit: position.
        density: rho0, mass per unit of position (1/L for a probability on a torus of length L); unused when normalised.
        normalised: divide by the number of neighbours.
        noise: sigma of dx = drift dt + sigma dB; unit: position / sqrt(time).

    Source: derived; compare arXiv 1511.02975 and 1508.07313.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.growth_rate(wavenumber=[1.0, 2.744], radius=1.0, density=0.1).round(6).tolist()
        [0.060234, 0.212621]
    """
    factor = 1.0 if normalised else 2.0 * density * radius
    return factor * dispersion(wavenumber * radius) - 0.5 * noise**2 * wavenumber**2


@formula(wavenumber=Reals(), spacing=POSITIVE, radius=POSITIVE)
def frozen_graph_multiplier(*, wavenumber: Any, spacing: float, radius: float) -> np.ndarray:
    r"""Factor per step of displacements of a lattice, far smaller than the spacing h, when the graph does not change.

    sin((p + 1/2) k h)/((2p + 1) sin(k h/2)),  p = floor(R/h) neighbours a side.

    Args:
        wavenumber: k, any shape, radians per unit of position; at multiples of 2 pi/h all move alike: the factor is 1.
        spacing: h; unit: position.
        radius: R; unit: position; a ratio R/h within 1e-9 of an integer counts as that integer (closed ball).

    Source: derived (Dirichlet kernel).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.frozen_graph_multiplier(wavenumber=[0.0, 3.0], spacing=0.1, radius=1.0).round(6).tolist()
        [1.0, -0.002679]
    """
    from scipy.special import diric

    neighbours = np.floor(radius / spacing + 1e-9)
    return diric(wavenumber * spacing, 2.0 * neighbours + 1.0)


def fastest_wave() -> float:
    r"""q* = k R of the fastest growing wave, tan q = q/(1 - q^2): 2.74371, wavelength 2.29003 R.

    The same in discrete and in both continuous models, without noise.

    Source: derived: the maximum of `dispersion`.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.fastest_wave(), 6)
        2.743707
    """
    from scipy.optimize import brentq

    # (1 - q^2) sin q = q cos q has no pole, unlike the tangent.
    return brentq(lambda q: (1.0 - q * q) * np.sin(q) - q * np.cos(q), 2.0, 3.0, xtol=1e-14)


class Front(NamedTuple):
    """A pulled front.

    Attributes:
        wavenumber: Complex q, times R.
        speed: In R per unit time.
        wavelength: Behind the front, in R.
    """

    wavenumber: complex
    speed: float
    wavelength: float


@formula(time=Word(("discrete", "normalised", "per_capita")), guess=Complexes(ndim=0))
def selected_front(time: TimeModel = "discrete", *, guess: complex = 3.0 + 2.0j) -> Front:
    r"""Front invading the uniform state from an edge, and the wavelength it leaves behind.

    Saddle of s(q) + icq: s'(q) + ic = 0, Re(s + icq) = 0, Im q > 0, with s = log(1 + g) for the discrete map, g for the
    normalised and 2g for the per-capita model (density 1/R). Nodes are conserved through the front:
    wavelength 2 pi c/|Im(s + icq)|. Discrete 2.18256 R, both continuous models 2.23690 R (a factor of time alone).

    Args:
        time: which model.
        guess: start of the root search; 9.3 + 2.1j finds the second saddle of the map (wavelength 0.674, speed 0.773),
            which simulations do not follow.

    Raises:
        ValueError: unknown model, or no saddle near ``guess``.

    Source: derived; setting of Holzer and Khatri, arXiv 1704.08601.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.selected_front("discrete").wavelength, 6)
        2.182555
    """
    from scipy.optimize import root

    guess = complex(guess)
    if guess.imag <= 0.0:
        raise ValueError(f"guess must lie in the upper half plane, got {guess!r}; try 3 + 2j")
    factor = 2.0 if time == "per_capita" else 1.0

    def exponent(q: complex) -> complex:
        g = complex(np.sin(q) / q - np.cos(q))
        return complex(np.log(1.0 + g)) if time == "discrete" else factor * g

    def slope(q: complex) -> complex:
        g = complex(np.sin(q) / q - np.cos(q))
        return _dispersion_slope(q) / (1.0 + g) if time == "discrete" else factor * _dispersion_slope(q)

    def equations(unknown: np.ndarray) -> list[float]:
        q, c = complex(unknown[0], unknown[1]), unknown[2]
        stationary = slope(q) + 1j * c
        return [stationary.real, stationary.imag, (exponent(q) + 1j * c * q).real]

    start = [guess.real, guess.imag, exponent(guess).real / guess.imag]
    found = root(equations, start, tol=1e-14)
    q, c = complex(found.x[0], found.x[1]), float(found.x[2])
    if np.max(np.abs(equations(found.x))) > 1e-9 or q.imag <= 0.0:
        raise ValueError(f"guess must lie near a saddle in the upper half plane, got {guess!r}; try 3 + 2j")
    return Front(q, c, float(2.0 * np.pi * c / abs((exponent(q) + 1j * c * q).imag)))
