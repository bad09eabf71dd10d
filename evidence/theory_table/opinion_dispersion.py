"""Section 5: dispersion relations of bounded confidence and critical noise."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.opinion_waves import measured_dispersion
from krause_dynamics import theory


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
    heard = kd.aggregate(rule, x[:, None], images[:, None], log_mass=log_mass, impl="sorted1d")
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
        predicted.append(theory.step_multiplier(wavenumber=k, radius=1.0))
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
            predicted.append(theory.growth_rate(wavenumber=k, radius=1.0, density=1 / 12, normalised=normalised))
            measured.append(growth)
    return compare(predicted, measured)


@check(5, source="derived", setting="torus of 12, spacing 0.1, amplitude 1e-6, R = 1.05 and 1.33", tolerance=1e-6)
def frozen_graph() -> Comparison:
    """Frozen-graph regime: multiplier of a wave far below the spacing."""
    predicted, measured = [], []
    for radius in (1.05, 1.33):
        k, growth = wave_factor(5, 1e-6, 120, radius)
        predicted.append(theory.frozen_graph_multiplier(wavenumber=k, spacing=0.1, radius=radius))
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
    return compare([theory.critical_noise(radius=1.0, length=length) ** 2 for length in lengths], measured)


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
