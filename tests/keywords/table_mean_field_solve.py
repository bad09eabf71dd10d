"""kd.mean_field.solve: a density drawn to its mean, whose variance falls as e^-2t, and other closed forms."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
SOLVE = "kd.mean_field.solve"
MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))  # drift: mean - x
NOISY = kd.Dynamics(kd.Interaction(kd.Flat()), noise=0.5)
START = mf.gaussian(mf.LineCells(100, -4.0, 4.0), 0.2, 0.6)
# Second order in the width 0.08 of the cells, against deviations of 0.3 and more.
NEAR = {"rel": 0.02}


def variance(run, index=-1):
    return mf.density_at(run, index).variance


@row(
    SOLVE,
    "dynamics",
    MEAN,
    NOISY,
    "variance v e^-2t of the contraction, and v e^-2t + noise^2/2 (1 - e^-2t) with noise",
)
def dynamics(first, second):
    decay = np.exp(-2 * 0.7)
    assert variance(mf.solve(first, START, 0.7)) == pytest.approx(0.36 * decay, **NEAR)
    expected = 0.36 * decay + 0.125 * (1 - decay)
    assert variance(mf.solve(second, START, 0.7)) == pytest.approx(expected, **NEAR)
    with pytest.raises(TypeError, match="dynamics"):
        mf.solve(kd.softmax(), START, 0.7)


@row(
    SOLVE,
    "density",
    START,
    mf.gaussian(mf.LineCells(100, -3.0, 5.0), 1.0, 0.5),
    "keeps the mass and the mean of each start and contracts its variance",
)
def density(first, second):
    for start in (first, second):
        run = mf.solve(MEAN, start, 0.5)
        np.testing.assert_allclose(mf.density_at(run, 0).mass, start.mass, rtol=1e-14)
        end = mf.density_at(run)
        assert end.total == pytest.approx(1.0, rel=1e-13)
        assert end.mean == pytest.approx(start.mean, abs=1e-6)
        assert end.variance == pytest.approx(start.variance * np.exp(-1.0), **NEAR)


@row(SOLVE, "t_end", 0.3, 0.6, "ends there, with the variance v e^-2t")
def t_end(first, second):
    for end in (first, second):
        run = mf.solve(MEAN, START, end)
        assert run.times[-1] == end
        assert variance(run) == pytest.approx(0.36 * np.exp(-2 * end), **NEAR)


COARSE = mf.gaussian(mf.LineCells(30, -3.0, 3.0), 0.2, 0.6)


def orders(runs):
    """Ratio of the changes at two halvings of the step: 2^3 for order 3."""
    one, two, three = (run.log_mass[-1] for run in runs)
    return np.abs(np.exp(one) - np.exp(two)).max() / np.abs(np.exp(two) - np.exp(three)).max()


@row(
    SOLVE,
    "dt",
    None,
    0.02,
    "exactly t_end/dt steps, and halving it divides the change by 2^3; too large a step is refused",
)
def dt(first, second):
    runs = [mf.solve(MEAN, COARSE, 0.4, dt=second / k, save_at=[]) for k in (1, 2, 4)]
    assert [run.steps for run in runs] == [20, 40, 80]
    assert orders(runs) == pytest.approx(8, rel=0.3)
    own = mf.solve(MEAN, COARSE, 0.4, dt=first, save_at=[])
    np.testing.assert_allclose(np.exp(own.log_mass[-1]), np.exp(runs[2].log_mass[-1]), atol=1e-4)
    with pytest.raises(ValueError, match="dt must be at most"):
        mf.solve(MEAN, COARSE, 4.0, dt=1.0)


@row(
    SOLVE,
    "max_dt",
    0.05,
    0.01,
    "no step is longer: at least t_end/max_dt steps, the path of that dt where the cells allow it",
)
def max_dt(first, second):
    short = mf.solve(MEAN, COARSE, 0.4, max_dt=second, save_at=[])
    forced = mf.solve(MEAN, COARSE, 0.4, dt=second, save_at=[])
    assert short.steps == 40
    np.testing.assert_array_equal(short.log_mass, forced.log_mass)
    assert mf.solve(MEAN, COARSE, 0.4, max_dt=first, save_at=[]).steps >= 8
    assert mf.solve(MEAN, COARSE, 0.4, save_at=[]).steps == mf.solve(MEAN, COARSE, 0.4, max_dt=first, save_at=[]).steps


@row(
    SOLVE,
    "save_at",
    101,
    [0.11, 0.3],
    "a number of equal times, or those and both ends; each state has the variance of its time",
)
def save_at(first, second):
    np.testing.assert_allclose(mf.solve(MEAN, COARSE, 0.5, save_at=first).times, np.linspace(0, 0.5, first))
    assert len(mf.solve(MEAN, COARSE, 0.5)) == first
    run = mf.solve(MEAN, START, 0.5, save_at=second)
    np.testing.assert_array_equal(run.times, [0.0, *second, 0.5])
    for index, t in enumerate(run.times):
        assert variance(run, index) == pytest.approx(0.36 * np.exp(-2 * t), **NEAR)


def narrow(t, density, previous):
    assert density.variance < previous.variance
    return "narrow" if density.variance < 0.2 else None


@row(SOLVE, "stop", None, narrow, "ends when the rule, given the density, says so: v e^-2t < 0.2 after t = ln(1.8)/2")
def stop(first, second):
    run = mf.solve(MEAN, START, 2.0, max_dt=0.01, stop=second)
    assert run.meta["stopped"] == "narrow"
    assert run.times[-1] == pytest.approx(np.log(1.8) / 2, abs=0.02)
    whole = mf.solve(MEAN, START, 0.5, stop=first)
    assert (whole.meta["stopped"], whole.times[-1]) == ("t_end", 0.5)


class Heard:
    """A callback that remembers its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, t, density):
        self.calls.append((t, density))


