"""Files written by commit 5d08bbf load, and the runs in them go on to the numbers of a run that never stopped.

The first half of each run was computed by that commit, the rest by this one: 1e-12 covers sums in another order and
vector instructions of another machine, and is far below what a wrong random state or a lost step would do.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics import report
from krause_dynamics.command.app import app
from tests.fixtures.written_at_5d08bbf import cases

ATOL = 1e-12


@pytest.fixture
def copy(tmp_path):
    """A file of the folder as it was written, where a run may replace it."""
    return lambda name: shutil.copy(cases.FOLDER / name, tmp_path / name)


@pytest.mark.parametrize("path", sorted(cases.FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_no_file_holds_a_pickle(path):
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fiuUb" for name in stored.files)


def test_a_run_loads_with_all_that_it_holds():
    old, new = kd.Trajectory.load(cases.FOLDER / "run.npz"), cases.noisy_run()
    np.testing.assert_array_equal(old.times, new.times)
    np.testing.assert_allclose(old.positions, new.positions, rtol=0, atol=ATOL)
    np.testing.assert_array_equal(old.log_mass, cases.MASSES)
    assert old.steps == 16
    assert {name: value for name, value in old.meta.items() if name != "version"} == {
        name: value for name, value in new.meta.items() if name != "version" and name in old.meta
    }
    rule = kd.krause(0.75, kd.Window(5, two_sided=True))
    assert kd.from_dict(old.meta["dynamics"]["rule"]) == rule


def test_a_run_of_statistics_loads():
    old = kd.Trajectory.load(cases.FOLDER / "statistics.npz")
    expected = cases.noisy_run().positions.mean(axis=-2)
    np.testing.assert_allclose(old.extras["mean"], expected, rtol=0, atol=ATOL)
    assert old.to_xarray()["mean"].dims[0] == "saved_time"


@pytest.mark.parametrize(
    ("name", "run", "kept"),
    [
        ("simulate_noisy.npz", cases.noisy_run, 4),
        ("simulate_neighbours.npz", lambda **options: cases.named_run("neighbours", **options), 4),
        ("opinions_classical.npz", cases.classical_opinions, 3),
        ("opinions_in_turn.npz", cases.opinions_in_turn, 4),
    ],
)
def test_half_a_run_goes_on_to_the_numbers_of_a_whole_one(name, run, kept, copy):
    saved = []
    resumed = run(checkpoint=copy(name), on_save=lambda t, x: saved.append(t))
    whole = run()
    np.testing.assert_array_equal(resumed.times, whole.times)
    np.testing.assert_allclose(resumed.positions, whole.positions, rtol=0, atol=ATOL)
    assert resumed.steps == whole.steps
    assert resumed.meta["stopped"] == whole.meta["stopped"]
    # Not started over: a state is written down before or after it is reported, so one of them may come again.
    assert whole.times[kept - 1] <= saved[0] <= whole.times[kept]


def test_a_resumed_run_keeps_the_form_that_its_file_names(copy):
    """The file says `neighbours`; for 24 points on a line ``auto`` would take another."""
    fresh = cases.named_run("auto").meta["impl"]
    assert fresh != "neighbours"
    assert cases.named_run("auto", checkpoint=copy("simulate_neighbours.npz")).meta["impl"] == "neighbours"


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_a_repeated_run_keeps_the_form_that_its_file_names(impl, tmp_path):
    """Whatever ``auto`` takes today: two files that differ in the form alone are each repeated by their own."""
    old = kd.Trajectory.load(cases.FOLDER / "command.npz")
    assert old.meta["configuration"]["run"]["impl"] == "auto"
    replace(old, meta=old.meta | {"impl": impl}).save(tmp_path / "told.npz")
    result = CliRunner().invoke(app, ["simulate", str(tmp_path / "told.npz"), "--out", str(tmp_path / "again.npz")])
    assert result.exit_code == 0, result.output
    again = kd.Trajectory.load(tmp_path / "again.npz")
    assert again.meta["impl"] == impl
    np.testing.assert_allclose(again.positions, old.positions, rtol=0, atol=ATOL)


@pytest.mark.parametrize("source", ["command.npz", "command.toml"])
def test_a_file_of_the_command_is_run_again(source, tmp_path):
    out = tmp_path / "again.npz"
    result = CliRunner().invoke(app, ["simulate", str(cases.FOLDER / source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    old, new = kd.Trajectory.load(cases.FOLDER / "command.npz"), kd.Trajectory.load(out)
    np.testing.assert_array_equal(old.times, new.times)
    np.testing.assert_allclose(old.positions, new.positions, rtol=0, atol=ATOL)


def test_a_sweep_goes_on_where_it_ended(copy, monkeypatch):
    computed = []
    aggregate = kd.aggregate
    monkeypatch.setattr(kd, "aggregate", lambda rule, x: computed.append(rule.score.sigma) or aggregate(rule, x))
    with pytest.warns(RuntimeWarning, match="did not record the code of functions"):
        resumed = cases.sweep(path=copy("sweep.npz"))
    assert computed == [1.0, 1.0]
    whole = cases.sweep()
    for name in ("final", "draw"):
        assert resumed[name].dims == whole[name].dims
        np.testing.assert_allclose(resumed[name], whole[name], rtol=0, atol=ATOL)


def test_an_analysis_reads_as_it_did():
    """Sentences, table and figures from the file alone; its words are those that were written then."""
    import xarray

    with xarray.open_dataset(cases.FOLDER / "analysis.nc", engine="h5netcdf") as dataset:
        then = (cases.FOLDER / "findings.txt").read_text().splitlines()
        assert " ".join(report.findings(dataset)) == " ".join(then)  # a measure has a sentence of its own now
        assert [len(list(column.cells)) for column in report.layer_table(dataset).columns] == [3] * 10
        assert dict(dataset.sizes) == {
            "sequence": 2, "layer": 3, "tokens": 2, "radius": 2, "block": 2, "head": 4, "eps": 2
        }  # fmt: skip
        assert json.loads(dataset.attrs["meta"])["layers"] == 2


def test_an_analysis_of_today_holds_all_that_one_of_then_held():
    import xarray

    from krause_dynamics.checkpoints import analyze
    from tests import checkpoint_models as models

    ids = np.random.default_rng(0).integers(0, models.VOCABULARY, (2, 12))
    new = analyze(models.llama(num_hidden_layers=2), ids, eps=[0.1, 0.3], radii=[0.4, 0.8])
    with xarray.open_dataset(cases.FOLDER / "analysis.nc", engine="h5netcdf") as old:
        for name in old.data_vars:
            assert old[name].dims == new[name].dims, name
            # float32 statistics of a float32 model, whose products other machines sum in another order
            np.testing.assert_allclose(new[name], old[name], rtol=1e-3, atol=1e-4, err_msg=name)
