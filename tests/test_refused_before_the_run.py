"""One kind of argument is never taken for another: what cannot be meant is refused before the first step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import krause_dynamics as kd
import krause_dynamics.mean_field as mf
from krause_dynamics.runs import interrupting

O = np.array([0.0, 0.5, 1.0])
D = kd.Dynamics(kd.bounded_confidence(5.0))
GRID = mf.uniform(mf.LineCells(20, 0.0, 1.0))
LINE = kd.Dynamics(kd.bounded_confidence(0.3), kd.Interval(0.0, 1.0))


def test_a_condition_is_no_event():
    """The width 2 exp(-t) passes 1 at log 2; a condition jumps, and would never be seen to cross zero."""
    x = np.array([[-1.0], [1.0]])
    run = kd.simulate(D, x, 3.0, events=[kd.Event(lambda t, y: np.ptp(y) - 1.0, terminal=True)])
    assert run.times[-1] == pytest.approx(np.log(2), abs=1e-6)
    for value in (lambda y: np.ptp(y) < 1.0, lambda y: True, lambda y: y.ravel(), lambda y: "late", lambda y: None):
        with pytest.raises(TypeError, match="must return a real number that crosses zero"):
            kd.simulate(D, x, 3.0, events=[kd.Event(lambda t, y, value=value: value(y))])
    with pytest.raises(ValueError, match="returned NaN"):
        kd.simulate(D, x, 3.0, events=[kd.Event(lambda t, y: np.nan)])
    tensor = kd.simulate(D, torch.tensor(x), 3.0, events=[kd.Event(lambda t, y: y.max() - 0.5, terminal=True)])
    assert tensor.times[-1] == pytest.approx(np.log(2), abs=1e-6)


def test_a_list_of_agents_is_no_mask():
    for fixed in ([0, 2, 1], np.array([0, 1, 1]), [0.0, 1.0, 1.0], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="fixed must be booleans"):
            kd.Dynamics(kd.softmax(1.0), fixed=fixed)
        with pytest.raises(ValueError, match="fixed must be booleans"):
            kd.hegselmann_krause(O, 0.3, fixed=fixed)
    held = kd.Dynamics(kd.softmax(1.0), fixed=np.isin(np.arange(3), [0, 2, 1]))
    np.testing.assert_array_equal(held.drift(0.0, O), 0.0)


def test_times_within_rounding_of_the_end_are_the_end():
    for save_at in ([0.1, 0.2, 0.1 * 3], np.arange(0, 0.31, 0.1)):
        assert kd.simulate(D, O, 0.3, dt=0.1, save_at=save_at).times.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
        assert mf.solve(LINE, GRID, 0.3, save_at=save_at).times[-1] == 0.3
    for save_at in ([0.1, np.nan], [-0.1], [0.1, 0.30001], [np.inf]):
        with pytest.raises(ValueError, match="between 0 and t_end = 0.3, got"):
            kd.simulate(D, O, 0.3, save_at=save_at)
        with pytest.raises(ValueError, match="between 0 and t_end = 0.3, got"):
            mf.solve(LINE, GRID, 0.3, save_at=save_at)


def test_counts_are_known_before_anything_is_allocated():
    for call in (
        lambda: kd.simulate(D, O, 1e300),
        lambda: kd.simulate(D, O, 1e9, dt=1e-6, save_at=[]),
        lambda: kd.simulate(D, O, 1e9, dt=1.0),
        lambda: mf.solve(LINE, GRID, 1e300),
        lambda: mf.solve(LINE, GRID, 1.0, save_at=10**12),
    ):
        with pytest.raises(ValueError, match="more than the limit of"):
            call()


def test_what_cannot_be_called_is_found_before_the_run():
    for name in ("stop", "on_save", "progress"):
        for call in (
            lambda **more: kd.simulate(D, O, 1.0, **more),
            lambda **more: kd.hegselmann_krause(O, 0.3, **more),
            lambda **more: mf.solve(LINE, GRID, 0.1, **more),
            lambda **more: mf.iterate(LINE, GRID, 2, **more),
        ):
            with pytest.raises(TypeError, match=f"{name} must be a function, got 3"):
                call(**{name: 3})
    for name in ("external", "read"):
        with pytest.raises(TypeError, match=f"{name} must be a function"):
            kd.Dynamics(kd.softmax(1.0), **{name: 3})


def test_messages_say_the_way_out():
    for call in (lambda: kd.simulate(kd.krause(0.5), O, 12.0), lambda: mf.solve(kd.krause(0.5), GRID, 1.0)):
        with pytest.raises(TypeError, match=r"wrap the rule: kd.Dynamics\(rule"):
            call()
    run = kd.simulate(D, O, 0.1)
    for call in (kd.clusters.find, lambda points, radius: kd.clusters.curve(points, [radius])):
        with pytest.raises(TypeError, match=r"pass run.final"):
            call(run, 0.05)


def test_clusters_and_drift_read_what_simulate_reads():
    for points in ([0.0, 0.5, 1.0], pd.Series(O), pd.DataFrame({"x": O}), [0, 1, 3], np.matrix(O).T, O.astype(">f8")):
        assert kd.clusters.find(points, 1.2).sizes.max() == (2 if points is not None and np.max(points) == 3 else 3)
        column = np.asarray(points, float).reshape(-1, 1)
        np.testing.assert_allclose(D.drift(0.0, points), column.mean() - column, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_means_of_cosines_keep_their_bound(dtype, rng):
    for n, d in ((1000, 7), (1024, 64), (3, 2)):
        same = np.repeat(rng.normal(size=(1, d)), n, axis=0).astype(dtype)
        for value in (kd.observables.mean_cosine(same), kd.observables.order_parameter(same)):
            assert 1 - 1e-6 < value <= 1.0
        cloud = rng.normal(size=(n, d)).astype(dtype)
        exact = kd.observables.mean_cosine(cloud.astype(np.float64))
        assert kd.observables.mean_cosine(cloud) == pytest.approx(exact, abs=2e-8 + 1e-7 * abs(exact))


@pytest.mark.parametrize("schedule", [kd.Sequential("random"), kd.Synchronous()])
def test_a_signal_inside_a_long_step_gives_it_up(schedule, monkeypatch, tmp_path, rng):
    """The run goes on from where the step began, to the numbers of a run that nobody stopped."""
    x, calls = rng.random(30), []
    stiff = isinstance(schedule, kd.Synchronous)

    def run(**more):
        if stiff:
            return kd.simulate(kd.Dynamics(kd.krause(0.5)), x, 1.0, dt=0.25, integrator=kd.Stiff(), **more)
        return kd.hegselmann_krause(x, 0.2, schedule=schedule, rng=0, max_steps=20, **more)

    whole = run()
    with monkeypatch.context() as patch:
        patch.setattr(interrupting, "asked", lambda: calls.append(1) or len(calls) == (60 if stiff else 3))
        part = run(checkpoint=tmp_path / "run.npz")
    assert part.meta["stopped"] == "interrupted"
    assert part.times[-1] < whole.times[-1]
    again = run(checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(again.positions, whole.positions)
