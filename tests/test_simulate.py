"""The loop: what is kept, when it stops, statistics, events, checkpoint files, Ctrl-C, and bad input."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import _files
from krause_dynamics import _progress as progress
from krause_dynamics._progress import ProgressBar

SPHERE = kd.Sphere()
X0 = SPHERE.sample(6, 3, rng=0)
FLOW = kd.Dynamics(kd.softmax(2.0), SPHERE)


def test_saves_on_the_grid_and_at_the_end():
    run = kd.simulate(FLOW, X0, 1.03, dt=0.1, save_every=3)
    np.testing.assert_allclose(run.times, [0, 0.3, 0.6, 0.9, 1.03], atol=1e-15)
    assert run.steps == 11
    assert run.times[-1] == 1.03
    assert len(run) == 5
    assert run.meta["stopped"] == "t_end"


def test_saves_at_times_asked_for():
    run = kd.simulate(FLOW, X0, 2.0, dt=0.1, save_at=[0.25, 1.0, 0.25])
    np.testing.assert_array_equal(run.times, [0, 0.25, 1.0, 2.0])
    fine = kd.simulate(FLOW, X0, 2.0, dt=0.01, save_at=[0.25])
    np.testing.assert_allclose(run[1], fine[1], atol=1e-5)
    assert kd.simulate(FLOW, X0, 2.0, save_at=[]).positions.shape == (2, 6, 3)


def test_whole_steps_use_dt_itself():
    """A loop written by hand gives the same bits: times are multiples, never sums, and never change the step."""
    x, flow = X0, FLOW.bind(X0)
    for k in range(30):
        x = kd.RK4().step(flow, k * 0.1, x, 0.1)
    np.testing.assert_array_equal(kd.simulate(FLOW, X0, 3.0, dt=0.1, save_every=7).final, x)


def test_batches_equal_single_runs(library):
    batch = np.stack([SPHERE.sample(6, 3, rng=s) for s in range(4)]).reshape(2, 2, 6, 3)
    beta = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])  # one per run
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), SPHERE), library(batch), 1.0, dt=0.1)
    for i in range(2):
        for j in range(2):
            one = kd.simulate(kd.Dynamics(kd.softmax(float(beta[i, j, 0])), SPHERE), batch[i, j], 1.0, dt=0.1)
            np.testing.assert_allclose(np.asarray(run.positions)[:, i, j], one.positions, atol=1e-12)


def test_padding_is_never_looked_at(library):
    padded = np.concatenate([X0, np.full((2, 3), np.nan)])
    log_mass = np.log(np.array([1, 2, 1, 1, 3, 1, 1, 1.0]))
    log_mass[6:] = -np.inf
    for impl in ("reference", "blocked"):
        run = kd.simulate(FLOW, library(padded), 1.0, dt=0.1, log_mass=library(log_mass), impl=impl)
        alone = kd.simulate(FLOW, X0, 1.0, dt=0.1, log_mass=log_mass[:6])
        np.testing.assert_allclose(np.asarray(run.final)[:6], alone.final, atol=1e-12)
    method = kd.Adaptive(1e-9, 1e-9)
    run = kd.simulate(FLOW, library(padded), 1.0, log_mass=library(log_mass), integrator=method)
    np.testing.assert_allclose(np.asarray(run.final)[:6], alone.final, atol=1e-6)  # RK4 at 0.1


def test_statistics_instead_of_states(tmp_path):
    save = {"order": kd.observables.order_parameter, "first": lambda x: x[0]}
    run = kd.simulate(FLOW, X0, 2.0, dt=0.1, save=save)
    states = kd.simulate(FLOW, X0, 2.0, dt=0.1)
    assert run.positions.shape == (2, 6, 3)
    np.testing.assert_array_equal(run.final, states.final)
    np.testing.assert_array_equal(run.extras["saved_times"], states.times)
    np.testing.assert_array_equal(run.extras["order"], [kd.observables.order_parameter(x) for x in states])
    np.testing.assert_array_equal(run.extras["first"], states.positions[:, 0])
    dataset = run.to_xarray()
    assert dataset["order"].dims == ("saved_time",)
    assert dataset["first"].shape == (21, 3)
    again = kd.Trajectory.load(run.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.extras["order"], run.extras["order"])
    with pytest.raises(TypeError, match="save must be a function"):
        kd.simulate(FLOW, X0, 1.0, save={"order": 3})


def test_stop_rules_end_a_run_with_their_reason():
    run = kd.simulate(FLOW, X0, 50.0, dt=0.1, stop=lambda t, x, previous: "late" if t > 1 else None, save_at=[])
    assert run.meta["stopped"] == "late"
    np.testing.assert_allclose(run.times, [0, 1.1])


def test_events_are_located_inside_steps():
    """One particle drawn to 0: x = e^{-t} crosses 1/2 at ln 2; interpolation error of order dt^4."""
    pulled = kd.Dynamics(kd.bounded_confidence(1.0), external=lambda t, x: -x)
    half = kd.Event(lambda t, x: float(x[0, 0]) - 0.5, name="half")
    tenth = kd.Event(lambda t, x: float(x[0, 0]) - 0.1, name="tenth", terminal=True, direction=-1)
    never = kd.Event(lambda t, x: float(x[0, 0]) - 0.3, name="never", direction=1)
    errors = []
    for dt in (0.2, 0.1):
        run = kd.simulate(pulled, np.ones((1, 1)), 9.0, dt=dt, events=[half, tenth, never])
        errors.append(abs(run.extras["event_half"][0] - np.log(2)))
        assert run.meta["stopped"] == "event: tenth"
        assert abs(run.times[-1] - np.log(10)) < 1e-4
        assert run.extras["event_never"].size == 0
    assert errors[1] < 1e-5
    assert errors[0] > 8 * errors[1]
    with pytest.raises(ValueError, match="different names"):
        kd.simulate(pulled, np.ones((1, 1)), 1.0, events=[half, half])
    with pytest.raises(ValueError, match="direction must be"):
        kd.Event(lambda t, x: 0.0, direction=2)


class _Killed(RuntimeError):
    pass


def _killing(when):
    """An on_save that kills the run at one time, as a scheduler would."""

    def on_save(t, x):
        if t >= when:
            raise _Killed

    return on_save


class _Mean:
    """A running statistic with memory."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def __call__(self, x):
        self.total, self.count = self.total + float(x.sum()), self.count + 1
        return np.float64(self.total / self.count)

    def state(self):
        return {"total": self.total, "count": self.count}

    def restore(self, state):
        self.total, self.count = state["total"], state["count"]


