"""Section 4: lifetimes of two clusters."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.low_temperature import merging
from krause_dynamics import theory


def _closing_time(positions: np.ndarray, times: np.ndarray, gap: np.ndarray, stop: float) -> float:
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    return float(brentq(CubicSpline(times, gap - stop), times[0], times[-1]))


@check(
    4,
    source="2410.06833; derived",
    setting="SA; beta = 4, phi0 = 2, masses 1/2 and 0.3",
    tolerance=1e-3,
    kind="relative",
)
def sphere_lifetime() -> Comparison:
    """Two-cluster lifetime, sphere."""
    beta, angle, predicted, measured = 4.0, 2.0, [], []
    for mass in (0.5, 0.3):
        predicted.append(theory.cluster_lifetime(beta=beta, angle=angle, mass=mass))
        x0 = kd.Circle().from_angles(np.array([0.0, angle]))
        run = kd.simulate(
            kd.Dynamics(kd.softmax(beta), kd.Circle()),
            x0,
            1.05 * predicted[-1],
            dt=0.05,
            log_mass=np.log([mass, 1 - mass]),
        )
        gap = kd.Circle().distance(run.positions[:, 0], run.positions[:, 1])
        measured.append(_closing_time(run.positions, run.times, gap, angle / 2))
    return compare(predicted, measured)


@check(
    4,
    source="2410.06833; derived",
    setting="beta = 16, 32 at 90 degrees; quadrature of the simulator's velocities",
    tolerance=0.02,
    kind="relative",
)
def sphere_lifetime_asymptotic() -> Comparison:
    """Two-cluster lifetime, asymptotic form."""
    angle = np.pi / 2
    predicted = [theory.cluster_lifetime_asymptotic(beta=beta, angle=angle) for beta in (16.0, 32.0)]
    return compare(predicted, [merging(beta, angle) for beta in (16.0, 32.0)])


@check(
    4,
    source="derived",
    setting="D0 = 3 sigma, masses 1/2 and 0.3",
    tolerance=1e-3,
    kind="relative",
)
def gaussian_lifetime() -> Comparison:
    """Two-cluster lifetime, dense Gaussian rule."""
    predicted, measured = [], []
    for mass in (0.5, 0.3):
        predicted.append(theory.gaussian_lifetime(3.0, mass=mass))
        x0 = np.array([[0.0], [3.0]])
        run = kd.simulate(
            kd.Dynamics(kd.krause(sigma=1.0)), x0, 1.05 * predicted[-1], dt=0.02, log_mass=np.log([mass, 1 - mass])
        )
        gap = run.positions[:, 1, 0] - run.positions[:, 0, 0]
        measured.append(_closing_time(run.positions, run.times, gap, 1.5))
    return compare(predicted, measured)


def _halvings(angles: list[float], beta: float) -> list[float]:
    """When the first gap has halved, and then that of the third cluster to the middle of the first two."""
    times = theory.merging_times(angles=angles, beta=beta)
    near = np.concatenate([time * np.linspace(0.8, 1.2, 21) for time in times])
    x0 = kd.Circle().from_angles(np.array(angles))
    dynamics = kd.Dynamics(kd.softmax(beta), kd.Circle())
    run = kd.simulate(dynamics, x0, float(near[-1]), dt=0.1, integrator=kd.Stiff(), save_at=near)
    at = np.unwrap(kd.Circle().to_angles(run.positions), axis=0)
    middle = 0.5 * (at[:, 0] + at[:, 1])
    gaps = (at[:, 1] - at[:, 0], at[:, 2] - middle)
    halves = (0.5 * (angles[1] - angles[0]), 0.5 * (angles[2] - 0.5 * (angles[0] + angles[1])))
    return [float(np.interp(-half, -gap, run.times)) for gap, half in zip(gaps, halves, strict=True)]


@check(
    4,
    source="derived; saddle-to-saddle times e^{c beta}",
    setting="SA, three tokens at 0, 1, 3 and 0, 0.9, 2.7, beta = 5, 8; log of the times of both mergers",
    tolerance=0.04,  # the third pulls e^{-beta (difference of cosines)} as much: 0.03 at beta = 5
)
def staircase() -> Comparison:
    """Staircase: clusters merge pair by pair, each in the lifetime of the pair as if the others were not there."""
    predicted, measured = [], []
    for angles in ([0.0, 1.0, 3.0], [0.0, 0.9, 2.7]):
        for beta in (5.0, 8.0):
            predicted += list(np.log(theory.merging_times(angles=angles, beta=beta)))
            measured += list(np.log(_halvings(angles, beta)))
    return compare(predicted, measured, f"the last after t = {np.exp(measured[3]):.2g}")
