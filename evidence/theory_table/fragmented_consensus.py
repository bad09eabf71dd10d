"""Fragmented consensus: truncated rules keep several clusters, each contracting exponentially; dense rules do not.

The mean-field claim of the Krause paper (2602.11534): clusters further apart than the interaction radius evolve
independently, each to a point. Shown with particles and with the solver, and its limit: the dense Gaussian rule.
"""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

#: Two groups of width 0.6 about -2 and 2, out of reach of each other for radius 1.5.
CENTRES, WIDTH, RADIUS, SIGMA = (-2.0, 2.0), 0.6, 1.5, 0.5


def truncated_rule() -> kd.Interaction:
    """The Gaussian rule of bandwidth 1/2, truncated at 3/2."""
    return kd.krause(sigma=SIGMA, neighbourhood=kd.Within(RADIUS))


def two_groups(per_group: int = 30, seed: int = 0) -> np.ndarray:
    """Random positions (2 per_group, 1), the first half on the left."""
    rng = np.random.default_rng(seed)
    return np.concatenate([c + WIDTH * (rng.uniform(size=(per_group, 1)) - 0.5) for c in CENTRES])


def group_deviations(positions: np.ndarray) -> np.ndarray:
    """Standard deviation of each half of the particles: (T, n, 1) -> (T, 2)."""
    halves = np.stack(np.split(positions[..., 0], 2, axis=1), axis=1)
    return halves.std(axis=-1)


@check(
    8,
    source="2602.11534 (mean-field claim); derived",
    setting="two groups, truncated rule, t = 6..10; two rates and the drift of the centres",
    tolerance=1e-3,
)
def fragmented_particles() -> Comparison:
    """Fragmented consensus, particles: each cluster contracts at rate 1 about its own centre."""
    run = kd.simulate(kd.Dynamics(truncated_rule()), two_groups(), 10.0, dt=0.05, save_at=[6.0, 10.0])
    deviation = group_deviations(run.positions[1:])
    rates = np.log(deviation[0] / deviation[1]) / 4.0
    centres = [half.mean() for half in np.split(run.final[:, 0], 2)]
    alone = [
        kd.simulate(kd.Dynamics(truncated_rule()), half, 10.0, dt=0.05, save_every=200).final.mean()
        for half in np.split(two_groups(), 2)
    ]
    return compare([1.0, 1.0, *alone], [*rates, *centres])


@check(
    8,
    source="2602.11534 (mean-field claim)",
    setting="solver, two box densities, 1200 cells, t = 0.8..1.2 against particles",
    tolerance=2e-2,
)
def fragmented_density() -> Comparison:
    """Fragmented consensus, mean field: contraction rate of each cluster."""
    cells = kd.mean_field.LineCells(1200, -3.0, 3.0)

    def boxes(x: np.ndarray) -> np.ndarray:
        return np.where(x < 0, 1.0, 2.0) * (np.abs(np.abs(x) - CENTRES[1]) < WIDTH / 2)

    start = kd.mean_field.from_function(cells, boxes)
    dynamics, times = kd.Dynamics(truncated_rule()), [0.8, 1.2]
    run = kd.mean_field.solve(dynamics, start, 1.2, save_at=times)
    sides = [cells.centres < 0, cells.centres > 0]
    solved = []
    for index in (1, 2):
        mass = np.exp(run.log_mass_at(index))
        means = [np.average(cells.centres[s], weights=mass[s]) for s in sides]
        solved.append(
            [
                np.sqrt(np.average((cells.centres[s] - m) ** 2, weights=mass[s]))
                for s, m in zip(sides, means, strict=True)
            ]
        )
    rates = np.log(np.array(solved[0]) / np.array(solved[1])) / 0.4
    quantile = WIDTH * ((np.arange(400)[:, None] + 0.5) / 400 - 0.5)
    x0 = np.concatenate([c + quantile for c in CENTRES])
    deviation = group_deviations(kd.simulate(dynamics, x0, 1.2, dt=0.05, save_at=times).positions[1:])
    return compare(np.log(deviation[0] / deviation[1]) / 0.4, rates)


@check(
    8, source="exact", setting="t = 30: final clusters at the radius, truncated and dense (sigma = 1.2)", tolerance=0.0
)
def fragmented_numbers() -> Comparison:
    """Fragmented consensus: two clusters under the truncated rule, one under the dense rule."""
    counts = []
    for rule in (truncated_rule(), kd.krause(sigma=1.2)):
        final = kd.simulate(kd.Dynamics(rule), two_groups(), 120.0, dt=0.1, save_every=1200).final
        counts.append(1 + np.sum(np.diff(np.sort(final[:, 0])) > 1e-3))
    return compare([2, 1], counts)


@check(
    8,
    source="derived",
    setting="dense rule, sigma = 1, two groups of width 0.06 at distance 4; time to half of it",
    tolerance=2e-3,  # of the width of the groups while they contract
    kind="relative",
)
def dense_merging() -> Comparison:
    """Limit of fragmented consensus: the dense Gaussian rule merges groups in the time of the lifetime formula."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    groups = two_groups()
    groups = np.sign(groups) * CENTRES[1] + 0.1 * (groups - np.sign(groups) * CENTRES[1])
    distance = float(groups[30:].mean() - groups[:30].mean())
    predicted = theory.gaussian_lifetime(distance, stop=2.0)
    run = kd.simulate(kd.Dynamics(kd.krause(sigma=1.0)), groups, 1.5 * predicted, dt=0.1)
    left, right = np.split(run.positions[..., 0], 2, axis=1)
    gap = CubicSpline(run.times, right.mean(axis=1) - left.mean(axis=1) - 2.0)
    return compare(predicted, brentq(gap, 0.0, run.times[-1]))