@row(
    SOLVE, "on_save", None, Heard(), "is given every saved time after the first, in order, with the density kept there"
)
def on_save(first, second):
    second.calls.clear()
    mf.solve(MEAN, COARSE, 0.4, save_at=5, on_save=second)
    silent = mf.solve(MEAN, COARSE, 0.4, save_at=5, on_save=first)
    assert [t for t, _ in second.calls] == silent.times[1:].tolist()
    for index, (_, density) in enumerate(second.calls, start=1):
        np.testing.assert_allclose(density.mass, np.exp(silent.log_mass[index]), rtol=1e-13)


@row(
    SOLVE,
    "impl",
    "auto",
    "reference",
    "the convolution, chosen for many cells, moves the density as the dense definition does",
)
def impl(first, second):
    dynamics = kd.Dynamics(kd.krause(0.3), kd.Circle())
    start = mf.von_mises(96, 1.0)
    runs = [mf.solve(dynamics, start, 0.3, impl=name) for name in (first, second)]
    assert [run.meta["impl"] for run in runs] == ["convolution", second]
    # Fourier sums round at 1e-16 of the largest term.
    np.testing.assert_allclose(np.exp(runs[0].log_mass), np.exp(runs[1].log_mass), atol=1e-12)
    with pytest.raises(kd.UnsupportedImplementation):
        mf.solve(dynamics, start, 0.3, impl="sdpa")


@row(
    SOLVE,
    "ring_nodes",
    None,
    2,
    "n nodes of Gauss-Jacobi a latitude: the error falls faster than geometrically to rounding at the default of 16",
)
def ring_nodes(first, second):
    dynamics = kd.Dynamics(kd.softmax(2.0), kd.Sphere())
    start = mf.von_mises(mf.LatitudeCells(24, 3), 1.0)

    def end(nodes):
        return np.exp(mf.solve(dynamics, start, 0.2, save_at=[], ring_nodes=nodes).log_mass[-1])

    exact = end(40)
    errors = [np.abs(end(nodes) - exact).max() for nodes in (second, 4, 8)]
    assert np.abs(end(first) - exact).max() < 1e-14
    assert errors[0] / errors[1] > 10
    assert errors[1] / errors[2] > errors[0] / errors[1]
