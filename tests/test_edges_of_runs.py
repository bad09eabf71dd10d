"""Runs and spaces at the edges: equality, one moment, the state that is replaced, the last place of a period."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics.runs.recording import Every, Record
from krause_dynamics.runs.stopping import MOVED


def test_a_time_has_come_up_to_rounding():
    rule, x = kd.stopping.AtTime(2.0), np.zeros((1, 1))
    edge = 2.0 * (1 - MOVED)
    assert rule(edge, x, x) == rule(2.0, x, x) == rule(3.0, x, x) == "time"
    assert rule(np.nextafter(edge, 0.0), x, x) is None


PAIR, FAR_PAIR = [[1.6, 0.7], [1.6, -0.7]], [[3.0, 0.7], [3.0, -0.7]]


@pytest.mark.parametrize(
    ("groups", "settled"),
    [
        # No two particles of different groups are within 1.5, but a mean may come within it of the other's ball.
        ([[[0.0, 0.0]], PAIR], False),
        ([[[0.0, 0.7], [0.0, -0.7]], PAIR], False),
        ([[[0.0, 0.0]], FAR_PAIR], True),  # 3 - 0.7 > 1.5
        ([[[0.0, 0.7], [0.0, -0.7]], FAR_PAIR], True),  # 3 - 1.4 > 1.5
        ([[[0.0, 0.0]]], True),
        ([[[0.0, 0.0], [0.0, 1.5]]], True),
        ([[[0.0, 0.0], [0.0, 1.5], [0.0, 3.0]]], False),  # the ends do not hear each other
    ],
)
def test_groups_have_settled_when_their_balls_are_out_of_reach(groups, settled):
    rule = kd.stopping.ClustersSettled(1.5)
    for order in permutations(groups):
        x = np.concatenate([np.array(group) for group in order])
        for points in (x, np.concatenate([x, x[:1]]), x[:, ::-1]):
            assert (rule(0.0, points, points) is not None) == settled


def test_groups_on_a_line_have_settled_when_each_spans_at_most_the_radius():
    rule = kd.stopping.ClustersSettled(1.0)
    for places, settled in (([0, 1], True), ([0, 0.75, 1.5], False), ([0, 0.5, 1, 2.25], True), ([0, 1, 2], False)):
        x = np.array(places, dtype=float)[::-1, None]
        assert (rule(0.0, x, x) is not None) == settled


def test_a_state_at_the_time_of_the_last_replaces_it_and_never_the_first():
    x = np.arange(3.0)[:, None]
    record = Record(0.0, x, Every(1))
    assert not record.add(0.0, x + 1)
    np.testing.assert_array_equal(record.stacked(), [x])
    assert record.add(1.0, x + 2)
    assert not record.add(1.0, x + 3)
    np.testing.assert_array_equal(record.stacked(), [x, x + 3])
    assert record.times == [0.0, 1.0]


def test_of_a_run_with_functions_the_first_and_the_last_state_are_kept():
    x = np.arange(3.0)[:, None]
    record = Record(0.0, x, Every(1), save={"sum": lambda x: float(x.sum())})
    for time in (1.0, 2.0, 3.0):
        record.add(time, x + time)
    np.testing.assert_array_equal(record.stacked(), [x, x + 3])
    assert record.times == [0.0, 1.0, 2.0, 3.0]


SPACES = [kd.Torus(3.0), kd.Interval(-1.0, 2.0), kd.Interval(1.0, 2.0)]


@pytest.mark.parametrize("space", SPACES)
def test_samples_fill_the_whole_box(space):
    x = space.sample(2000, 2, 0)
    low = getattr(space, "lower", 0.0)
    high = getattr(space, "upper", 3.0)
    assert x.shape == (2000, 2)
    # Of 2000 uniform points the extremes lie within a hundredth of the side but for a chance of e^-20.
    np.testing.assert_allclose(x.min(axis=0), low, atol=0.01 * (high - low))
    np.testing.assert_allclose(x.max(axis=0), high, atol=0.01 * (high - low))
    assert (x >= low).all()
    assert (x <= high).all()


def test_a_dynamics_called_is_its_drift_projected_unless_told_otherwise():
    x = kd.Sphere().sample(5, 3, 0)
    dynamics = kd.Dynamics(kd.softmax(1.0), kd.Sphere())
    np.testing.assert_array_equal(dynamics(0.0, x), dynamics.drift(0.0, x, project=True))
    np.testing.assert_allclose((dynamics(0.0, x) * x).sum(-1), 0.0, atol=1e-15)
    np.testing.assert_array_equal(dynamics(0.0, x, project=False), dynamics.drift(0.0, x, project=False))
    assert np.abs((dynamics(0.0, x, project=False) * x).sum(-1)).max() > 0.1


def test_the_former_flow_of_a_dynamics_is_bound_to_the_form_asked_for():
    x = np.zeros((3, 2))
    with pytest.warns(DeprecationWarning, match="now Dynamics.bind"):
        assert kd.Dynamics(kd.krause(1.0)).flow(x, impl="reference").impl == "reference"
    with pytest.warns(DeprecationWarning, match="now Dynamics.bind"):
        assert kd.Dynamics(kd.krause(1.0)).flow(x, impl="blocked").impl == "blocked"


def test_initial_states_have_one_coordinate_unless_told_otherwise():
    for draw in (kd.initial.uniform, kd.initial.gaussian):
        assert draw(4, rng=0).shape == (4, 1)
    assert kd.initial.equally_spaced(4).shape == kd.initial.dumbbell(1).shape == (4, 1)
    for box in ({"low": np.nan}, {"high": np.inf}, {"low": 1.0}, {"low": 2.0, "high": 1.0}):
        for draw in (partial(kd.initial.uniform, rng=0), kd.initial.equally_spaced):
            with pytest.raises(ValueError, match="low|high"):
                draw(4, **box)


@pytest.mark.parametrize("absent", [7.0, np.nan])
@pytest.mark.parametrize("stop", [kd.stopping.Consensus(1e-3), kd.stopping.Frozen(), kd.stopping.ClustersSettled(0.5)])
@pytest.mark.parametrize("batch", [False, True])
def test_stop_rules_do_not_wait_for_who_is_absent(batch, stop, absent):
    """Padding, wherever it is or whatever it holds, ends a run where the run of those present ends."""
    present, rule = np.array([[0.0], [0.2], [0.3]]), kd.Dynamics(kd.bounded_confidence(0.5))
    ended = kd.simulate(rule, present, 9.0, dt=1.0, integrator=kd.Euler(), stop=stop | kd.stopping.AtTime(8.0))
    x, log_mass = np.append([[absent]], present, axis=0), np.log([1e-300, 1 / 3, 1 / 3, 1 / 3])
    log_mass[0] = -np.inf
    x = np.stack([x, x]) if batch else x
    padded = kd.simulate(
        rule, x, 9.0, dt=1.0, integrator=kd.Euler(), stop=stop | kd.stopping.AtTime(8.0), log_mass=log_mass
    )
    assert ended.meta["stopped"] not in ("t_end", "time")
    assert (padded.meta["stopped"], padded.times[-1]) == (ended.meta["stopped"], ended.times[-1])