CASES = {
    "runge-kutta": (FLOW, {"integrator": kd.RK4()}),
    "adaptive": (FLOW, {"integrator": kd.Adaptive()}),
    "noise": (kd.Dynamics(kd.softmax(2.0), SPHERE, noise=0.3), {"rng": 3}),
    "compiled": (FLOW, {"impl": "compiled"}),
    "stiff": (kd.Dynamics(kd.softmax(5.0, normalised=False), SPHERE), {"integrator": kd.Stiff()}),
}


@pytest.mark.parametrize("save_every", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_resumes_bit_for_bit(case, save_every, tmp_path):
    dynamics, options = CASES[case]
    options = {"dt": 0.1, "save_every": save_every, **options}
    through = kd.simulate(dynamics, X0, 3.05, **options)
    statistic = kd.simulate(dynamics, X0, 3.05, save={"mean": _Mean()}, **options)
    for name, save in (("states", None), ("statistics", True)):
        path = tmp_path / name
        killed = {"checkpoint": path, "checkpoint_every": 0.0, **options}
        with pytest.raises(_Killed):
            kd.simulate(dynamics, X0, 3.05, save=save and {"mean": _Mean()}, on_save=_killing(1.7), **killed)
        with np.load(path) as file:
            assert file["times"][-1] > 1.0  # it was written on the way
        run = kd.simulate(dynamics, X0, 3.05, save=save and {"mean": _Mean()}, **killed)
        np.testing.assert_array_equal(run.final, through.final)
        assert run.steps == through.steps
        assert run.meta == through.meta
        if save:
            np.testing.assert_array_equal(run.extras["mean"], statistic.extras["mean"])
        else:
            np.testing.assert_array_equal(run.positions, through.positions)
            np.testing.assert_array_equal(run.times, through.times)
        finished = kd.simulate(dynamics, X0, 3.05, save=save and {"mean": _Mean()}, **killed)  # returns at once
        np.testing.assert_array_equal(finished.final, through.final)
        assert not list(tmp_path.glob("*.part"))


def test_torch_runs_resume_too(tmp_path):
    import torch

    x0, noisy = torch.from_numpy(X0), kd.Dynamics(kd.softmax(2.0), SPHERE, noise=0.3)

    def run(**rest):
        return kd.simulate(noisy, x0, 2.0, dt=0.1, rng=torch.Generator().manual_seed(5), **rest)

    with pytest.raises(_Killed):
        run(checkpoint=tmp_path / "file", checkpoint_every=0.0, on_save=_killing(1.0))
    resumed = run(checkpoint=tmp_path / "file", checkpoint_every=0.0)
    assert isinstance(resumed.final, torch.Tensor)
    assert torch.equal(resumed.positions, run().positions)


def test_a_file_of_another_run_is_refused_and_kept(tmp_path):
    path = tmp_path / "file"
    kd.simulate(FLOW, X0, 1.0, checkpoint=path)
    before = path.read_bytes()
    for other in ({"dt": 0.02}, {"integrator": kd.Euler()}, {"save_every": 2}):
        with pytest.raises(ValueError, match="belongs to another run"):
            kd.simulate(FLOW, X0, 1.0, checkpoint=path, **other)
    with pytest.raises(ValueError, match="different: x0"):
        kd.simulate(FLOW, X0[::-1].copy(), 1.0, checkpoint=path)
    assert path.read_bytes() == before
    broken = tmp_path / "broken"
    broken.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="must be a file written by a run"):
        kd.simulate(FLOW, X0, 1.0, checkpoint=broken)
    assert broken.exists()
    with pytest.raises(ValueError, match="in a folder that exists"):
        kd.simulate(FLOW, X0, 1.0, checkpoint=tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError, match="in a folder that exists"):
        kd.simulate(FLOW, X0, 0.1).save(tmp_path / "nowhere" / "file")
    with pytest.raises(ValueError, match="in a folder that can be written to"):
        kd.simulate(FLOW, X0, 1.0, checkpoint="/proc/file")  # closed to root too
    with pytest.raises(ValueError, match="checkpoint_every"):
        kd.simulate(FLOW, X0, 1.0, checkpoint=path, checkpoint_every=-1)


