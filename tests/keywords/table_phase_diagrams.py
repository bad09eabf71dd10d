"""Rows of `kd.phase_diagrams`: final clusters and branch points against dense runs, order against linear theory."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import vonmises

from krause_dynamics import phase_diagrams, theory
from tests.keywords.against import against
from tests.keywords.row import row


def confidence_end(length, model, count):
    """Positions at the end of a dense run of midpoints, radius 1: the map until it stops, or the flow until t = 20."""
    x = length * ((np.arange(count) + 0.5) / count - 0.5)

    def heard(x):
        return (np.abs(x[:, None] - x) <= 1).astype(float)

    if model == "per_capita":
        rate = length / count
        run = solve_ivp(lambda _, y: rate * (heard(y) @ y - heard(y).sum(axis=1) * y), (0, 20), x, max_step=0.05)
        return run.y[:, -1]
    for _ in range(200):
        near = heard(x)
        x = near @ x / near.sum(axis=1)
    return x


def clusters_of(x):
    """(position, share) of the groups further apart than the radius."""
    groups = np.split(x, 1 + np.flatnonzero(np.diff(x) > 1))
    return np.array([(group.mean(), len(group) / len(x)) for group in groups])


@against(
    "kd.phase_diagrams.final_clusters",
    "groups at the end of a dense run of the map or of the flow in numpy",
    rtol=0.0, atol=4e-3,  # the steps of the flow across jumps
    read=lambda found: [(cluster.position, cluster.mass) for cluster in found],
    length=(6.1, 3.3), model=("discrete", "per_capita"), count=(41, 57),
)  # fmt: skip
def groups_of_run(length, model, count):
    return clusters_of(confidence_end(length, model, count))


@against(
    "kd.phase_diagrams.clusters_over_length",
    "each length's groups at the end of a dense run, filled up with NaN",
    rtol=0.0, atol=4e-3,
    read=lambda data: np.stack([data.position, data.mass], axis=-1),
    lengths=([6.1], [3.3, 9.1]), model=("discrete", "per_capita"), count=(41, 57),
)  # fmt: skip
def groups_of_runs(lengths, model, count):
    found = [groups_of_run(length, model, count) for length in lengths]
    table = np.full((len(found), max(map(len, found)), 2), np.nan)
    for line, groups in zip(table, found, strict=True):
        line[: len(groups)] = groups
    return table


ENDS, COUNT = (5.1, 5.5), 1001
NEAR = 0.01  # so near the branch point the fate of 1001 opinions flickers with the length


def assert_branch(point, near=NEAR):
    """Consensus below the point, none above."""
    assert len(phase_diagrams.final_clusters(point - near, count=COUNT)) == 1
    assert len(phase_diagrams.final_clusters(point + near, count=COUNT)) > 1


@row(
    "kd.phase_diagrams.branch_point", "lower", 5.1, 4.0, "any length of consensus below leads to the same branch point"
)
def _(first, second):
    points = [phase_diagrams.branch_point(end, ENDS[1], count=COUNT) for end in (first, second)]
    assert points[0] == pytest.approx(points[1], abs=NEAR)
    assert_branch(points[1])
    with pytest.raises(ValueError, match=r"several clusters at both 5.5 and 5.5"):
        phase_diagrams.branch_point(ENDS[1], ENDS[1], count=COUNT)


@row("kd.phase_diagrams.branch_point", "upper", 5.5, 5.6, "any length of discord above leads to the same branch point")
def _(first, second):
    points = [phase_diagrams.branch_point(ENDS[0], end, count=COUNT) for end in (first, second)]
    assert points[0] == pytest.approx(points[1], abs=NEAR)
    assert_branch(points[1])
    with pytest.raises(ValueError, match=r"consensus at both 5.1 and 5.1"):
        phase_diagrams.branch_point(ENDS[0], ENDS[0], count=COUNT)


@row(
    "kd.phase_diagrams.branch_point",
    "model",
    "discrete",
    "per_capita",
    "at length 5 the map agrees, the flow no longer",
)
def _(first, second):
    with pytest.raises(ValueError, match="consensus at both 4 and 5"):
        phase_diagrams.branch_point(4.0, 5.0, first, count=201)
    point = phase_diagrams.branch_point(4.0, 5.0, second, count=201, width=1.0)
    assert point == pytest.approx(theory.CONTINUOUS_BRANCH_POINTS[second], abs=0.5)


@row("kd.phase_diagrams.branch_point", "count", 41, 121, "where consensus of so many opinions is lost in dense runs")
def _(first, second):
    points = [phase_diagrams.branch_point(4.0, 6.0, count=count, width=0.02) for count in (first, second)]
    for count, point in zip((first, second), points, strict=True):
        assert len(groups_of_run(point - 0.02, "discrete", count)) == 1
        assert len(groups_of_run(point + 0.02, "discrete", count)) > 1
    assert abs(points[0] - points[1]) > 0.04


@row(
    "kd.phase_diagrams.branch_point",
    "width",
    0.11,
    0.004,
    "the middle of a bracket of that width, halved from the ends",
)
def _(first, second):
    for width, halvings in ((first, 2), (second, 7)):
        point = phase_diagrams.branch_point(*ENDS, count=COUNT, width=width)
        assert_branch(point, near=max(NEAR, width / 2))
        halves = (point - ENDS[0]) / (ENDS[1] - ENDS[0]) * 2 ** (halvings + 1)
        assert halves == pytest.approx(round(halves), abs=1e-9)
        assert round(halves) % 2 == 1


def attention(angles, times, beta):
    """Angles of tokens on the circle under softmax attention at times, integrated by scipy."""

    def speed(_, a):
        gap = a - a[:, None]
        weights = np.exp(beta * np.cos(gap))
        return (weights * np.sin(gap)).sum(axis=1) / weights.sum(axis=1)

    return solve_ivp(speed, (0, times[-1]), angles, "DOP853", t_eval=times, rtol=1e-9, atol=1e-11).y.T


@against(
    "kd.phase_diagrams.order_over_beta",
    "resultant of tokens from the quantiles of a von Mises law, integrated in time",
    rtol=2e-3,  # square of the cells in which the law is held
    read=lambda data: data.particles,
    betas=([0.5, 1.0], [2.0]), times=([0.5, 1.0], [2.0]), kappa=(0.1, 0.5),
)  # fmt: skip
def resultants(betas, times, kappa):
    start = vonmises(kappa).ppf((np.arange(60) + 0.5) / 60)
    runs = np.array([attention(start, times, beta) for beta in betas])
    return np.hypot(np.cos(runs).mean(axis=-1), np.sin(runs).mean(axis=-1))


@row("kd.phase_diagrams.order_over_beta", "tokens", 5, 12, "a lattice of so many tokens rests, each its own cluster")
def _(first, second):
    for tokens in (first, second):
        data = phase_diagrams.order_over_beta(**{**LATTICE, "tokens": tokens}, noise=0.0)
        assert data.clusters.values.tolist() == [[tokens] * 2]


@row(
    "kd.phase_diagrams.order_over_beta",
    "cells",
    32,
    64,
    "the solver's order parameter: twice the cells, a quarter of the error",
)
def _(first, second):
    exact = resultants([1.0], [0.5, 1.0], 0.5)
    errors = []
    for cells in (first, second):
        data = phase_diagrams.order_over_beta([1.0], [0.5, 1.0], tokens=8, kappa=0.5, cells=cells)
        errors.append(np.abs(data.density.values - exact).max())
    assert errors[0] < 5e-3
    assert errors[1] < 0.35 * errors[0]


LATTICE = {"betas": [5.0], "times": [1.0, 4.0], "tokens": 12, "cells": 64}


@row(
    "kd.phase_diagrams.order_over_beta", "noise", 0.0, 0.1, "a lattice is at rest; noise on it grows until tokens meet"
)
def _(first, second):
    still, noisy = (phase_diagrams.order_over_beta(**LATTICE, noise=noise) for noise in (first, second))
    assert still.clusters.values.tolist() == [[12, 12]]  # 0.52 apart, more than 1/(2 sqrt 5)
    assert noisy.clusters.values[0, -1] < 8
    np.testing.assert_array_equal(noisy.particles, still.particles)


@row(
    "kd.phase_diagrams.order_over_beta",
    "seed",
    0,
    1,
    "draws the noise and nothing else: without noise it has no effect",
)
def _(first, second):
    runs = [phase_diagrams.order_over_beta(**LATTICE, noise=0.1, seed=seed) for seed in (first, first, second)]
    assert runs[0].equals(runs[1])
    assert not runs[0].clusters.equals(runs[2].clusters)
    for name in ("particles", "density", "winning_mode", "linear_time"):
        assert runs[0][name].equals(runs[2][name])
    still = [phase_diagrams.order_over_beta(**LATTICE, noise=0.0, seed=seed) for seed in (first, second)]
    assert still[0].equals(still[1])


@against(
    "kd.phase_diagrams.order_over_noise",
    "a wave of amplitude 0.1, so of order 0.05, grown at the rate of linear theory",
    rtol=0.01,  # square of the amplitude, and 32 cells
    read=lambda data: data.density,
    noises=([0.2], [0.3, 0.1]), radii=([0.3], [0.2, 0.4]), t_end=(1.0, 0.4),
)  # fmt: skip
def linear_order(noises, radii, t_end):
    rates = [
        [theory.growth_rate(wavenumber=2 * np.pi, radius=radius, noise=noise) for noise in noises] for radius in radii
    ]
    return 0.05 * np.exp(t_end * np.array(rates, dtype=float))


@row(
    "kd.phase_diagrams.order_over_noise",
    "cells",
    32,
    64,
    "twice the cells, a quarter of the error of linear theory",
)
def _(first, second):
    exact = linear_order([0.3], [0.3], 1.0)
    errors = [order_over_noise(cells=cells).density.values / exact - 1 for cells in (first, second)]
    assert abs(errors[0]) < 0.01
    assert abs(errors[1]) < 0.35 * abs(errors[0])


def order_over_noise(noises=(0.3,), radii=(0.3,), **options):
    return phase_diagrams.order_over_noise(list(noises), list(radii), **{"t_end": 1.0, "cells": 32, **options})


@row(
    "kd.phase_diagrams.order_over_noise",
    "particles",
    0,
    400,
    "without noise the order of so many quantiles is linear too",
)
def _(first, second):
    assert "particles" not in order_over_noise(particles=first)
    still = order_over_noise([0.0], particles=second)
    np.testing.assert_allclose(still.particles, linear_order([0.0], [0.3], 1.0), rtol=0.02)  # the finite amplitude
    # Noise moves the resultant by N^-1/2.
    noisy = order_over_noise(particles=second)
    assert abs(float(noisy.particles[0, 0]) - float(noisy.density[0, 0])) < 3 / np.sqrt(second)


@row("kd.phase_diagrams.order_over_noise", "seed", 0, 1, "draws the noise of the particles and nothing else")
def _(first, second):
    one, same, other = (order_over_noise(particles=50, seed=seed) for seed in (first, first, second))
    assert one.equals(same)
    assert not one.particles.equals(other.particles)
    assert one.density.equals(other.density)
    still = [order_over_noise([0.0], particles=50, seed=seed) for seed in (first, second)]
    assert still[0].equals(still[1])


@row("kd.phase_diagrams.branch_point", "progress", False, True, "told of every halving, whose number is known before")
@row("kd.phase_diagrams.clusters_over_length", "progress", False, True, "told of every length")
@row("kd.phase_diagrams.order_over_beta", "progress", False, True, "told of every beta")
@row("kd.phase_diagrams.order_over_noise", "progress", False, True, "told of every point")
def progress(first, second):
    calls = (
        (3, lambda told: phase_diagrams.branch_point(*ENDS, count=COUNT, width=(ENDS[1] - ENDS[0]) / 8, progress=told)),
        (2, lambda told: phase_diagrams.clusters_over_length([1.0, 2.0], count=11, progress=told)),
        (2, lambda told: phase_diagrams.order_over_beta([1.0, 2.0], [0.1], tokens=4, cells=64, progress=told)),
        (2, lambda told: phase_diagrams.order_over_noise([0.1, 0.2], [0.3], t_end=0.1, cells=16, progress=told)),
    )
    for total, call in calls:
        told = []
        call(lambda *done, told=told: told.append(done))
        assert told == [(done, total) for done in range(total + 1)]
        call(first)
        with contextlib.redirect_stderr(io.StringIO()) as drawn:
            call(second)
        assert "100%" in drawn.getvalue()
