"""Section 6: Gaussian laws, carried by Gauss-Hermite points with log-masses, against their closed forms."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def gauss_hermite(variance: float, points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Positions (points, 1) and log-masses whose moments are those of N(0, variance)."""
    from numpy.polynomial.hermite_e import hermegauss

    node, weight = hermegauss(points)
    return np.sqrt(variance) * node[:, None], np.log(weight / weight.sum())


def moved_variance(
    dynamics: kd.Dynamics, variance: float, times: list[float], dt: float = 0.01, points: int = 40
) -> np.ndarray:
    """Variances at ``times`` of N(0, variance) carried by the dynamics."""
    x0, log_mass = gauss_hermite(variance, points)
    run = kd.simulate(dynamics, x0, times[-1], dt=dt, save_at=times, log_mass=log_mass)
    return np.sum(np.exp(log_mass) * run.positions[1:, :, 0] ** 2, axis=1)


@check(
    6,
    source="2501.18322; derived",
    setting="sigma = 1, variances 0.5, 2; 40 points",
    tolerance=1e-9,
)
def gaussian_rule() -> Comparison:
    """Gaussian rule, continuous time."""
    times, dynamics = [0.5, 1.0, 2.0], kd.Dynamics(kd.krause(sigma=1.0))
    measured = [moved_variance(dynamics, v, times) for v in (0.5, 2.0)]
    return compare(np.stack([theory.gaussian_rule_variance(times=times, variance=v) for v in (0.5, 2.0)]), measured)


@check(
    6,
    source="2501.18322; derived",
    setting="variances 0.3 and 1.5; 28 x 28 points, t = 0.5",
    tolerance=1e-9,
)
def gaussian_rule_plane() -> Comparison:
    """Gaussian rule in the plane, per principal axis."""
    (first, log_first), (second, log_second) = gauss_hermite(0.3, 28), gauss_hermite(1.5, 28)
    x0 = np.stack(np.meshgrid(first[:, 0], second[:, 0], indexing="ij"), -1).reshape(-1, 2)
    log_mass = (log_first[:, None] + log_second).ravel()
    # Points below 1e-16 of the mass change nothing and cost most of the time.
    keep = log_mass > -37.0
    run = kd.simulate(
        kd.Dynamics(kd.krause(sigma=1.0)), x0[keep], 0.5, dt=0.03125, save_every=16, log_mass=log_mass[keep]
    )
    variance = np.exp(log_mass[keep]) @ run.final**2
    return compare(theory.gaussian_rule_variance(times=0.5, variance=np.array([0.3, 1.5])), variance)


def _layer(variance: float, step: float) -> float:
    x0, log_mass = gauss_hermite(variance)
    run = kd.simulate(kd.Dynamics(kd.krause(sigma=1.0)), x0, step, dt=step, integrator=kd.Euler(), log_mass=log_mass)
    return float(np.sqrt(np.exp(log_mass) @ run.final[:, 0] ** 2))


@check(
    6,
    source="blurring mean shift; derived",
    setting="v = 0.7, 1.2, no residual",
    tolerance=1e-9,
)
def full_step() -> Comparison:
    """Gaussian rule, full step v^3/(v^2 + s^2)."""
    predicted = theory.gaussian_rule_deviation_step(np.array([0.7, 1.2]))
    return compare(predicted, [_layer(v**2, 1.0) for v in (0.7, 1.2)])


@check(6, source="derived", setting="v = 0.7, 1.2, tau = 0.3", tolerance=1e-9)
def relaxed_step() -> Comparison:
    """Gaussian rule, relaxed step."""
    predicted = theory.gaussian_rule_deviation_step(np.array([0.7, 1.2]), step=0.3)
    return compare(predicted, [_layer(v**2, 0.3) for v in (0.7, 1.2)])


@check(
    6,
    source="derived",
    setting="beta = 0.5, l0 = 0.4, up to 60 % of the blow-up time",
    tolerance=1e-9,
)
def dot_product_plain() -> Comparison:
    """Dot product, plain."""
    blow_up = theory.dot_product_blow_up(variance=0.4, beta=0.5)
    times = [0.2 * blow_up, 0.4 * blow_up, 0.6 * blow_up]
    dynamics = kd.Dynamics(kd.softmax(0.5), relative=False)
    return compare(
        theory.dot_product_variance(times=times, variance=0.4, beta=0.5), moved_variance(dynamics, 0.4, times)
    )


@check(6, source="derived", setting="beta = 0.8; l0 = 0.3, 0.9", tolerance=1e-9)
def dot_product_relative() -> Comparison:
    """Dot product, relative."""
    times, dynamics = [0.25, 0.5, 0.75], kd.Dynamics(kd.softmax(0.8))
    measured = [moved_variance(dynamics, v, times, dt=0.01) for v in (0.3, 0.9)]
    predicted = [theory.dot_product_variance(times=times, variance=v, beta=0.8, relative=True) for v in (0.3, 0.9)]
    return compare(np.stack(predicted), measured)


@check(
    6,
    source="derived",
    setting="beta = 0.5, l0 = 1; from 1/l at t = 0.2, 0.4",
    tolerance=1e-6,
)
def blow_up() -> Comparison:
    """Dot product, plain: blow-up time 1/(2 beta l0)."""
    inverse = 1.0 / moved_variance(kd.Dynamics(kd.softmax(0.5), relative=False), 1.0, [0.2, 0.4])
    return compare(
        theory.dot_product_blow_up(variance=1.0, beta=0.5), 0.2 + 0.2 * inverse[0] / (inverse[0] - inverse[1])
    )


@check(
    6,
    source="derived",
    setting="beta = 0.8, l0 = 1.3, 80 points: where 1/l reaches 0, and growth of 1/l - beta; from 1/l at t = 0.05, 0.1",
    tolerance=1e-6,
)
def blow_up_relative() -> Comparison:
    """Dot product, relative: blow-up time 0.5 log(beta l0/(beta l0 - 1)); 1/beta is unstable."""
    # Above 1/beta the outermost points, with nobody beyond them, go wrong first: many points, a short time.
    beta, variance, times = 0.8, 1.3, [0.05, 0.1]
    excess = 1.0 / moved_variance(kd.Dynamics(kd.softmax(beta)), variance, times, points=80) - beta
    rate = np.log(excess[1] / excess[0]) / (times[1] - times[0])
    measured = times[0] + np.log(-beta / excess[0]) / rate
    return compare([theory.dot_product_blow_up(variance=variance, beta=beta, relative=True), 2.0], [measured, rate])