@pytest.mark.parametrize("save_every", [1, 2])
def test_ctrl_c_keeps_what_there_is_and_the_run_goes_on_later(save_every, tmp_path):
    def interrupt(t, x):
        if t > 0.95 and not interrupted:
            interrupted.append(t)
            os.kill(os.getpid(), signal.SIGINT)

    interrupted: list[float] = []
    options = {"dt": 0.1, "save_every": save_every, "checkpoint": tmp_path / "file", "checkpoint_every": 1e9}
    partial = kd.simulate(FLOW, X0, 2.0, on_save=interrupt, **options)
    assert partial.meta["stopped"] == "interrupted"
    assert 0.9 < partial.times[-1] < 1.3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    complete = kd.simulate(FLOW, X0, 2.0, **options)
    through = kd.simulate(FLOW, X0, 2.0, dt=0.1, save_every=save_every)
    np.testing.assert_array_equal(complete.positions, through.positions)
    assert complete.meta["stopped"] == "t_end"


def test_progress_is_reported_after_every_step_and_drawn(capsys):
    seen: list[tuple[float, float]] = []
    kd.simulate(FLOW, X0, 1.0, dt=0.25, progress=lambda t, t_end: seen.append((t, t_end)))
    assert seen == [(0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)]
    kd.simulate(FLOW, X0, 1.0, dt=0.25, progress=True)
    assert "100%" in capsys.readouterr().err


def test_one_bar_serves_a_whole_run(monkeypatch):
    """It stays open until all is done; closed and opened again it would be drawn once a refresh."""
    opened, bar = [], ProgressBar()
    original = bar._open
    monkeypatch.setattr(bar, "_open", lambda total: opened.append(original(total)) or opened[-1])
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    kd.simulate(FLOW, X0, 1.0, dt=0.25, progress=bar)
    assert len(opened) == 1
    assert opened[0].finished
    assert not opened[0].live.is_started


def test_the_file_of_a_complete_run_holds_all_of_it(tmp_path):
    path = tmp_path / "run.npz"
    run = kd.simulate(FLOW, X0, 1.03, dt=0.1, save_every=3, checkpoint=path)
    header, arrays = _files.read_npz(path)
    assert header["reason"] == run.meta["stopped"] == "t_end"
    np.testing.assert_array_equal(arrays["times"], run.times)
    np.testing.assert_array_equal(arrays["positions"], run.positions)


