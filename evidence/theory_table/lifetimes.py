"""Section 4: lifetimes of two clusters."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
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
    setting="beta = 16, 32 at 90 degrees, against the quadrature",
    tolerance=0.02,
    kind="relative",
)
def sphere_lifetime_asymptotic() -> Comparison:
    """Two-cluster lifetime, asymptotic form."""
    angle = np.pi / 2
    predicted = [theory.cluster_lifetime_asymptotic(beta=beta, angle=angle) for beta in (16.0, 32.0)]
    return compare(predicted, [theory.cluster_lifetime(beta=beta, angle=angle) for beta in (16.0, 32.0)])


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
