"""Rows of `kd.report` for files: what is written is read back, and stands where it was asked for."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import xarray
from rich.console import Console

import krause_dynamics as kd
from krause_dynamics import report
from tests.drawn_lightly import coarse
from tests.keywords.figures import analysis, heights
from tests.keywords.row import row


@row("kd.report.check_folder", "folder", "a", "a/b/c", "the folder exists afterwards, is empty and returned")
def _(first, second):
    with tempfile.TemporaryDirectory() as home:
        for name in (first, second):
            assert list(Path(home).rglob("*")) == [] or name == second
            folder = report.check_folder(str(Path(home) / name))
            assert folder == Path(home) / name
            assert folder.is_dir()
            assert list(folder.iterdir()) == []
        (Path(home) / "file").write_text("in the way")
        with pytest.raises(ValueError, match="out must be a folder that can be written to"):
            report.check_folder(Path(home) / "file")


def read_back(path):
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        return data.load()


@row("kd.report.write_dataset", "dataset", 0, 1, "netCDF that xarray reads back identical, attributes included")
@row("kd.report.write_dataset", "path", "a.nc", "b.nc", "the file of that name alone is written, and its path returned")
def _(first, second):
    with tempfile.TemporaryDirectory() as folder:
        for count, (name, seed) in enumerate((("a.nc", 0), ("b.nc", 1)), start=1):
            data = analysis(seed)[["length", "sink_rate", "clusters"]]
            path = report.write_dataset(data, str(Path(folder) / name))
            assert path == Path(folder) / name
            assert len(list(Path(folder).iterdir())) == count
            xarray.testing.assert_identical(read_back(path), data)


ATTENTION = ["sink_rate", "importance_first", "entropy", "first_token_score", "strongest_key"]
# What is written twice, by all three arguments: the Dataset, the name of the folder, the parameters.
DATA = (analysis(0), analysis(1).drop_vars(ATTENTION))
NAMES = ("a", "b")
PARAMETERS = ({"seed": 3}, {"of": [1, None]})
PICTURES = ({"synchronization", "clusters", "sinks"}, {"synchronization", "clusters"})


@cache  # pictures take long to draw: the rows of a function read the same two folders
def written(write, which):
    """(names of the paths returned, {file: JSON or bytes}, figures) of one of the two."""
    with tempfile.TemporaryDirectory() as home, coarse() as figures:
        folder = Path(home) / NAMES[which]
        folder.mkdir()
        paths = write(DATA[which], str(folder) if which else folder, PARAMETERS[which])
        assert {path.parent for path in paths} == {folder}
        assert [one.name for one in Path(home).iterdir()] == [folder.name]
        files = {
            one.name: json.loads(one.read_text()) if one.suffix == ".json" else one.read_bytes()
            for one in folder.iterdir()
        }
        return [path.name for path in paths], files, figures


def assert_figures(figures, data):
    """Curves, counts and, at the threshold 0.3, rates are those of the Dataset."""
    known = data["order_parameter"].values.mean(axis=0).T
    np.testing.assert_allclose(heights(figures["synchronization"].axes[0])[:2], known)
    counts = data["clusters"].values[1:, :, 1].mean(axis=0).T[::-1]
    np.testing.assert_allclose(heights(figures["clusters"].axes[0]), counts)
    if "sink_rate" in data:
        rates = figures["sinks"].axes[0].images[0].get_array()
        np.testing.assert_array_equal(rates, data["sink_rate"].values[..., 1])


@row("kd.report.write_figures", "dataset", 0, 1, "the figures hold the Dataset's numbers; no sinks without attention")
def _(first, second):
    for which in (first, second):
        _, _, figures = written(report.write_figures, which)
        assert set(figures) == PICTURES[which]
        assert_figures(figures, DATA[which])


@row(
    "kd.report.write_figures", "folder", 0, 1, "pictures and JSON lie there, given as path or name, and none beside it"
)
def _(first, second):
    for which in (first, second):
        paths, files, _ = written(report.write_figures, which)
        assert set(paths) == {f"{name}.png" for name in PICTURES[which]}
        assert set(files) == {f"{name}.{end}" for name in PICTURES[which] for end in ("png", "json")}
        assert all(files[path].startswith(b"\x89PNG") for path in paths)


@row("kd.report.write_figures", "parameters", 0, 1, "each JSON reads back as these and the metadata of the analysis")
def _(first, second):
    assert_parameters(report.write_figures, (first, second))


def assert_parameters(write, both):
    for which in both:
        known = PARAMETERS[which] | {"analysis": json.loads(DATA[which].attrs["meta"])}
        _, files, _ = written(write, which)
        kept = [content for name, content in files.items() if name.endswith(".json")]
        assert kept == [known] * len(PICTURES[which])
    assert PARAMETERS == ({"seed": 3}, {"of": [1, None]})  # they are left as they were


BEGINS = {"pdf": b"%PDF", "svg": b"<?xml"}


@row("kd.report.write_figures", "ending", "pdf", "svg", "every figure is of that kind and so named, its JSON beside it")
@row("kd.report.write_all", "ending", "svg", "pdf", "the figures are of that kind; Dataset and table stay as they are")
def _(first, second):
    for write, ending in ((report.write_figures, first), (report.write_all, second)):
        with tempfile.TemporaryDirectory() as folder, coarse():
            paths = write(DATA[1], folder, {}, ending=ending)
            figures = [path for path in paths if path.suffix not in (".nc", ".txt")]
            assert {path.name for path in figures} == {f"{name}.{ending}" for name in PICTURES[1]}
            assert all(path.read_bytes().startswith(BEGINS[ending]) for path in figures)
            assert all(path.with_suffix(".json").is_file() for path in figures)
        with pytest.raises(ValueError, match="ending must be 'png', 'pdf' or 'svg', got 'gif'"):
            write(DATA[1], ".", {}, ending="gif")


@row("kd.report.write_all", "dataset", 0, 1, "the Dataset, its report as text and its figures are those given")
def _(first, second):
    for which in (first, second):
        _, files, figures = written(report.write_all, which)
        assert_figures(figures, DATA[which])
        stream = StringIO()
        report.print_report(DATA[which], Console(file=stream, width=140))
        assert files["table.txt"].decode() == stream.getvalue()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.nc"
            copy.write_bytes(files["analysis.nc"])
            xarray.testing.assert_identical(read_back(copy), DATA[which])


@row("kd.report.write_all", "folder", 0, 1, "every file lies there, given as path or name, and none beside it")
def _(first, second):
    for which in (first, second):
        paths, files, _ = written(report.write_all, which)
        assert set(paths) == {"analysis.nc", "table.txt"} | {f"{name}.png" for name in PICTURES[which]}
        assert set(files) == set(paths) | {f"{name}.json" for name in PICTURES[which]}


@row("kd.report.write_all", "parameters", 0, 1, "each JSON reads back as these and the metadata of the analysis")
def _(first, second):
    assert_parameters(report.write_all, (first, second))


@row(
    "kd.open", "path", "run.npz", "run.nc", "what was saved: a run is a Trajectory, bit for bit; a sweep is its Dataset"
)
def _(first, second):
    run = kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Circle()), kd.Circle().sample(4, 2, 0), 0.5, dt=0.25)
    with tempfile.TemporaryDirectory() as folder:
        for name in (first, second):
            found = kd.open(run.save(Path(folder) / name))
            assert found.meta == run.meta
            np.testing.assert_array_equal(found.positions, run.positions)
        swept = kd.sweep(lambda beta, rng: 2 * beta, {"beta": [1.0, 2.0]}, path=Path(folder) / "sweep.nc", workers=0)
        xarray.testing.assert_equal(kd.open(Path(folder) / "sweep.nc")[list(swept.data_vars)], swept)
        with pytest.raises(ValueError, match=r"end in \.npz or \.nc, got 'run.txt'"):
            kd.open(Path(folder) / "run.txt")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            kd.open(Path(folder) / "none.nc")
