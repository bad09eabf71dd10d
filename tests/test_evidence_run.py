"""Experiments are tuned, run, stopped and joined into logs; and a deadline leaves the rest for later."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evidence import experiments, logs, recipes
from evidence import run as command
from evidence.plan import Arm, Run
from evidence.worker import Order, carry_out, ways_of
from tests import training_data

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from krause_dynamics.training import tasks  # noqa: E402

RATES = (1e-3, 1e-2)


@pytest.fixture
def tiny(monkeypatch):
    """Two arms of `fashion`, one of which chooses the rate."""
    whole = experiments.EXPERIMENTS["fashion"]
    arms = (Arm("dot.full", 1), Arm("gaussian.window+top_k", 1))
    found = replace(
        whole, arms=arms, tuning_arms=("dot.full",), learning_rates=RATES, tuning_epochs=1, kept=("dot.full",)
    )
    monkeypatch.setitem(experiments.EXPERIMENTS, "fashion", found)
    return found


def call(tmp_path, *more):
    return command.main([
        "fashion", "--small", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"),
        *more,
    ])  # fmt: skip


def test_an_experiment_is_tuned_and_run_once_and_its_logs_are_joined(tiny, tmp_path, capsys):
    training_data.idx(tmp_path / "fashion", train=96, test=40, side=8)
    assert call(tmp_path) == 0
    said = capsys.readouterr().out
    results = logs.read(tmp_path / "out", "fashion", "results")
    assert [(row["part"], row["arm"]) for row in results] == [
        ("tuning", "dot.full"), ("tuning", "dot.full"), ("reported", "dot.full"), ("reported", "gaussian.window+top_k"),
    ]  # fmt: skip
    best = max(results[:2], key=lambda row: row["validation"])["learning_rate"]
    assert {row["learning_rate"] for row in results[2:]} == {best}
    assert f"learning rate {best:g}" in said
    # Softmax learns no sigma; the Gaussian one a layer, which has hardly moved from its start.
    learned = [json.loads(row["sigma"]) for row in results[2:]]
    assert learned[0] == []
    assert learned[1] == pytest.approx([recipes.SIGMA] * 2, rel=0.1)
    assert "0 of 2 runs left" in said
    # The answers are those of which the accuracy is the mean, and the curves are there.
    answers = {row["run"]: logs.unpacked(row["right"]) for row in logs.read(tmp_path / "out", "fashion", "answers")}
    assert all(row["test"] == pytest.approx(answers[row["run"]].mean()) for row in results)
    metrics = logs.read(tmp_path / "out", "fashion", "metrics")
    assert sum(row["split"] == "validation" for row in metrics) == 4 * 2
    assert (tmp_path / "out" / "fashion-dot.full-0.safetensors").exists()
    assert not any((tmp_path / "work").iterdir())
    # What is there is not run again, and joins the kept logs once.
    call(tmp_path)
    assert logs.read(tmp_path / "out", "fashion", "results") == results
    # But for its weights, by name.
    (tmp_path / "out" / "fashion-dot.full-0.safetensors").unlink()
    capsys.readouterr()
    call(tmp_path, "--only", "fashion-dot.full-0")
    assert capsys.readouterr().out.count(": test ") == 1
    assert (tmp_path / "out" / "fashion-dot.full-0.safetensors").exists()
    assert logs.read(tmp_path / "out", "fashion", "results") == results
    logs.pack(tmp_path / "out", tmp_path / "pack")
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {"tables.zip", "fashion-dot.full-0.safetensors"}
    for source in ("out", "out", "pack"):
        written = logs.keep_packed(tmp_path / source, tmp_path / "kept")
        assert written == [f"fashion.{kind}.csv" for kind in sorted(logs.KINDS)]
    assert logs.read(tmp_path / "kept", "fashion", "results") == results


def test_a_deadline_leaves_runs_for_the_next_call(tiny, tmp_path, capsys):
    training_data.idx(tmp_path / "fashion", train=96, test=40, side=8)
    call(tmp_path, "--limit-seconds", "1")
    said = capsys.readouterr().out
    assert "no learning rate yet" in said
    assert "2 of 2 runs left" in said
    assert logs.read(tmp_path / "out", "fashion", "results") == []


def test_a_run_that_fails_costs_no_other_and_is_said(tiny, tmp_path, capsys):
    call(tmp_path)  # no data there
    assert capsys.readouterr().out.count("FileNotFoundError") >= 2
    assert logs.read(tmp_path / "out", "fashion", "results") == []


def test_a_run_that_diverges_counts_as_its_best_weights_before(tiny, tmp_path, monkeypatch):
    """As the protocol says; four steps an epoch, and of a run without a finished epoch the reason alone is kept."""
    training_data.idx(tmp_path / "fashion", train=96, test=40, side=8)
    order = Order(Run("fashion", "dot.full", 0), 1e-3, str(tmp_path), tmp_path / "work", tmp_path, 9e9, small=True)
    inputs, calls = tasks.Classes.inputs, []

    def spoiled(task, rows):
        calls.append(rows)
        return {name: x * torch.nan if len(calls) > good else x for name, x in inputs(task, rows).items()}

    monkeypatch.setattr(tasks.Classes, "inputs", spoiled)
    good = 5
    (row,) = carry_out(order)["results"]
    assert (row["failed"].startswith("the loss became nan at step 6"), row["best_epoch"]) == (True, 1)
    assert 0.0 <= row["test"] <= 1.0
    good = 1
    calls.clear()
    (row,) = carry_out(replace(order, work=tmp_path / "again"))["results"]
    assert ("test" in row, "nan at step 2" in row["failed"]) == (False, True)


def test_a_run_that_does_not_compile_is_made_without_and_says_so(tiny, tmp_path, capsys, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("torch.compile", fails)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    training_data.idx(tmp_path / "fashion", train=96, test=40, side=8)
    call(tmp_path, "--compile", "--runs", "1")
    said = capsys.readouterr()
    assert said.err.count("not compiled") == 3
    assert "no compiler here" in said.err
    assert "(eager)" in said.out
    results = logs.read(tmp_path / "out", "fashion", "results")
    assert [row["compiled"] for row in results] == ["False"] * 3
    assert all(0.0 < row["startup_seconds"] < row["wall_seconds"] for row in results)


def test_a_run_is_compiled_then_captured_then_eager():
    order = Order(Run("fashion", "dot.full", 0), 1e-3, "data", Path("work"), Path("out"), 0.0)
    assert ways_of(order, False) == [("eager", {})]
    assert [name for name, _ in ways_of(replace(order, compiled=True), True)] == ["compiled", "captured", "eager"]


def row(rate, value, arm="dot.full"):
    return {"run": Run("fashion", arm, experiments.TUNING_SEED, rate).name, "validation": value}


def test_the_rate_is_that_of_the_best_mean_and_of_equal_ones_the_smaller():
    fashion = experiments.EXPERIMENTS["fashion"]
    first, second = "dot.full", "gaussian.window"
    two = replace(fashion, tuning_arms=(first, second), learning_rates=RATES)
    rows = [row(1e-3, 0.8), row(1e-2, 0.9), row(1e-3, 0.8, second), row(1e-2, 0.6, second)]
    assert command.chosen_rate(two, rows) == 1e-3
    assert command.chosen_rate(replace(two, larger_is_better=False), rows) == 1e-2
    assert command.chosen_rate(two, [*rows[:3], row(1e-2, 0.7, second)]) == 1e-3
    assert command.chosen_rate(two, rows[:3]) is None
    diverged = {key: value for key, value in row(1e-3, 0.8).items() if key == "run"}
    assert command.chosen_rate(two, [diverged, *rows[1:]]) == 1e-2


def test_logs_keep_answers_exactly_and_refuse_another_configuration():
    right = np.random.default_rng(0).random(1001) < 0.7
    np.testing.assert_array_equal(logs.unpacked(logs.packed(right)), right)
    old = [{"run": "a", "configuration": "x"}]
    with pytest.raises(ValueError, match="another configuration"):
        logs.joined(old, [{"run": "a", "configuration": "y"}], "results")
    assert logs.joined(old, [{"run": "b", "configuration": "y"}], "results") == [
        *old, {"run": "b", "configuration": "y"},
    ]  # fmt: skip
