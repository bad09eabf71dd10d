"""Section 9: causal attention and Renyi centres."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


@check(
    9,
    source="2411.04990 thm 4.1",
    setting="sphere, d = 3, beta = 1, n = 16, t = 80",
    tolerance=1e-10,
)
def leader() -> Comparison:
    """Leader: fixed, and all converge to it."""
    x0 = kd.Sphere().sample(16, 3, 2)
    final = kd.simulate(kd.Dynamics(kd.softmax(1.0, kd.Causal()), kd.Sphere()), x0, 80.0, dt=0.1, save_every=800).final
    return compare([0.0, 0.0], [np.abs(final[0] - x0[0]).max(), np.abs(final - x0[0]).max()])


@check(
    9,
    source="derived",
    setting="as above, t = 44..48, tokens 2 and 5",
    tolerance=2e-3,
)
def leader_rate() -> Comparison:
    """Slow rate: 1 - <x_i, x_1> ~ e^{-t}."""
    x0 = kd.Sphere().sample(16, 3, 2)
    dynamics = kd.Dynamics(kd.softmax(1.0, kd.Causal()), kd.Sphere())
    run = kd.simulate(dynamics, x0, 48.0, dt=0.1, save_at=[44.0, 48.0])
    gaps = np.sum((run.positions[1:, [1, 4]] - run.positions[1:, :1]) ** 2, axis=-1)
    return compare(2 * theory.causal_rates(2)[1] * np.ones(2), np.log(gaps[0] / gaps[1]) / 4.0)


@check(9, source="derived", setting="beta = 3", tolerance=1e-3, kind="relative")
def causal_pair() -> Comparison:
    """Two tokens: time from 120 to 30 degrees."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    start, stop = 2 * np.pi / 3, np.pi / 6
    predicted = theory.causal_gap_time(start=start, stop=stop, beta=3.0)
    dynamics = kd.Dynamics(kd.softmax(3.0, kd.Causal()), kd.Circle())
    run = kd.simulate(dynamics, kd.Circle().from_angles(np.array([0.0, start])), 1.1 * predicted, dt=0.05)
    gap = kd.Circle().distance(run.positions[:, 0], run.positions[:, 1])
    return compare(predicted, brentq(CubicSpline(run.times, gap - stop), 0.0, run.times[-1]))


@check(
    9,
    source="2411.04990 sec. 5",
    setting="delta = 0.1, 20 000 tokens, 3 draws",
    tolerance=0.05,
    kind="relative",
)
def renyi() -> Comparison:
    """Renyi centres: 0.7475979 x 2 pi/delta."""
    draws = [np.random.default_rng(s).uniform(0, 2 * np.pi, 20_000) for s in range(3)]
    counts = [len(kd.clusters.renyi_centres(kd.Circle().from_angles(x), 0.1, space=kd.Circle())) for x in draws]
    return compare(theory.expected_renyi_centres(0.1), np.mean(counts))


@check(
    9,
    source="2411.04990 sec. 5; derived",
    setting="delta = 0.2, n = 60, 400 draws",
    tolerance=0.05,
    kind="relative",
)
def strong_renyi() -> Comparison:
    """Strong Renyi centres."""
    rng = np.random.default_rng(7)
    draws = [kd.Circle().from_angles(rng.uniform(0, 2 * np.pi, 60)) for _ in range(400)]
    counts = [len(kd.clusters.renyi_centres(x, 0.2, space=kd.Circle(), strong=True)) for x in draws]
    return compare(theory.expected_strong_renyi_centres(tokens=60, separation=0.2), np.mean(counts))
