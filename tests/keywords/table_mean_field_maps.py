"""Layers and quantiles of a density, and how it ends: iterate, follow, settle, clusters, density_at."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))  # drift: mean - x
TWICE = kd.Dynamics(kd.Interaction(kd.Flat()), value=np.array([[2.0]]))
NEAR = kd.Dynamics(kd.bounded_confidence(0.5))
START = mf.gaussian(mf.LineCells(200, -3.0, 3.0), 0.2, 0.5)
ASIDE = mf.gaussian(mf.LineCells(200, -2.0, 4.0), 1.1, 0.4)
WIDE = mf.uniform(mf.LineCells(300, 0.0, 3.0))
ITERATE, FOLLOW, SETTLE = "kd.mean_field.iterate", "kd.mean_field.follow", "kd.mean_field.settle"


def contracts(run, density, factors):
    """State k has the mean of the start and factors[k] times its deviation, up to width^2/4 a layer."""
    width = density.cells.width
    for index, factor in enumerate(factors):
        state = mf.density_at(run, index)
        assert state.total == pytest.approx(density.total, rel=1e-13)
        assert state.mean == pytest.approx(density.mean, abs=1e-9)
        assert state.variance == pytest.approx(factor**2 * density.variance, abs=(index + 1) * width**2 / 4 + 1e-12)


@row(
    ITERATE,
    "dynamics",
    MEAN,
    TWICE,
    "x -> x + dt (mean - x) takes 1 - dt of every distance, with values doubled 1 - 2 dt",
)
def iterate_dynamics(first, second):
    contracts(mf.iterate(first, START, 3, dt=0.2), START, 0.8 ** np.arange(4))
    contracts(mf.iterate(second, START, 3, dt=0.2), START, 0.6 ** np.arange(4))
    with pytest.raises(ValueError, match="noise"):
        mf.iterate(kd.Dynamics(kd.Interaction(kd.Flat()), noise=0.1), START, 1)


@row(
    ITERATE, "density", START, ASIDE, "starts there, keeps its mass and mean, contracts its deviation by 1 - dt a layer"
)
def iterate_density(first, second):
    for density in (first, second):
        run = mf.iterate(MEAN, density, 3, dt=0.2)
        np.testing.assert_allclose(np.exp(run.log_mass[0]), density.mass, rtol=1e-14)
        contracts(run, density, 0.8 ** np.arange(4))


@row(ITERATE, "steps", 2, 5, "so many layers at most; fewer where everything stands still")
def iterate_steps(first, second):
    for steps in (first, second):
        run = mf.iterate(MEAN, START, steps, dt=0.2)
        assert (run.steps, run.times.tolist(), run.meta["stopped"]) == (steps, list(range(steps + 1)), "steps")
        contracts(run, START, 0.8 ** np.arange(steps + 1))
    still = mf.iterate(MEAN, START, 50)  # all at the mean after one layer of length 1
    assert still.meta["stopped"] == "still"
    assert still.steps <= 2


@row(ITERATE, "dt", 1.0, 0.2, "length of a layer: 1 takes everybody to the mean at once, 0.2 a fifth of the way")
def iterate_dt(first, second):
    contracts(mf.iterate(MEAN, START, 1, dt=first), START, [1.0, 0.0])
    contracts(mf.iterate(MEAN, START, 1), START, [1.0, 0.0])
    contracts(mf.iterate(MEAN, START, 2, dt=second), START, [1.0, 0.8, 0.64])


@row(ITERATE, "save_every", 1, 3, "those layers and both ends, of one path")
def iterate_save_every(first, second):
    every, third = (mf.iterate(MEAN, START, 7, dt=0.2, save_every=count) for count in (first, second))
    assert third.times.tolist() == [0, 3, 6, 7]
    np.testing.assert_array_equal(third.log_mass, every.log_mass[[0, 3, 6, 7]])
    np.testing.assert_array_equal(mf.iterate(MEAN, START, 7, dt=0.2).times, every.times)


@row(
    ITERATE,
    "impl",
    "auto",
    "reference",
    "the form chosen for many cells moves the density as the dense definition does",
)
def iterate_impl(first, second):
    runs = [mf.iterate(kd.Dynamics(kd.krause(0.4)), START, 3, impl=name) for name in (first, second)]
    assert runs[0].meta["impl"] != runs[1].meta["impl"] == second
    np.testing.assert_allclose(np.exp(runs[0].log_mass), np.exp(runs[1].log_mass), atol=1e-12)


def quantiles_contract(density, run, rate, t):
    start = density.quantiles(len(run.final))
    np.testing.assert_array_equal(run[0], start)
    mean = start.mean(axis=0)
    # RK4 at dt = 0.05 and rates up to 2: (2 dt)^4 / 120 a unit of time.
    np.testing.assert_allclose(run.final, mean + np.exp(-rate * t) * (start - mean), atol=1e-5)


@row(FOLLOW, "dynamics", MEAN, TWICE, "quantiles contract to their mean as e^-t, with values doubled as e^-2t")
def follow_dynamics(first, second):
    for dynamics, rate in ((first, 1.0), (second, 2.0)):
        quantiles_contract(START, mf.follow(dynamics, START, 1.0, count=51), rate, 1.0)
    with pytest.raises(ValueError, match="noise"):
        mf.follow(kd.Dynamics(kd.Interaction(kd.Flat()), noise=0.1), START, 1.0)


@row(
    FOLLOW,
    "density",
    START,
    mf.uniform(mf.LineCells(50, 0.0, 2.0), mass=3.0),
    "starts from its quantiles, with its mass in equal parts",
)
def follow_density(first, second):
    for density in (first, second):
        run = mf.follow(MEAN, density, 1.0, count=21)
        quantiles_contract(density, run, 1.0, 1.0)
        np.testing.assert_allclose(np.exp(run.log_mass), density.total / 21, rtol=1e-13)
    np.testing.assert_allclose(run[0][:, 0], 2 * (np.arange(21) + 0.5) / 21, rtol=1e-13)


@row(FOLLOW, "t_end", 0.5, 2.0, "ends there, contracted by e^-t")
def follow_t_end(first, second):
    for end in (first, second):
        run = mf.follow(MEAN, START, end, count=21)
        assert run.times[-1] == end
        quantiles_contract(START, run, 1.0, end)


@row(
    FOLLOW, "count", 1001, 21, "so many quantiles at levels (k + 1/2)/count; an odd number has the median in the middle"
)
def follow_count(first, second):
    for count in (first, second):
        run = mf.follow(MEAN, WIDE, 0.1, count=count)
        np.testing.assert_allclose(run[0][:, 0], 3 * (np.arange(count) + 0.5) / count, rtol=1e-12)
        assert run[0][count // 2, 0] == 1.5
    assert mf.follow(MEAN, WIDE, 0.1).positions.shape[1] == first


@row(
    FOLLOW,
    "rest",
    {},
    {"dt": 1.0, "integrator": kd.Euler()},
    "reaches simulate: one step of Euler of length 1 takes all to the mean",
)
def follow_rest(first, second):
    assert len(mf.follow(MEAN, START, 1.0, count=21, **first)) == 21
    run = mf.follow(MEAN, START, 1.0, count=21, **second)
    assert len(run) == 2
    np.testing.assert_allclose(run.final, run[0].mean(), atol=1e-13)


def as_agents(density, radius, count=201, **options):
    """The Hegselmann-Krause run of the quantiles."""
    return kd.hegselmann_krause(density.quantiles(count), radius, **options)


def settles(name, first, second):
    for value in (first, second):
        given = {"density": WIDE, "radius": 0.5, "count": 201} | {name: value}
        found, run = mf.settle(**given), as_agents(**given)
        known = kd.final_clusters(run)
        assert found.frozen
        assert found.steps == run.steps
        np.testing.assert_allclose([c.position for c in found.clusters], known.positions[:, 0], rtol=1e-12)
        np.testing.assert_allclose([c.mass for c in found.clusters], known.masses, rtol=1e-12)


for name, first, second in (("density", WIDE, ASIDE), ("radius", 0.5, 0.9), ("count", 201, 64)):
    states = f"clusters and steps are those of kd.hegselmann_krause on the quantiles, with that {name}"
    row(SETTLE, name, first, second, states)(partial(settles, name))


@row(SETTLE, "max_steps", 1_000_000, 2, "frozen well before a million steps, or given up after two of them")
def settle_max_steps(first, second):
    whole, short = (mf.settle(WIDE, 0.5, count=201, max_steps=most) for most in (first, second))
    assert (whole.frozen, whole.steps) == (True, as_agents(WIDE, 0.5).steps)
    assert (short.frozen, short.steps) == (False, second)


def read_back(run):
    """The run after a file."""
    with tempfile.TemporaryDirectory() as folder:
        return kd.Trajectory.load(run.save(Path(folder) / "run"))


RUNS = mf.iterate(MEAN, START, 3, dt=0.2), mf.solve(MEAN, ASIDE, 0.2, save_at=3)


@row(
    "kd.mean_field.density_at",
    "trajectory",
    *RUNS,
    "the density of a run, the one given at the start, also from a file; particles are refused",
)
def density_at(first, second):
    for run, start in ((first, START), (second, ASIDE)):
        for given in (run, read_back(run)):
            state = mf.density_at(given, 0)
            assert state.cells == start.cells
            np.testing.assert_allclose(state.mass, start.mass, rtol=1e-14)
    with pytest.raises(ValueError, match="mean_field"):
        mf.density_at(mf.follow(MEAN, START, 0.1, count=5))


@row("kd.mean_field.density_at", "index", -1, 1, "which saved time: the last by default, with the masses of then")
def density_at_index(first, second):
    for index in (first, second):
        np.testing.assert_allclose(mf.density_at(RUNS[0], index).mass, np.exp(RUNS[0].log_mass[index]), rtol=1e-15)
    np.testing.assert_array_equal(mf.density_at(RUNS[0]).mass, mf.density_at(RUNS[0], first).mass)
