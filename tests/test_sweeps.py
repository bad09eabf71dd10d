"""Sweeps: labels, seeds, executors, resuming, failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import _files
from krause_dynamics.sweeps import store
from krause_dynamics.sweeps.evaluation import workers_of


def order_and_start(beta, n, rng):
    sphere = kd.Sphere()
    x0 = sphere.sample(n, 3, rng)
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), sphere), x0, 1.0, dt=0.25, save_at=[])
    return {"order": kd.observables.order_parameter(run.final), "start": x0[0]}


POINTS = {"beta": [0.5, 2.0, 8.0], "n": [4, 6]}


def test_labels_seeds_and_values():
    result = kd.sweep(order_and_start, POINTS, seeds=2, rng=5, workers=0)
    assert result["order"].dims == ("beta", "n", "seed")
    assert result["start"].dims == ("beta", "n", "seed", "start_0")
    children = np.random.SeedSequence(5).spawn(2)
    expected = order_and_start(2.0, 6, np.random.default_rng(children[1]))
    point = result.sel(beta=2.0, n=6, seed=1)
    assert float(point["order"]) == expected["order"]
    np.testing.assert_array_equal(result["start"].sel(n=4)[0], result["start"].sel(n=4)[2])  # common random numbers
    assert result.attrs["version"] == kd.__version__
    single = kd.sweep(partial(_square, offset=1.0), {"x": [1.0, 2.0]}, workers=0)
    np.testing.assert_array_equal(single["value"], [[2.0], [5.0]])


def _square(x, rng, offset=0.0):
    return x**2 + offset


def test_every_executor_gives_the_same_numbers():
    here = kd.sweep(order_and_start, POINTS, seeds=2, workers=0)
    processes = kd.sweep(order_and_start, POINTS, seeds=2, workers=2)
    with ThreadPoolExecutor(2) as pool:
        threads = kd.sweep(order_and_start, POINTS, seeds=2, executor=pool)
        assert pool.submit(int, 3).result() == 3  # a given executor stays open
    assert here.identical(processes)
    assert here.identical(threads)


def test_a_dask_cluster_of_two_workers():
    distributed = pytest.importorskip("distributed")
    here = kd.sweep(_square, {"x": [1.0, 2.0, 3.0]}, seeds=2, workers=0)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        there = kd.sweep(_square, {"x": [1.0, 2.0, 3.0]}, seeds=2, executor=client.get_executor())
    assert here.identical(there)


@pytest.mark.parametrize("ending", [".npz", ".nc"])
def test_a_killed_sweep_continues(tmp_path, ending):
    seen: list[float] = []

    flag, path = tmp_path / "lucky", tmp_path / f"sweep{ending}"
    xs = [1.0, 2.0, 3.0]

    def fragile(x, rng):
        if x == 3.0 and not flag.exists():
            raise FloatingPointError("no luck")
        seen.append(x)
        return np.array([x, rng.random()])

    def run():
        return kd.sweep(fragile, {"x": xs}, seeds=2, workers=0, path=path)

    with pytest.raises(RuntimeError, match=r"failed at x=3\.0, seed 0: FloatingPointError: no luck"):
        run()
    finished = len(seen)
    assert finished == 4
    flag.touch()
    result = run()
    assert seen[finished:] == [3.0, 3.0]
    assert result.identical(kd.sweep(_same_as_fragile, {"x": xs}, seeds=2, workers=0).assign_attrs(result.attrs))
    with pytest.raises(ValueError, match="another sweep \\(different: function, parameters, seeds"):
        kd.sweep(_square, {"x": [1.0]}, workers=0, path=path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must be a file written by a sweep"):
        kd.sweep(_square, {"x": [1.0]}, workers=0, path=path)


def test_a_netcdf_file_of_a_sweep_is_its_dataset(tmp_path):
    import xarray

    flag = tmp_path / "lucky"

    def several(x, name, rng):
        if x > 1.5 and name == "b" and not flag.exists():
            raise FloatingPointError("no luck")
        return {"whole": int(x), "near": x < 1.5, "place": np.array([x, 1.0], np.float32), "label": name, "z": x + 1j}

    path, points = tmp_path / "sweep.nc", {"x": [1.0, 2.0], "name": ["a", "b"]}
    with pytest.raises(RuntimeError, match="no luck"):
        kd.sweep(several, points, seeds=2, workers=0, path=path)
    with xarray.open_dataset(path, engine="h5netcdf") as half:
        np.testing.assert_array_equal(half["finished_points"][..., 0], [[True, True], [True, False]])
        assert np.isnan(half["place"].sel(x=2.0, name="b")).all()
        assert half["whole"].dtype == np.int64
    flag.touch()
    result = kd.sweep(several, points, seeds=2, workers=0, path=path)
    with xarray.open_dataset(path, engine="h5netcdf") as whole:
        assert whole.load().identical(result)
    assert result.drop_attrs().identical(kd.sweep(several, points, seeds=2, workers=0).drop_attrs())
    assert [result[name].dtype.kind for name in ("whole", "near", "place", "label", "z")] == list("ibfUc")


def _pressing_ctrl_c(x, rng):
    os.kill(os.getpid(), signal.SIGINT)
    return kd.simulate(kd.Dynamics(kd.krause(1.0)), np.zeros((2, 1)), x, save_at=[]).times[-1]


def test_ctrl_c_never_leaves_a_shortened_run_among_the_results(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        kd.sweep(_pressing_ctrl_c, {"x": [1.0, 2.0]}, workers=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = kd.sweep(_pressing_ctrl_c, {"x": [1.0, 2.0]}, workers=1)  # workers leave Ctrl-C to the parent
    np.testing.assert_array_equal(result["value"][:, 0], [1.0, 2.0])


def _same_as_fragile(x, rng):
    return np.array([x, rng.random()])


def test_progress_and_bad_input():
    seen: list[tuple[float, float]] = []
    kd.sweep(_square, {"x": [1, 2]}, workers=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    for parameters, options, match in (
        ({}, {}, "at least one argument"),
        ({"x": []}, {}, "at least one value"),
        ({"seed": [1]}, {}, "must not be named"),
        ({"x": [1]}, {"seeds": 0}, "seeds must be"),
        ({"x": [1]}, {"seeds": 1.5}, "seeds must be"),
        ({"x": 3}, {}, "a list of values each, got x=3"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            kd.sweep(_square, parameters, workers=0, **options)


def test_points_are_written_when_it_is_time_to(tmp_path, monkeypatch):
    """From the first point on: a file holds what is finished, and the function is not asked for it again."""
    monkeypatch.setattr(store, "WRITE_EVERY", -1.0)
    path, asked = tmp_path / "sweep.npz", []

    def square(x, rng):
        held = len(_files.read_npz(path)[1]["indices"]) if path.exists() else 0
        asked.append((x, held))
        return x**2

    kd.sweep(square, {"x": [1.0, 2.0, 3.0]}, workers=0, path=path)
    assert asked == [(1.0, 0), (2.0, 1), (3.0, 2)]
    np.testing.assert_array_equal(
        kd.sweep(square, {"x": [1.0, 2.0, 3.0]}, workers=0, path=path)["value"][:, 0], [1, 4, 9]
    )
    assert len(asked) == 3


def test_as_many_workers_as_cores_where_the_system_names_no_others(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cores, tasks, expected in ((3, 9, 3), (3, 2, 2), (None, 9, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        with workers_of(None, None, tasks) as pool:
            assert pool._max_workers == expected


def _as_long_as(k, rng):
    return np.zeros(k)


def test_other_shapes_name_the_point_and_keep_the_rest(tmp_path):
    path = tmp_path / "u.npz"
    with pytest.raises(RuntimeError, match=r"at k=2, seed 0: ValueError: results must have the same shape"):
        kd.sweep(_as_long_as, {"k": [1, 1, 2]}, workers=0, path=path)
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["indices"], [0, 1])
    for bad, words in (
        (lambda k, rng: {"ab"[k % 2]: k}, "same names"),
        (lambda k, rng: "a" if k > 1 else 1.0, "text everywhere or nowhere"),
        (lambda k, rng: None, "must be numbers, text or arrays"),
    ):
        with pytest.raises(RuntimeError, match=words):
            kd.sweep(bad, {"k": [1, 2]}, workers=0)


def test_a_place_without_a_folder_is_refused_before_the_first_point(tmp_path):
    calls = []
    with pytest.raises(ValueError, match="in a folder that exists"):
        kd.sweep(lambda a, rng: calls.append(a), {"a": [1.0]}, workers=0, path=tmp_path / "missing" / "x.npz")
    assert calls == []


def test_none_among_numbers_is_nan_and_every_number_is_found(tmp_path):
    def known(beta, rng):
        return -1.0 if beta is None else beta

    result = kd.sweep(known, {"beta": [None, 1.0, 2.0]}, workers=0)
    assert float(result.value.sel(beta=1.0)[0]) == 1.0
    assert np.isnan(result.beta[0])
    mixed = kd.sweep(lambda beta, rng: 0 if beta == "auto" else beta, {"beta": ["auto", 1.0]}, workers=0)
    assert int(mixed.value.sel(beta=1.0)[0]) == 1
    path = tmp_path / "mixed.nc"
    for _ in range(2):
        again = kd.sweep(lambda beta, rng: 2, {"beta": ["auto", 1.0]}, workers=0, path=path)
        assert int(again.value.sel(beta=1.0)[0]) == 2
    path = tmp_path / "s.nc"
    assert kd.sweep(known, {"beta": [None, 1.0]}, workers=0, path=path).identical(
        kd.sweep(known, {"beta": [None, 1.0]}, workers=0, path=path)
    )


KILLED = """
import os, sys, time
import krause_dynamics as kd
def point(a, rng):
    os.write(1, f"{os.getpid()}\\n".encode())  # in one piece, as both write to one pipe
    time.sleep(60)
kd.sweep(point, {"a": [1.0, 2.0]}, workers=2)
"""


def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as parent:
        try:
            workers = [int(parent.stdout.readline()) for _ in range(2)]
        finally:
            parent.kill()
    deadline = time.monotonic() + 20
    while any(_runs(number) for number in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(number) for number in workers)


def _runs(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_is_no_executor_and_no_array_is_said():
    with pytest.raises(TypeError, match=r"executor must be one of concurrent\.futures"):
        kd.sweep(_square, {"x": [1.0]}, executor=np.zeros(2))
    with pytest.raises(TypeError, match="positions must be an array, got list"):
        kd.Trajectory(np.zeros(1), [[[0.0]]])
