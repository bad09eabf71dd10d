"""Section 12: hard attention, and how long a cluster holds at low temperature."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

START = (3.0, -1.0)
EXITS = ((4, 3.0), (6, 4.0), (6, 8.0), (8, 6.0))  # vertices, beta


def polygon(vertices: int) -> np.ndarray:
    """Unit vectors at equal angles."""
    return kd.Circle().from_angles(2.0 * np.pi * np.arange(vertices) / vertices)


@check(12, source="2508.09628", setting="7 fixed vertices, 40 tokens inside; t = 0.5, 1, 3", tolerance=1e-8)
def frank_wolfe() -> Comparison:
    """Hard attention: tokens follow their vertex for ever, x(t) = e^{-t} x(0) + (1 - e^{-t}) v."""
    rng, vertices = np.random.default_rng(3), polygon(7)
    start = rng.dirichlet(np.ones(7), 40) @ vertices
    rule = kd.Interaction(kd.DotProduct(1.0), kd.TopK(1))
    dynamics = kd.Dynamics(rule, fixed=np.arange(47) < 7)
    times = [0.5, 1.0, 3.0]
    run = kd.simulate(dynamics, np.concatenate([vertices, start]), 3.0, dt=0.02, save_at=times)
    predicted = theory.hard_attention_positions(times=times, start=start, vertices=vertices)
    return compare(predicted, run.positions[1:, 7:])


def _falling_step(t: float, x: np.ndarray, drift: np.ndarray) -> np.ndarray:
    return 2.0 / (t + 2.0) * drift


@check(
    12,
    source="counterexample, errata.md",
    setting="two tokens from (3, -1), steps 2/(t + 2); t = 2..40",
    tolerance=1e-12,
)
def frank_wolfe_stalls() -> Comparison:
    """Hard attention with the minimising sign: (1/3 + 8/(t (t + 1)), 1/3), so x^2/2 stays at 1/18."""
    rule = kd.Interaction(kd.DotProduct(-1.0), kd.TopK(1))
    dynamics = kd.Dynamics(rule, response=_falling_step)
    run = kd.simulate(dynamics, np.array(START), 40.0, dt=1.0, integrator=kd.Euler())
    t = np.arange(2, 41)
    exact = np.stack([1.0 / 3.0 + 8.0 / (t * (t + 1)), np.full(len(t), 1.0 / 3.0)], axis=1)
    return compare(exact, run.positions[2:, :, 0])


def exit_times(vertices: int, beta: float, walkers: int, seed: int) -> np.ndarray:
    """Layers until a token on a vertex first draws another one: keys by the Gumbel trick from the package's weights."""
    rng = np.random.default_rng(seed)
    log_weights = np.log(kd.weights(kd.softmax(beta), polygon(vertices))[0])
    times = np.zeros(walkers, int)
    waiting = np.arange(walkers)
    while waiting.size:
        times[waiting] += 1
        drawn = np.argmax(log_weights + rng.gumbel(size=(waiting.size, vertices)), axis=1)
        waiting = waiting[drawn == 0]
    return times


@check(
    12,
    source="2508.09628",
    setting="(vertices, beta) = (4, 3), (6, 4), (6, 8), (8, 6); 10 000 tokens each; 1/mean exit time",
    tolerance=0.04,  # four deviations of 1/sqrt(n)
    kind="relative",
)
def metastable_exit() -> Comparison:
    """Metastable exit: probability S/(1 + S) that a token with Gumbel noise leaves its vertex."""
    predicted = [theory.polygon_exit_probability(clusters=k, beta=b) for k, b in EXITS]
    return compare(predicted, [1.0 / exit_times(k, b, 10_000, 1).mean() for k, b in EXITS])


@check(
    12,
    source="2508.09628",
    setting="as above; chi-square of ten classes of equal probability against its 99.9 % quantile",
    tolerance=0.0,
    kind="at most",
)
def metastable_exit_law() -> Comparison:
    """Metastable exit: the time is geometric."""
    from scipy.stats import chi2, geom

    statistics, quantiles = [], []
    for vertices, beta in EXITS:
        law = geom(theory.polygon_exit_probability(clusters=vertices, beta=beta))
        edges = np.unique(law.ppf(np.arange(1, 10) / 10))
        expected = 10_000 * np.diff([0.0, *law.cdf(edges), 1.0])
        times = exit_times(vertices, beta, 10_000, 2)
        seen = np.bincount(np.searchsorted(edges, times), minlength=len(edges) + 1)
        statistics.append(np.sum((seen - expected) ** 2 / expected))
        quantiles.append(chi2(len(edges)).ppf(0.999))
    return compare(quantiles, statistics)


@check(
    12,
    source="2508.09628",
    setting="6, 8 vertices, beta = 24 to 30; slope of log of the median from the weights",
    tolerance=1e-3,
    kind="relative",
)
def metastable_slope() -> Comparison:
    """Metastable exit: the log of the median time grows with slope 1 - cos(2 pi/k) in beta."""
    measured = []
    for vertices in (6, 8):
        leave = [1.0 - kd.weights(kd.softmax(b), polygon(vertices))[0, 0] for b in (24.0, 30.0)]
        median = np.log(-np.log(2.0) / np.log1p(-np.array(leave)))
        measured.append((median[1] - median[0]) / 6.0)
    return compare(1.0 - np.cos(2.0 * np.pi / np.array([6, 8])), measured)


@check(
    12,
    source="2509.15958; classical",
    setting="40 tokens, top-3 Gaussian rule, d = 2; 60 steps of 1/2; growth of supports in 64 directions",
    tolerance=1e-12,
)
def localmax_hull() -> Comparison:
    """Top-k (localmax) dynamics: the convex hull never grows."""
    rule = kd.krause(0.5, kd.TopK(3))
    x0 = np.random.default_rng(8).standard_normal((40, 2))
    run = kd.simulate(kd.Dynamics(rule), x0, 30.0, dt=0.5, integrator=kd.Euler())
    supports = (run.positions @ polygon(64).T).max(axis=1)
    return compare(0.0, max(0.0, float(np.diff(supports, axis=0).max())))


@check(
    12,
    source="2509.15958; derived",
    setting="two triples, top-3 Gaussian rule, steps of 1/2; factor a step",
    tolerance=1e-6,
    kind="relative",
)
def localmax_no_finite_time() -> Comparison:
    """Top-k (localmax) dynamics: a closed group contracts geometrically, never in finite time."""
    rule = kd.krause(0.5, kd.TopK(3))
    x0 = np.array([[0.0, 0.0], [1e-3, 0.0], [0.0, 1e-3], [5.0, 5.0], [5.001, 5.0], [5.0, 5.001]])
    run = kd.simulate(kd.Dynamics(rule), x0, 5.0, dt=0.5, integrator=kd.Euler())
    spread = np.linalg.norm(run.positions[:, :3] - run.positions[:, :3].mean(1, keepdims=True), axis=(1, 2))
    return compare(theory.layer_factor(0.0, step=0.5), (spread[-1] / spread[0]) ** (1.0 / (len(spread) - 1)))
