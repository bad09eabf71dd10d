"""Section 1: the fastest wave of bounded confidence, fronts and the spacing of clusters behind them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.opinion_lattices import settle
from krause_dynamics import theory


def measured_dispersion(q: float, *, normalised: bool = True, density: float = 1.0) -> float:
    """g(q), or 2 rho0 R g(q), from the drift of one opinion that hears a perturbed uniform density (R = 1).

    Sources are Gauss-Legendre nodes of its neighbourhood with log-masses log(w rho0 (1 + eta cos)). Heard from a node
    of the perturbation's cosine, its mass is rho0 2R exactly, so the drift is linear in eta without remainder.
    """
    from numpy.polynomial import legendre

    eta, rule = 0.5, kd.bounded_confidence(1.0, normalised=normalised)
    node, weight = legendre.leggauss(40)
    here = np.pi / (2 * q)
    mass = density * weight * (1 + eta * np.cos(q * (here + node)))
    heard = kd.aggregate(rule, np.zeros((1, 1)), node[:, None], log_mass=np.log(mass))
    drift = heard.mean[0, 0] * (1.0 if normalised else np.exp(heard.log_partition[0]))
    # The displacement at sin(q here) = 1 is -eta g/q; compression by its gradient gives back eta g cos.
    return float(-drift * q / eta)


@check(1, source="derived", setting="root of tan q = q/(1 - q^2); maximum over q of the measured drift", tolerance=1e-6)
def fastest_wave() -> Comparison:
    """Fastest growing wave."""
    from scipy.optimize import brentq

    h = 1e-4
    measured = brentq(lambda q: measured_dispersion(q + h) - measured_dispersion(q - h), 2.5, 3.0, xtol=1e-12)
    return compare(theory.fastest_wave(), measured)


def green_function_front(
    exponent: Callable[[np.ndarray], np.ndarray], height: float, guess: float, steps: int = 4000
) -> float:
    """Wavelength behind the front of the linearised model from its Green's function, band-limited to |Re q| < 6.

    u(x, t) = int exp(i q x + s(q) t) dq along Im q = height (any height near the saddle gives the same integral). The
    front moves with the speed c at which u(c t, t) sqrt(t) keeps its size; the phase gained there per unit time is the
    frequency at which clusters are laid down.
    """
    from scipy.optimize import brentq

    q = np.linspace(0.2, 6.0, 40_001) + 1j * height
    s = exponent(q)

    def log_ratio(c: float, t: float) -> complex:
        exponents = s + 1j * c * q
        peak = exponents.real.max()
        # Sums relative to the largest term: e^{t s} itself overflows.
        first, second = (np.log(np.sum(np.exp((exponents - peak) * time))) for time in (t, t + 1.0))
        ratio = second - first + peak + 0.5 * np.log((t + 1.0) / t)
        return complex(ratio.real, (ratio.imag + np.pi) % (2 * np.pi) - np.pi)

    estimates = []
    for t in (steps / 4, steps / 2):
        speed = brentq(lambda c, t=t: log_ratio(c, t).real, 0.97 * guess, 1.03 * guess, xtol=1e-13)
        estimates.append((speed, log_ratio(speed, t).imag))
    # The next correction to the saddle is O(1/t^2) in the increments: Richardson.
    speed, phase = ((4 * b - a) / 3 for a, b in zip(*estimates, strict=True))
    return float(2 * np.pi * speed / abs(phase))


@check(
    1, source="derived; setting of 1704.08601", setting="discrete; Green's function at t = 1000, 2000", tolerance=1e-5
)
def discrete_front() -> Comparison:
    """Front-selected wavelength, discrete time."""
    front = theory.selected_front("discrete")
    measured = green_function_front(lambda q: np.log(1 + np.sin(q) / q - np.cos(q)), 2.1, front.speed)
    return compare(front.wavelength, measured)


@check(1, source="derived; setting of 1704.08601", setting="per capita; Green's function", tolerance=1e-5)
def continuous_front() -> Comparison:
    """Front-selected wavelength, continuous time."""
    # In quarters of the unit of time: the phase gained per step must stay below pi.
    front = theory.selected_front("per_capita")
    measured = green_function_front(lambda q: 0.5 * (np.sin(q) / q - np.cos(q)), 1.3, front.speed / 4, 2000)
    return compare(front.wavelength, measured)


@check(
    1,
    source="derived; about 2.2 in Blondel et al.",
    setting="discrete, L = 100, 4096 opinions per R, clusters 4 to 16 from an edge",
    tolerance=0.03,
)
def discrete_spacing() -> Comparison:
    """Simulated spacing of clusters behind the front ("2R")."""
    # A spacing of 2^-12 makes sums exact, so that the bulk rests until the front arrives; rounding would grow first.
    frozen = settle(np.arange(100 * 4096 + 1) / 4096)
    heavy = frozen.atoms[frozen.masses > 0.05 * frozen.masses.max()]
    return compare(theory.selected_front("discrete").wavelength, np.mean(np.diff(heavy)[3:15]))


@check(
    1,
    source="derived; 1/log^2 corrections of pulled fronts with a cutoff (Brunet & Derrida 1997)",
    setting="discrete, L = 60, 256 to 8192 opinions per R, clusters 4 to 10, straight line in 1/log(density)^2",
    tolerance=0.01,
)
def extrapolated_spacing() -> Comparison:
    """Spacing of clusters behind the front, extrapolated to infinite density."""
    densities, spacings = 2 ** np.arange(8, 14), []
    for per_radius in densities:
        frozen = settle(np.arange(60 * per_radius + 1) / per_radius)
        heavy = frozen.atoms[frozen.masses > 0.05 * frozen.masses.max()]
        spacings.append(np.mean(np.diff(heavy)[3:9]))
    limit = np.polyfit(np.log(densities) ** -2.0, spacings, 1)[1]
    return compare(theory.selected_front("discrete").wavelength, limit, f"{spacings[-1]:.3f} at the largest density")


@check(
    1,
    source="derived",
    setting="per capita, density 1, L = 48, 1024 opinions per R, clusters 4 to 9",
    tolerance=0.03,
    slow=True,
)
def continuous_spacing() -> Comparison:
    """Simulated spacing of clusters behind the front, continuous time."""
    x0 = np.arange(48 * 1024 + 1)[:, None] / 1024
    log_mass = np.full(len(x0), -np.log(1024.0))
    run = kd.simulate(
        kd.Dynamics(kd.bounded_confidence(1.0, normalised=False)), x0, 12.0, dt=0.04, save_every=300, log_mass=log_mass
    )
    x = np.sort(run.final[:, 0])
    groups = np.split(x, 1 + np.flatnonzero(np.diff(x) > 0.1))
    centres = np.array([g.mean() for g in groups if len(g) > 100])
    return compare(theory.selected_front("per_capita").wavelength, np.mean(np.diff(centres)[3:8]))
