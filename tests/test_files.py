"""Writing: whole files only, every writer its own, links and permissions kept; reading: one class of error."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from krause_dynamics import _files
from krause_dynamics._files import marks

RUN = kd.simulate(kd.Dynamics(kd.softmax(1.0)), np.array([[0.0], [1.0]]), 0.2, dt=0.1)


@pytest.mark.parametrize("ending", [".npz", ".nc"])
def test_links_and_permissions_stay(ending, tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / f"a{ending}", tmp_path / f"link{ending}"
    RUN.save(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~_mask()
    target.chmod(0o640)
    link.symlink_to(target)
    before = target.read_bytes()
    RUN[:2].save(link)
    assert link.is_symlink()
    assert target.read_bytes() != before
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]


def _mask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_writers_at_once_leave_a_whole_file(tmp_path):
    path, start = tmp_path / "a.npz", threading.Barrier(4)

    def write(number):
        start.wait()
        for _ in range(20):
            _files.write_npz(path, {"number": number}, {"x": np.full(1000, number)})
            header, arrays = _files.read_npz(path)
            assert (arrays["x"] == header["number"]).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = RUN.save(tmp_path / "a.npz")
    before = path.read_bytes()
    with pytest.raises(TypeError), _files.replacing(path) as beside:
        beside.write_text(b"half")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    """A real one: the size of a file is limited to less than what is written, as a disk or a quota limits it."""
    resource = pytest.importorskip("resource")
    target = tmp_path / "a.npz"
    target.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="a.npz") as caught:
            _files.write_bytes(target, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("target", ["a.npz", "another.npz"])  # who was killed may never write the same file again
def test_what_a_killed_writer_left_goes_and_other_files_stay(tmp_path, target):
    number = os.fork()
    if number == 0:
        with _files.replacing(tmp_path / "a.npz"):
            os._exit(0)
    os.waitpid(number, 0)
    (left,) = tmp_path.iterdir()
    host = left.name.split("-")[2]
    elsewhere = tmp_path / left.name.replace(host, f"{int(host, 16) ^ 1:08x}")
    at_work = tmp_path / left.name.replace(str(number), str(os.getpid()))
    for name in (elsewhere.name, at_work.name, ".write-test", "a.npz.part", ".part-mine"):
        (tmp_path / name).write_text("mine")
    RUN.save(tmp_path / target)
    assert left.exists()  # it might be of a process that has just ended
    an_hour_ago = time.time() - 3600
    for path in tmp_path.iterdir():
        os.utime(path, (an_hour_ago, an_hour_ago))
    RUN.save(tmp_path / target)
    assert [path.exists() for path in (left, elsewhere, at_work)] == [False, True, True]
    os.utime(elsewhere, (0, 0))
    RUN.save(tmp_path / target)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [".part-mine", at_work.name, ".write-test", "a.npz.part", target]
    )


def test_pipes_and_devices_are_neither_replaced_nor_waited_for(tmp_path):
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="no regular file"):
        kd.Trajectory.load(pipe)
    with pytest.raises(ValueError, match="no regular file"):
        RUN.save(pipe)
    with pytest.raises(ValueError, match="no regular file"):
        kd.simulate(kd.Dynamics(kd.softmax(1.0)), np.zeros((2, 1)), 0.2, checkpoint="/dev/null")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="must name a file, got the folder"):
        kd.simulate(kd.Dynamics(kd.softmax(1.0)), np.zeros((2, 1)), 0.2, checkpoint=tmp_path)


def test_objects_are_refused_before_they_are_pickled(tmp_path):
    run = kd.Trajectory(RUN.times, RUN.positions, extras={"odd": np.array([None, "x", 1.0], dtype=object)})
    with pytest.raises(ValueError, match="odd must hold numbers or text"):
        run.save(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []
    dynamics, x0 = kd.Dynamics(kd.softmax(1.0)), np.zeros((2, 1))
    with pytest.raises(TypeError, match=r"save must return numbers .*\(saved\)"):
        kd.simulate(dynamics, x0, 0.2, save=lambda x: object())
    for name in ("positions", "saved_times", "times", "log_mass"):
        with pytest.raises(ValueError, match="save must name statistics otherwise"):
            kd.simulate(dynamics, x0, 0.2, save={name: lambda x: x.mean()})


def test_bfloat16_runs_are_saved_and_go_on(tmp_path):
    import torch

    x0 = torch.tensor([[0.0], [0.25], [1.0]], dtype=torch.bfloat16)
    run = kd.simulate(kd.Dynamics(kd.softmax(1.0)), x0, 0.5, dt=0.25, checkpoint=tmp_path / "c.npz")
    again = kd.simulate(kd.Dynamics(kd.softmax(1.0)), x0, 0.5, dt=0.25, checkpoint=tmp_path / "c.npz")
    assert again.final.dtype is torch.bfloat16
    assert torch.equal(run.final, again.final)
    loaded = kd.Trajectory.load(run.save(tmp_path / "r.npz"))
    np.testing.assert_array_equal(loaded.final, run.final.float().numpy())
    assert loaded.meta["dtype"] == "bfloat16"


def test_unit_vectors_of_half_precision_may_start_a_run():
    import torch

    x0 = torch.from_numpy(kd.Sphere().sample(8, 3, 0))
    expected = kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), x0, 0.5, dt=0.1).final
    for dtype, eps in ((torch.bfloat16, 2**-7), (torch.float16, 2**-10)):
        run = kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), x0.to(dtype), 0.5, dt=0.1)
        # Five steps of four stages, each rounded once; the flow contracts.
        torch.testing.assert_close(run.final.double(), expected, atol=20 * eps, rtol=0)
        with pytest.raises(ValueError, match="must hold unit vectors"):
            kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), (1.1 * x0).to(dtype), 0.5, dt=0.1)


def test_a_folder_of_the_cache_is_made_by_one_and_found_by_the_others(tmp_path):
    pytest.importorskip("filelock")
    from krause_dynamics.checkpoints.bundled import make_once

    made, start = [], threading.Barrier(4)
    (tmp_path / "converting-killed").mkdir()

    def convert(folder):
        made.append(folder)
        (folder / "model.safetensors").touch()
        (folder / "tokenizer.json").touch()

    def first_use(_):
        start.wait()
        make_once(tmp_path / "model", convert)
        assert (tmp_path / "model" / "tokenizer.json").exists()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(first_use, range(4)))
    assert len(made) == 1
    assert not list(tmp_path.glob("converting-*"))


@pytest.mark.parametrize("change", ["a number", "the table"])
def test_an_entry_that_is_not_what_its_table_says_is_refused(change, tmp_path):
    """A table of contents with a length and a checksum of 0 fits an empty entry, which numpy hands out as bytes."""
    import struct
    import zipfile

    from krause_dynamics.command.inputs import array_of

    path = tmp_path / "start.npz"
    np.savez(path, x=np.array([0.1, 0.2, 0.3]))
    content = bytearray(path.read_bytes())
    if change == "a number":
        place = content.index(struct.pack("<d", 0.2))
        content[place : place + 8] = struct.pack("<d", 0.7)
    else:
        place = content.index(b"PK\x01\x02")
        content[place + 16 : place + 24] = bytes(8)  # checksum and compressed length
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"start\.npz"):
        array_of("initial.path", str(path), {})
    run = kd.simulate(kd.Dynamics(kd.softmax(1.0)), np.array([[0.1], [0.9]]), 0.1).save(tmp_path / "run.npz")
    with zipfile.ZipFile(run) as archive:
        first = archive.infolist()[0].header_offset
    content = bytearray(run.read_bytes())
    content[first + 200] ^= 1
    run.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.npz"):
        kd.Trajectory.load(run)


def test_a_marked_netcdf_file_is_compared_with_its_mark_and_others_are_read(tmp_path):
    path, rng = tmp_path / "a.nc", np.random.default_rng(0)
    dataset = xarray.Dataset({"x": ("t", np.arange(50.0))})
    _files.write_netcdf(path, dataset)
    whole = path.read_bytes()
    end = len(whole) - marks.MARK.size
    with h5py.File(path) as stored:  # HDF5 reads as far as its own end
        np.testing.assert_array_equal(stored["x"][:], np.arange(50.0))
    for place in [*rng.integers(0, len(whole), 300), end, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.nc is damaged"):
            _files.read_netcdf(path)
    for cut in (0, 1, 30, end // 2, end - 1, end + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"a\.nc is damaged"):
            _files.read_netcdf(path)
    for content in (whole, whole[:end]):  # without a mark it is a file of somebody else, or of an earlier release
        path.write_bytes(content)
        xarray.testing.assert_identical(_files.read_netcdf(path), dataset)