def test_every_memory_goes_on_from_the_file(tmp_path):
    """A stop rule and a statistic that count their calls, in one run and in two."""

    class Counting:
        def __init__(self, last):
            self.calls, self.last = 0, last

        def __call__(self, *state):
            self.calls += 1
            if len(state) == 3:
                return "enough" if self.calls == self.last else None
            return self.calls

        def state(self):
            return self.calls

        def restore(self, state):
            self.calls = state

    def run(**options):
        stop, save = Counting(9), Counting(0)
        return kd.simulate(FLOW, X0, 2.0, dt=0.1, stop=stop, save=save, save_every=2, **options), stop, save

    whole, *counts = run()
    path = tmp_path / "run.npz"

    def break_off(t, x):
        if t >= 0.5:
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run(checkpoint=path, checkpoint_every=1e-9, on_save=break_off)
    resumed, *again = run(checkpoint=path, checkpoint_every=1e-9)
    assert [part.calls for part in again] == [part.calls for part in counts]
    np.testing.assert_array_equal(resumed.extras["saved"], whole.extras["saved"])
    np.testing.assert_array_equal(resumed.final, whole.final)
    assert resumed.meta["stopped"] == whole.meta["stopped"] == "enough"


def test_divergence_keeps_the_trajectory():
    explosive = kd.Dynamics(kd.bounded_confidence(1.0), external=lambda t, x: x**3)
    with pytest.raises(kd.SimulationDiverged, match="became infinite before") as caught:
        kd.simulate(explosive, np.full((2, 1), 2.0), 9.0, dt=0.1)
    run = caught.value.trajectory
    assert np.isfinite(run.positions).all()
    assert len(run) > 1
    assert run.meta["stopped"] == "diverged"


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"t_end": 0.0}, ValueError, "t_end must be positive"),
        ({"t_end": np.inf}, ValueError, "t_end must be positive and finite"),
        ({"dt": -1.0}, ValueError, "dt must be positive"),
        ({"dt": "0.1"}, TypeError, "dt must hold real numbers"),
        ({"save_every": 0}, ValueError, "save_every must be at least 1"),
        ({"save_every": 0.5}, TypeError, "save_every must be an integer, got 0.5"),
        ({"integrator": kd.RK4}, TypeError, "integrator must be one such as"),
        ({"save_at": [-0.5]}, ValueError, "save_at must lie between 0 and t_end"),
        ({"save_at": [3.0]}, ValueError, "save_at must lie between 0 and t_end"),
        ({"x0": np.full((3, 2), np.nan)}, ValueError, "x0 must be finite"),
        ({"x0": np.ones((3, 3))}, ValueError, "unit vectors"),
        ({"x0": np.ones((0, 3))}, ValueError, "n, d >= 1"),
        ({"x0": np.array(["a"])}, TypeError, "x0 must hold real numbers"),
        ({"log_mass": np.zeros(5)}, ValueError, "log_mass must have shape"),
        ({"log_mass": np.zeros(6, np.float32)}, TypeError, "one dtype"),
        ({"log_mass": np.full(6, np.nan)}, ValueError, "log_mass must hold numbers or -inf"),
        ({"log_mass": np.full(6, np.inf)}, ValueError, "log_mass must hold numbers or -inf"),
        ({"impl": "fast"}, kd.UnsupportedImplementation, "impl must be"),
        ({"rng": "seed"}, TypeError, "rng must be an int seed"),
    ],
)
def test_bad_input_is_named(change, error, match):
    arguments = {"x0": X0, "t_end": 1.0} | change
    with pytest.raises(error, match=match):
        kd.simulate(FLOW, arguments.pop("x0"), arguments.pop("t_end"), **arguments)


@pytest.mark.parametrize(
    "rule", [kd.bounded_confidence(np.ones(5)), kd.softmax(np.ones(7)), kd.krause(np.ones((2, 5)))]
)
def test_a_parameter_for_another_number_of_particles_is_named(rule):
    with pytest.raises(ValueError, match="must be a number or broadcast against"):
        kd.simulate(kd.Dynamics(rule, SPHERE), X0, 1.0)


