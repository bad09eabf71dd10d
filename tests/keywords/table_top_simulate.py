"""kd.simulate: most rows on the linear rule "towards the mean of all", x(t) = mean + e^-t (x0 - mean)."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))
TWICE = kd.Dynamics(kd.Interaction(kd.Flat()), value=2 * np.eye(2))
ALONE = kd.Interaction(kd.Flat(), kd.Window(1))
X0 = np.random.default_rng(41).standard_normal((5, 2))
COUNTS = np.array([1, 3, 2, 1, 1])
# RK4 at dt = 0.05 and rates up to 2 is off by (2 dt)^4 / 120 a unit of time: 1e-6.
NEAR = {"rtol": 0, "atol": 1e-5}


def contracted(t, x0=X0, rate=1.0, mean=None):
    mean = x0.mean(axis=-2, keepdims=True) if mean is None else mean
    return mean + np.exp(-rate * t) * (x0 - mean)


@row("kd.simulate", "dynamics", MEAN, TWICE, "contracts to the mean as e^-t, with values doubled as e^-2t")
def dynamics(first, second):
    for given, rate in ((first, 1.0), (second, 2.0)):
        np.testing.assert_allclose(kd.simulate(given, X0, 2.0).final, contracted(2.0, rate=rate), **NEAR)
    with pytest.raises((TypeError, AttributeError)):
        kd.simulate(kd.softmax(), X0, 1.0)


@row(
    "kd.simulate",
    "x0",
    X0,
    np.stack([X0, 3 * X0 + 1]),
    "starts there: each run of a batch, and each number of a list, contracts",
)
def x0(first, second):
    for start in (first, second, first[:, :1]):
        run = kd.simulate(MEAN, start, 1.0)
        np.testing.assert_array_equal(run[0], start)
        np.testing.assert_allclose(run.final, contracted(1.0, start), **NEAR)
    line = kd.simulate(MEAN, first[:, 0].tolist(), 1.0)
    np.testing.assert_array_equal(line.final, run.final)


@row("kd.simulate", "t_end", 1.0, 2.33, "ends exactly there, at mean + e^-t (x0 - mean), also between multiples of dt")
def t_end(first, second):
    for end in (first, second):
        run = kd.simulate(MEAN, X0, end)
        assert run.times[-1] == end
        np.testing.assert_allclose(run.final, contracted(end), **NEAR)


@row("kd.simulate", "dt", 0.2, 0.1, "RK4: halving dt divides the error by 2^4; every multiple is kept")
def dt(first, second):
    runs = [kd.simulate(MEAN, X0, 2.0, dt=step) for step in (first, second)]
    errors = [np.abs(run.final - contracted(2.0)).max() for run in runs]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)  # the next order adds dt/2 = 10 %
    for run, step in zip(runs, (first, second), strict=True):
        np.testing.assert_allclose(np.diff(run.times), step, atol=1e-12)
    np.testing.assert_array_equal(kd.simulate(MEAN, X0, 1.0).times, kd.simulate(MEAN, X0, 1.0, dt=0.05).times)


@row(
    "kd.simulate",
    "integrator",
    None,
    kd.Euler(),
    "a step of Euler multiplies by 1 - dt, of RK4 (the default) by its series",
)
def integrator(first, second):
    z = 0.25
    for method, factor in ((first, 1 - z + z**2 / 2 - z**3 / 6 + z**4 / 24), (second, 1 - z)):
        run = kd.simulate(MEAN, X0, 1.0, dt=z, integrator=method)
        mean = X0.mean(axis=0)
        np.testing.assert_allclose(run.final, mean + factor**4 * (X0 - mean), atol=1e-14)
    with pytest.raises(TypeError, match="integrator"):
        kd.simulate(MEAN, X0, 1.0, integrator="RK4")


@row("kd.simulate", "save_every", 1, 3, "keeps those multiples of dt, and both ends, of one and the same path")
def save_every(first, second):
    every, third = (kd.simulate(MEAN, X0, 1.0, dt=0.1, save_every=count) for count in (first, second))
    np.testing.assert_allclose(every.times, np.arange(11) / 10, atol=1e-12)
    np.testing.assert_allclose(third.times, [0.0, 0.3, 0.6, 0.9, 1.0], atol=1e-12)
    np.testing.assert_allclose(third.positions, every.positions[[0, 3, 6, 9, 10]], atol=1e-15)
    np.testing.assert_array_equal(kd.simulate(MEAN, X0, 1.0, dt=0.1).times, every.times)


@row("kd.simulate", "save_at", None, [0.33, 1.7], "lands on those times and both ends, with the state of then")
def save_at(first, second):
    run = kd.simulate(MEAN, X0, 2.0, save_at=second)
    np.testing.assert_array_equal(run.times, [0.0, *second, 2.0])
    for t, x in zip(run.times, run.positions, strict=True):
        np.testing.assert_allclose(x, contracted(t), **NEAR)
    assert len(kd.simulate(MEAN, X0, 2.0, save_at=first)) == 41
    with pytest.raises(ValueError, match="save_at"):
        kd.simulate(MEAN, X0, 1.0, save_at=second)


def spread(x):
    return x.std(axis=0)


@row(
    "kd.simulate",
    "save",
    None,
    {"spread": spread},
    "keeps the function's values at every saved time, e^-t of the first, instead of states",
)
def save(first, second):
    whole, run = (kd.simulate(MEAN, X0, 1.0, save=kept) for kept in (first, second))
    times = run.extras["saved_times"]
    np.testing.assert_array_equal(times, whole.times)
    np.testing.assert_allclose(run.extras["spread"], np.exp(-times)[:, None] * spread(X0), **NEAR)
    np.testing.assert_array_equal(run.positions, whole.positions[[0, -1]])
    alone = kd.simulate(MEAN, X0, 1.0, save=spread)
    np.testing.assert_array_equal(alone.extras["saved"], run.extras["spread"])


@row(
    "kd.simulate",
    "log_mass",
    None,
    np.log(COUNTS),
    "mass 3 moves the others as three particles do: the mean is weighted",
)
def log_mass(first, second):
    weighted = COUNTS @ X0 / COUNTS.sum()
    run = kd.simulate(MEAN, X0, 1.0, log_mass=second)
    np.testing.assert_allclose(run.final, contracted(1.0, mean=weighted), **NEAR)
    copies = kd.simulate(MEAN, np.repeat(X0, COUNTS, axis=0), 1.0)
    np.testing.assert_allclose(np.repeat(run.final, COUNTS, axis=0), copies.final, atol=1e-12)
    np.testing.assert_allclose(kd.simulate(MEAN, X0, 1.0, log_mass=first).final, contracted(1.0), **NEAR)


@row(
    "kd.simulate",
    "rng",
    7,
    8,
    "one seed one path, as its generator gives; ends of free walks have mean 0 and variance sigma^2 t",
)
def rng(first, second):
    walk = kd.Dynamics(ALONE, noise=0.5)
    start = np.zeros((4000, 1, 1))  # runs of one particle each
    ends = [kd.simulate(walk, start, 4.0, dt=1.0, rng=seed).final for seed in (first, second)]
    again = kd.simulate(walk, start, 4.0, dt=1.0, rng=np.random.default_rng(first)).final
    np.testing.assert_array_equal(again, ends[0])
    for end in ends:  # five standard errors: 1/sqrt(n) of the mean, sqrt(2/n) of the variance
        assert abs(end.mean()) < 5 / np.sqrt(4000)
        assert end.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / 4000))
    assert abs(np.corrcoef(ends[0].ravel(), ends[1].ravel())[0, 1]) < 5 / np.sqrt(4000)
    with pytest.raises(TypeError, match="rng"):
        kd.simulate(walk, start, 1.0)


def near_enough(t, x, previous):
    return "near" if np.ptp(x[:, 0]) < np.ptp(X0[:, 0]) / np.e else None


@row(
    "kd.simulate",
    "stop",
    None,
    near_enough,
    "ends after the first step in which the rule gives a reason: e^-t < 1/e after t = 1",
)
def stop(first, second):
    run = kd.simulate(MEAN, X0, 3.0, dt=0.03, stop=second)
    assert run.meta["stopped"] == "near"
    assert run.times[-1] == pytest.approx(1.02)  # the first multiple of 0.03 beyond 1
    whole = kd.simulate(MEAN, X0, 3.0, dt=0.03, stop=first)
    assert (whole.times[-1], whole.meta["stopped"]) == (3.0, "t_end")


def half(t, x):
    return float(np.ptp(x[:, 0]) / np.ptp(X0[:, 0])) - 0.5


@row(
    "kd.simulate",
    "events",
    (),
    (kd.Event(half, name="half"),),
    "the extent halves at t = ln 2; without events nothing is kept",
)
def events(first, second):
    run = kd.simulate(MEAN, X0, 2.0, events=second)
    np.testing.assert_allclose(run.extras["event_half"], [np.log(2)], atol=1e-5)
    assert kd.simulate(MEAN, X0, 2.0, events=first).extras == {}
    np.testing.assert_array_equal(run.final, kd.simulate(MEAN, X0, 2.0).final)


@row(
    "kd.simulate",
    "impl",
    "auto",
    "blocked",
    "another form, the same path; the name is kept, and one that cannot is refused",
)
def impl(first, second):
    soft = kd.Dynamics(kd.softmax(1.3))
    runs = [kd.simulate(soft, X0, 1.0, impl=name) for name in (first, second)]
    np.testing.assert_allclose(runs[1].positions, runs[0].positions, atol=1e-12)
    assert runs[1].meta["impl"] == second
    with pytest.raises(kd.UnsupportedImplementation):
        kd.simulate(soft, X0, 1.0, impl="sorted1d")
