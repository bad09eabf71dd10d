"""What surrounds a run: Event, Trajectory, SimulationDiverged."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

ALONE = kd.Interaction(kd.Flat(), kd.Window(1))
TURN = kd.Dynamics(ALONE, external=lambda t, x: x[:, ::-1] * np.array([-1.0, 1.0]))  # (cos t, sin t) from (1, 0)
START = np.array([[1.0, 0.0]])


def height(t, x):
    return float(x[0, 1])


def half(t, x):
    return float(x[0, 0]) - 0.5


def turned(*events, t_end=7.0):
    return kd.simulate(TURN, START, t_end, events=events)


# RK4 and the cubic between its states are off by dt^4 = 6e-6 at dt = 0.05.
NEAR = {"rtol": 0, "atol": 1e-5}


@row(
    "kd.Event",
    "function",
    height,
    half,
    "on the circle sin crosses 0 at pi and 2 pi, cos crosses 1/2 at pi/3 and 5 pi/3",
)
def event_function(first, second):
    for function, times in ((first, [np.pi, 2 * np.pi]), (second, [np.pi / 3, 5 * np.pi / 3])):
        np.testing.assert_allclose(turned(kd.Event(function)).extras["event_event"], times, **NEAR)
    with pytest.raises(TypeError, match="function"):
        kd.Event(0.5)


@row(
    "kd.Event",
    "name",
    "event",
    "noon",
    "times are kept under event_<name>, and a terminal one is the reason of the end",
)
def event_name(first, second):
    for name in (first, second):
        run = turned(kd.Event(half, name=name, terminal=True))
        assert list(run.extras) == [f"event_{name}"]
        assert run.meta["stopped"] == f"event: {name}"
    both = turned(kd.Event(half), kd.Event(height, name=second))
    assert set(both.extras) == {f"event_{first}", f"event_{second}"}


@row(
    "kd.Event",
    "terminal",
    False,
    True,
    "the run goes on to t_end, or ends at the first crossing with the state of then",
)
def event_terminal(first, second):
    assert turned(kd.Event(half, terminal=first)).times[-1] == 7.0
    assert turned(kd.Event(half)).times[-1] == 7.0
    ended = turned(kd.Event(half, terminal=second))
    np.testing.assert_allclose(ended.times[-1], np.pi / 3, **NEAR)
    np.testing.assert_allclose(ended.final, [[0.5, np.sqrt(0.75)]], **NEAR)


@row(
    "kd.Event",
    "direction",
    -1,
    1,
    "downward crossings alone (cos at pi/3), upward ones alone (5 pi/3), both by default",
)
def event_direction(first, second):
    for direction, times in ((first, [np.pi / 3]), (second, [5 * np.pi / 3]), (0, [np.pi / 3, 5 * np.pi / 3])):
        found = turned(kd.Event(half, direction=direction)).extras["event_event"]
        np.testing.assert_allclose(found, times, **NEAR)


TIMES = np.array([0.0, 0.5, 2.0])
STATES = np.random.default_rng(51).standard_normal((3, 4, 2))
SHARES = np.log(np.random.default_rng(52).random((3, 4)))


def read_back(run):
    """The run after a file."""
    with tempfile.TemporaryDirectory() as folder:
        return kd.Trajectory.load(run.save(Path(folder) / "run"))


@row(
    "kd.Trajectory",
    "times",
    TIMES,
    TIMES + 1.0,
    "the labels of the states: in slices, files and Datasets; one for each state",
)
def times(first, second):
    for given in (first, second):
        run = kd.Trajectory(given, STATES)
        np.testing.assert_array_equal(read_back(run).times, given)
        np.testing.assert_array_equal(run[1:].times, given[1:])
        at = run.to_xarray().positions.sel(time=given[1])
        np.testing.assert_array_equal(at, STATES[1])
    with pytest.raises(ValueError, match="times"):
        kd.Trajectory(first[:2], STATES)


@row(
    "kd.Trajectory",
    "positions",
    STATES,
    np.stack([STATES, -STATES], axis=1),
    "indexed by saved time, then runs, particles and dimensions",
)
def positions(first, second):
    for given in (first, second):
        run = kd.Trajectory(TIMES, given)
        assert len(run) == 3
        np.testing.assert_array_equal(run[1], given[1])
        np.testing.assert_array_equal(run.final, given[2])
        np.testing.assert_array_equal(read_back(run).positions, given)
    assert run.to_xarray().positions.dims == ("time", "batch_0", "particle", "dimension")


@row(
    "kd.Trajectory",
    "log_mass",
    SHARES[0],
    SHARES,
    "masses that stay are the same at every time; masses that move are those of the time",
)
def log_mass(first, second):
    for given, moves in ((first, False), (second, True)):
        run = read_back(kd.Trajectory(TIMES, STATES, given))
        for i in range(3):
            np.testing.assert_array_equal(run.log_mass_at(i), SHARES[i if moves else 0])
        np.testing.assert_array_equal(run[1:].log_mass_at(0), SHARES[1 if moves else 0])
        assert run.to_xarray().log_mass.dims == (("time",) if moves else ()) + ("particle",)
    assert kd.Trajectory(TIMES, STATES).log_mass_at(0) is None


@row("kd.Trajectory", "steps", None, 7, "what was counted is read back from a file, whole or nothing")
def steps(first, second):
    for given in (first, second):
        assert read_back(kd.Trajectory(TIMES, STATES, steps=given)).steps == given
    assert kd.Trajectory(TIMES, STATES).steps is first


@row(
    "kd.Trajectory",
    "extras",
    {"own": np.arange(5.0)},
    {"energy": TIMES**2},
    "arrays over the times are sliced with them, others stay whole",
)
def extras(first, second):
    run = read_back(kd.Trajectory(TIMES, STATES, extras=first | second))
    np.testing.assert_array_equal(run.extras["own"], np.arange(5.0))
    np.testing.assert_array_equal(run[1:].extras["energy"], TIMES[1:] ** 2)
    np.testing.assert_array_equal(run[1:].extras["own"], np.arange(5.0))
    np.testing.assert_array_equal(run.to_xarray()["energy"].sel(time=0.5), 0.25)


@row(
    "kd.Trajectory",
    "meta",
    {"axis": "time"},
    {"axis": "layer", "seed": 3},
    "read back equal from a file, and its axis names the first dimension of the Dataset",
)
def meta(first, second):
    for given in (first, second):
        run = read_back(kd.Trajectory(TIMES, STATES, meta=given))
        assert run.meta == given
        assert run.to_xarray().positions.dims[0] == given["axis"]
    with pytest.raises(TypeError):
        read_back(kd.Trajectory(TIMES, STATES, meta=second | {"rule": object()}))


def blown(start):
    """x' = x^2 is infinite at t = 1/start: the exception."""
    growing = kd.Dynamics(ALONE, external=lambda t, x: x**2)
    with pytest.raises(kd.SimulationDiverged) as caught:
        kd.simulate(growing, np.array([[start]]), 3.0, dt=0.01)
    return caught.value


@row(
    "kd.SimulationDiverged",
    "message",
    "too fast",
    "no such state",
    "is what the exception says; that of a run names a way out",
)
def message(first, second):
    for words in (first, second):
        assert str(kd.SimulationDiverged(words, None)) == words
    assert "reduce dt" in str(blown(1.0))


@row(
    "kd.SimulationDiverged",
    "trajectory",
    None,
    kd.Trajectory(TIMES, STATES),
    "is kept; a run that blows up at t = 1/x0 gives the states 1/(1/x0 - t) before",
)
def trajectory(first, second):
    for run in (first, second):
        assert kd.SimulationDiverged("words", run).trajectory is run
    for start in (1.0, 2.0):
        run = blown(start).trajectory
        assert 0.9 / start < run.times[-1] < 1.1 / start  # RK4 jumps over the pole by a few steps
        early = run.times < 0.8 / start
        np.testing.assert_allclose(run.positions[early, 0, 0], 1 / (1 / start - run.times[early]), rtol=1e-4)