def test_a_run_that_goes_on_keeps_the_form_that_its_file_names(tmp_path):
    path, options = tmp_path / "file", {"dt": 0.1, "checkpoint": tmp_path / "file", "checkpoint_every": 0.0}
    chosen = kd.simulate(FLOW, X0, 1.0, dt=0.1).meta["impl"]
    named = "reference" if chosen == "blocked" else "blocked"  # what "auto" does not take here
    with pytest.raises(_Killed):
        kd.simulate(FLOW, X0, 1.0, on_save=_killing(0.5), impl=named, **options)
    run = kd.simulate(FLOW, X0, 1.0, **options)
    assert run.meta["impl"] == named
    np.testing.assert_array_equal(run.positions, kd.simulate(FLOW, X0, 1.0, dt=0.1, impl=named).positions)
    with pytest.raises(ValueError, match="different: impl"):
        kd.simulate(FLOW, X0, 1.0, impl=chosen, **options)
    other = kd.Dynamics(kd.bounded_confidence(1.0))  # whose run names a form that FLOW has not
    line = X0[:, :1].copy()
    path.unlink()
    kd.simulate(other, line, 1.0, impl="sorted1d", **options)
    with pytest.raises(ValueError, match="belongs to another run"):
        kd.simulate(FLOW, X0, 1.0, **options)


def test_a_file_of_another_release_is_no_other_run(tmp_path):
    options = {"dt": 0.1, "checkpoint": tmp_path / "file", "checkpoint_every": 0.0}
    with pytest.raises(_Killed):
        kd.simulate(FLOW, X0, 1.0, on_save=_killing(0.5), **options)
    header, arrays = _files.read_npz(tmp_path / "file")
    header["identity"]["version"] = "0.0.1"
    _files.write_npz(tmp_path / "file", header, arrays)
    run = kd.simulate(FLOW, X0, 1.0, **options)
    np.testing.assert_array_equal(run.positions, kd.simulate(FLOW, X0, 1.0, dt=0.1).positions)


class _Pull:
    """An external drift that is an object; its ``repr`` holds an address, which no file must compare."""

    def __call__(self, t, x):
        return -x


def test_a_file_does_not_depend_on_where_a_function_lies_in_memory(tmp_path):
    def run(external, t_end=0.5):
        model = kd.Dynamics(kd.softmax(1.0), SPHERE, external=external)
        return kd.simulate(model, X0, t_end, checkpoint=tmp_path / "file")

    first, second = _Pull(), _Pull()
    np.testing.assert_array_equal(run(first).final, run(second).final)


def test_a_file_that_another_stop_rule_ended_is_refused(tmp_path):
    run = kd.simulate(FLOW, X0, 2.0, stop=kd.stopping.AtTime(1.0), checkpoint=tmp_path / "file")
    again = kd.simulate(FLOW, X0, 2.0, stop=kd.stopping.AtTime(1.0), checkpoint=tmp_path / "file")
    assert run.times[-1] == again.times[-1] == 1.0
    with pytest.raises(ValueError, match="different: stop"):
        kd.simulate(FLOW, X0, 2.0, stop=kd.stopping.AtTime(1.5), checkpoint=tmp_path / "file")


def test_metadata_rebuild_the_run():
    run = kd.simulate(kd.Dynamics(kd.krause(0.5, kd.Window(3)), SPHERE, noise=0.1), X0, 1.0, dt=0.1, rng=7)
    again = kd.simulate(
        kd.from_dict(run.meta["dynamics"]),
        X0,
        run.meta["t_end"],
        dt=run.meta["dt"],
        integrator=kd.from_dict(run.meta["integrator"]),
        rng=run.meta["seed"],
    )
    np.testing.assert_array_equal(again.positions, run.positions)
    assert run.meta["impl"] == "blocked"
    assert (run.meta["library"], run.meta["dtype"]) == ("numpy", "float64")


def test_a_run_in_place_of_a_state_is_refused():
    """Its states would go on side by side, T runs instead of one."""
    dynamics = kd.Dynamics(kd.softmax(1.0), kd.Sphere())
    run = kd.simulate(dynamics, kd.Sphere().sample(4, 3, rng=0), 0.1)
    with pytest.raises(TypeError, match=r"x0 must be one state .*, got a Trajectory; pass run\.final"):
        kd.simulate(dynamics, run, 0.1)
