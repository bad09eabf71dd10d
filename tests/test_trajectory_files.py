"""A trajectory is written and read by the ending of its path; both formats hold the same, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd

SPHERE = kd.Sphere()
X0 = SPHERE.sample(5, 3, rng=0)
FLOW = kd.Dynamics(kd.softmax(2.0), SPHERE)
HALF = kd.Event(lambda t, x: t - 0.5, name="half")
NEVER = kd.Event(lambda t, x: 1.0, name="never")


def batch():
    """Two batch axes and masses of their own, padding included."""
    x = np.stack([[SPHERE.sample(5, 3, rng=k) for k in range(2)]] * 3)
    mass = np.log(np.random.default_rng(1).random((3, 2, 5)))
    mass[0, 0, 0] = -np.inf
    return kd.simulate(FLOW, x, 0.2, log_mass=mass)


def density():
    start = kd.mean_field.uniform(kd.mean_field.LineCells(60, 0.0, 3.0))
    rule = kd.Dynamics(kd.bounded_confidence(0.5), kd.Interval(0.0, 3.0))
    return kd.mean_field.iterate(rule, start, 4)


def extras():
    """What other programs may add: whole numbers, truth values, words, one number."""
    held = {
        "labels": np.arange(10).reshape(2, 5),
        "settled": np.array([True, False, True]),
        "names": np.array(["a", "some words"]),
        "single": np.array(0.1),
        "nothing": np.zeros((0, 4), np.float32),
    }
    return kd.Trajectory(np.array([0.0, 0.1 + 0.2]), np.stack([X0, -X0]), extras=held)


RUNS = {
    "events": lambda: kd.simulate(FLOW, X0, 1.0, dt=0.1, events=[HALF, NEVER]),
    "statistics": lambda: kd.simulate(FLOW, X0, 1.0, dt=0.1, save={"r": kd.observables.order_parameter, "x": np.abs}),
    "single precision": lambda: kd.simulate(FLOW, X0.astype(np.float32), 0.2),
    "batch": batch,
    "density": density,
    "opinions": lambda: kd.hegselmann_krause(np.random.default_rng(0).random(30), 0.1, weights=np.arange(1.0, 31.0)),
    "extras": extras,
}


def same(one, other):
    arrays = {"times", "positions", "log_mass"}
    pairs = [(getattr(one, name), getattr(other, name)) for name in sorted(arrays)]
    assert set(one.extras) == set(other.extras)
    pairs += [(one.extras[name], other.extras[name]) for name in one.extras]
    for left, right in pairs:
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    assert (one.steps, one.meta) == (other.steps, other.meta)


@pytest.mark.parametrize("ending", [".npz", ".nc"])
@pytest.mark.parametrize("name", RUNS)
def test_what_is_written_is_read(name, ending, tmp_path):
    run = RUNS[name]()
    path = run.save(tmp_path / f"run{ending}")
    assert path.suffix == ending
    same(kd.Trajectory.load(path), run)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # nothing is left beside it


def test_other_programs_find_the_names_of_all_axes(tmp_path):
    import xarray

    run = RUNS["statistics"]()
    with xarray.open_dataset(run.save(tmp_path / "run.nc")) as dataset:
        assert dataset["positions"].dims == ("time", "particle", "dimension")
        assert dataset["r"].dims == ("saved_time",)
        np.testing.assert_array_equal(dataset["r"].sel(saved_time=0.0), run.extras["r"][0])


def test_another_ending_gets_npz_and_another_file_is_refused(tmp_path):
    run = RUNS["events"]()
    assert run.save(tmp_path / "run.v2").name == "run.v2.npz"
    same(kd.Trajectory.load(tmp_path / "run.v2"), run)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        kd.Trajectory.load(tmp_path / "run.nc")
    (tmp_path / "run.nc").write_text("no netCDF")
    with pytest.raises(ValueError, match=r"must be a file written by Trajectory\.save"):
        kd.Trajectory.load(tmp_path / "run.nc")
    run.to_xarray().drop_vars("positions").to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"must be a file written by Trajectory\.save"):
        kd.Trajectory.load(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError, match="in a folder that exists"):
        run.save(tmp_path / "nowhere" / "run.nc")
    with pytest.raises(ValueError, match=r"netCDF cannot hold .*\.npz"):
        kd.Trajectory(run.times, run.positions, extras={"z": np.array([{}])}).save(tmp_path / "objects.nc")


def test_times_of_events_are_not_cut_where_there_are_as_many_as_states():
    """The mean is (1/3) sin 3t, which crosses 0.1 four times until t = 4; four states are kept."""
    push = lambda t, x: np.full_like(x, np.cos(3 * t))  # noqa: E731
    event = kd.Event(lambda t, x: float(x.mean()) - 0.1, "up")
    moved = kd.Dynamics(kd.bounded_confidence(1.0), external=push)
    run = kd.simulate(moved, np.zeros((2, 1)), 4.0, save_at=[1.0, 2.0], events=[event])
    first, period = np.arcsin(0.3) / 3, 2 * np.pi / 3
    exact = [first, np.pi / 3 - first, first + period, np.pi / 3 - first + period]
    assert len(run) == len(exact)
    np.testing.assert_allclose(run[1:3].extras["event_up"], exact, atol=1e-6)
    assert run.to_xarray().event_up.dims == ("event_up_0",)


def test_what_is_not_over_time_keeps_its_axis_and_single_numbers_are_kept():
    extras = {"first": np.arange(3.0), "share": np.array(0.5), "width": np.arange(3.0)}
    run = kd.Trajectory(np.arange(3.0), np.zeros((3, 2, 1)), extras=extras, meta={"not_over_time": ["first"]})
    assert [run[:2].extras[name].size for name in extras] == [3, 1, 2]
    labelled = run.to_xarray()
    assert [labelled[name].dims for name in extras] == [("first_0",), (), ("time",)]


def test_statistics_are_not_named_as_events():
    with pytest.raises(ValueError, match=r"save must name statistics otherwise than .*event_"):
        kd.simulate(kd.Dynamics(kd.krause(1.0)), np.zeros((2, 1)), 1.0, save={"event_x": np.mean})
