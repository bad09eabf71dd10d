"""Sections 1 and 5: waves and fronts of bounded confidence, spacing of clusters, critical noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import krause_dynamics as kd
from krause_dynamics import theory
from krause_dynamics.exact import sorted1d
from krause_dynamics.interaction import Request
from krause_dynamics.theory_table._row import Comparison, check, compare
from krause_dynamics.theory_table.opinion_lattices import settle


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


def wave_factor(
    mode: int, amplitude: float, agents: int, radius: float, *, length: float = 12.0, normalised: bool = True
) -> tuple[float, float]:
    """Wave number, and growth rate of a density wave 1 + eta cos(kx) carried by labelled opinions on a torus.

    The displacement -eta sin(kx)/k of a lattice makes that density; its growth is read off the drift.
    """
    label, k = length * np.arange(agents) / agents, 2 * np.pi * mode / length
    x = label - amplitude * np.sin(k * label) / k
    images = np.concatenate([x - length, x, x + length])
    images = images[(images > -2 * radius) & (images < length + 2 * radius)]
    rule = kd.bounded_confidence(radius, normalised=normalised)
    log_mass = np.full(len(images), -np.log(agents))
    heard = sorted1d.aggregate(rule, Request.of(x[:, None], images[:, None], log_mass=log_mass))
    drift = (heard.mean[:, 0] - x) * (1.0 if normalised else np.exp(heard.log_partition))
    return k, float(2 * np.mean(-drift * k * np.sin(k * label)) / amplitude)


# Half a spacing more than 1, so that the lattice sees exactly the reach of the continuum.
_AGENTS, _RADIUS = 240_000, 1.0 + 0.5 * 12.0 / 240_000


@check(
    5,
    source="derived 11.2",
    setting="torus of 12, 240 000 opinions, R = 1, modes 2, 5, 8; amplitude 0.01 R",
    tolerance=2e-3,
)
def discrete_dispersion() -> Comparison:
    """Multiplier of one discrete step: 1 + g(kR)."""
    predicted, measured = [], []
    for mode in (2, 5, 8):
        k, growth = wave_factor(mode, 1e-2, _AGENTS, _RADIUS)
        predicted.append(theory.step_multiplier(k, 1.0))
        measured.append(1 + growth)
    return compare(predicted, measured)


@check(
    5,
    source="derived; cf. 1511.02975, 1508.07313",
    setting="normalised and per capita; torus of 12, modes 2, 5",
    tolerance=2e-3,
    kind="relative",
)
def continuous_dispersion() -> Comparison:
    """Growth rate g(q), or 2 rho0 R g(q)."""
    predicted, measured = [], []
    for normalised in (True, False):
        for mode in (2, 5):
            k, growth = wave_factor(mode, 1e-2, _AGENTS, _RADIUS, normalised=normalised)
            predicted.append(theory.growth_rate(k, 1.0, density=1 / 12, normalised=normalised))
            measured.append(growth)
    return compare(predicted, measured)


@check(5, source="derived", setting="torus of 12, spacing 0.1, amplitude 1e-6, R = 1.05 and 1.33", tolerance=1e-6)
def frozen_graph() -> Comparison:
    """Frozen-graph regime: multiplier of a wave far below the spacing."""
    predicted, measured = [], []
    for radius in (1.05, 1.33):
        k, growth = wave_factor(5, 1e-6, 120, radius)
        predicted.append(theory.frozen_graph_multiplier(k, 0.1, radius))
        measured.append(1 + growth)
    return compare(predicted, measured)


@check(
    5,
    source="derived",
    setting="per capita on a torus of 6, 20; R = 1; noise that balances the measured drift",
    tolerance=1e-9,
)
def critical_noise() -> Comparison:
    """Critical noise sigma_c^2 on a torus."""
    lengths = (6.0, 20.0)
    measured = [
        2 * measured_dispersion(2 * np.pi / length, normalised=False, density=1 / length) / (2 * np.pi / length) ** 2
        for length in lengths
    ]
    return compare([theory.critical_noise(1.0, length) ** 2 for length in lengths], measured)


@check(
    5,
    source="derived",
    setting="long waves, L = 1e4 R: 4R^3/(3L) per capita, 2R^2/3 normalised",
    tolerance=1e-6,
    kind="relative",
)
def long_wave_noise() -> Comparison:
    """Critical noise of long waves."""
    length = 1e4
    q = 2 * np.pi / length
    squared = [
        2 * measured_dispersion(q, normalised=normalised, density=1 / length) / q**2 for normalised in (False, True)
    ]
    predicted = [
        theory.long_wave_critical_noise(1.0, density=1 / length, normalised=normalised) ** 2
        for normalised in (False, True)
    ]
    return compare(predicted, squared)


def _squared_distance_to_uniform(x: np.ndarray, width: float) -> np.ndarray:
    """W2^2 between sorted particles (..., n) and the uniform law on an interval of this width about 1/2, exactly."""
    n = x.shape[-1]
    middle = 0.5 + width * ((np.arange(n) + 0.5) / n - 0.5)
    return np.mean((np.sort(x, axis=-1) - middle) ** 2, axis=-1) + width**2 / (12 * n * n)


@check(
    5, source="derived 11.7", setting="full range, N = 50, t = 0, 0.5, 2; 2000 draws", tolerance=0.06, kind="relative"
)
def linear_model_error() -> Comparison:
    """Mean squared W2 to the mean field, full-range rule."""
    times, n = [0.5, 2.0], 50
    x0 = np.random.default_rng(0).uniform(size=(2000, n, 1))
    run = kd.simulate(kd.Dynamics(kd.softmax(0.0)), x0, 2.0, dt=0.5, save_at=times)
    widths = np.exp(-run.times)
    measured = [_squared_distance_to_uniform(x[..., 0], w).mean() for x, w in zip(run.positions, widths, strict=True)]
    return compare(theory.linear_model_error(run.times, n), measured)


@check(5, source="exact", setting="midpoints, N = 7, 100", tolerance=1e-12)
def quantile_start() -> Comparison:
    """W2 of a quantile start to the uniform law."""
    measured = [np.sqrt(_squared_distance_to_uniform((np.arange(n) + 0.5) / n, 1.0)) for n in (7, 100)]
    return compare([theory.quantile_start_error(n) for n in (7, 100)], measured)


@check(
    5,
    source="standard",
    setting="Gaussian rule, N(0,1), sigma = 1, t = 0.5; N = 50, 800, 100 draws; slope of log RMS W2",
    tolerance=0.08,
)
def sampling_slope() -> Comparison:
    """Rate of W2 in N under Gaussian attention."""
    from scipy.special import ndtri

    rng, errors = np.random.default_rng(2), []
    deviation = np.sqrt(float(theory.gaussian_rule_variance(0.5, 1.0)))
    for n, draws in ((50, 100), (800, 20)):
        x0 = rng.normal(size=(draws, n, 1))
        final = np.sort(kd.simulate(kd.Dynamics(kd.krause(sigma=1.0)), x0, 0.5, dt=0.25).final[..., 0], axis=-1)
        # Each particle is compared with 50 quantiles of its own cell.
        quantiles = deviation * ndtri((np.arange(50 * n) + 0.5) / (50 * n)).reshape(n, 50)
        errors.append(np.sqrt(np.mean((final[..., None] - quantiles) ** 2)))
    return compare(theory.sampling_rate_exponent(), np.log(errors[1] / errors[0]) / np.log(16.0))
