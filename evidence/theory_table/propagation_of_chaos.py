"""Section 5: distance between particles and the mean field."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


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
    return compare(theory.linear_model_error(times=run.times, particles=n), measured)


@check(5, source="exact", setting="midpoints, N = 7, 100", tolerance=1e-12)
def quantile_start() -> Comparison:
    """W2 of a quantile start to the uniform law."""
    uniform = kd.mean_field.uniform(kd.mean_field.LineCells(64, 0.0, 1.0))
    measured = [kd.mean_field.wasserstein((np.arange(n) + 0.5) / n, uniform, p=2) for n in (7, 100)]
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
    deviation = np.sqrt(float(theory.gaussian_rule_variance(times=0.5, variance=1.0)))
    for n, draws in ((50, 100), (800, 20)):
        x0 = rng.normal(size=(draws, n, 1))
        final = np.sort(kd.simulate(kd.Dynamics(kd.krause(sigma=1.0)), x0, 0.5, dt=0.25).final[..., 0], axis=-1)
        # Each particle is compared with 50 quantiles of its own cell.
        quantiles = deviation * ndtri((np.arange(50 * n) + 0.5) / (50 * n)).reshape(n, 50)
        errors.append(np.sqrt(np.mean((final[..., None] - quantiles) ** 2)))
    return compare(theory.sampling_rate_exponent(), np.log(errors[1] / errors[0]) / np.log(16.0))
