"""Measures of one's own from the command line, in analyses and comparisons: their numbers, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics.checkpoints import Measure
from krause_dynamics.command.app import app
from tests import checkpoint_models as models

IDS = [[(7 * i + j * j) % 49 + 1 for i in range(12)] for j in range(3)]
OWN = """
from krause_dynamics.checkpoints import Measure

largest = Measure("largest", ("sequence", "layer"), "largest entry", "state", lambda state: state.tokens.amax((1, 2)))
first = Measure("first", ("sequence", "block", "head"), "alpha", "attention", lambda found: found.importance[..., 0])
both = [largest, first]
number = 3
"""
LARGEST = Measure("largest", ("sequence", "layer"), "largest entry", "state", lambda state: state.tokens.amax((1, 2)))


@pytest.fixture
def folder(tmp_path, monkeypatch, light_pictures):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        models.llama(seed).save_pretrained(tmp_path / f"model{seed}")
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    (tmp_path / "t.txt").write_text("words")
    for name in ("own.py", "found.py"):
        (tmp_path / name).write_text(OWN)
    return tmp_path


def called(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


def test_an_analysis_takes_measures_of_a_file_and_of_a_module(folder, monkeypatch):
    analyze = "analyze", "model0", "--token-ids", "ids.json", "--quiet", "--force"
    result = called(*analyze, "--out", "out", "--measure", "own.py:both")
    assert result.exit_code == 0, result.output
    found = xarray.load_dataset(folder / "out" / "analysis.nc")
    expected = kd.analyze(models.llama(0), IDS, measures=["default", LARGEST])
    np.testing.assert_allclose(found["largest"], expected["largest"], rtol=1e-6)
    np.testing.assert_array_equal(found["first"], found["importance_first"])
    assert set(found) == {*expected, "first"}
    monkeypatch.syspath_prepend(folder)
    assert called(*analyze, "--measures", "norm_ratio", "--out", "few", "--measure", "found:largest").exit_code == 0
    few = xarray.load_dataset(folder / "few" / "analysis.nc")
    assert {"norm_ratio", "largest"} <= set(few)
    assert "mean_cosine" not in few


def test_comparisons_take_them_too(folder, monkeypatch):
    given = []
    compare = kd.checkpoints.compare
    monkeypatch.setattr(kd.checkpoints, "compare", lambda *_, **options: given.append(options) or expected)
    expected = compare({"a": models.llama(0), "b": models.llama(1)}, IDS, measures=["default", LARGEST])
    largest = [kd.analyze(models.llama(seed), IDS, measures=["default", LARGEST])["largest"] for seed in (0, 1)]
    difference = (largest[1] - largest[0]).mean("sequence")
    np.testing.assert_allclose(expected["largest_difference"].sel(case="b"), difference, rtol=1e-5)
    assert "largest_interval" in expected
    result = called("compare", "model0", "model1", "--text", "t.txt", "--quiet", "--measure", "own.py:both")
    assert result.exit_code == 0, result.output
    assert [getattr(one, "name", one) for one in given[0]["measures"]] == ["default", "largest", "first"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own.py", "must be FILE.py:NAME or MODULE:NAME"),
        ("nowhere.py:largest", "no file 'nowhere.py' here"),
        ("no_such_module:largest", "No module named 'no_such_module'"),
        ("own:largest", "No module named 'own'"),  # a file here runs only where it is named
        ("own.py:larges", "did you mean 'largest'?"),
        ("own.py:number", "must be a kd.checkpoints.Measure or a list of them, received int"),
        ("broken.py:largest", "ZeroDivisionError"),
    ],
)
def test_what_is_no_measure_is_refused_before_a_model_is_loaded(folder, name, words, monkeypatch):
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.setattr(kd.checkpoints, "analyze", lambda *_, **__: pytest.fail("was run"))
    result = called("analyze", "model0", "--token-ids", "ids.json", "--measure", name)
    assert (result.exit_code, words in " ".join(result.output.split())) == (2, True), result.output
