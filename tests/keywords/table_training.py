"""Training: each keyword of a run, of its configuration, and each part of its result."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from krause_dynamics.training import TrainingConfiguration, TrainingResult, train
from tests import training_data as made
from tests.keywords.row import row

MODEL = {"kind": "kvit", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
TRAINING = {"epochs": 2, "batch_size": 12, "learning_rate": 0.01}


@lru_cache(maxsize=1)
def folder():
    return Path(tempfile.mkdtemp())


@lru_cache(maxsize=1)
def data():
    return str(made.idx(folder() / "data"))


def tables(**training):
    return {
        "model": dict(MODEL),
        "data": {"format": "idx", "path": data(), "validation": 12},
        "training": TRAINING | training,
        "evaluation": {"cost": False},
    }


@lru_cache(maxsize=1)
def finished():
    with made.light():
        return train(tables(), out=folder() / "finished")


def fresh(name, **changes):
    with made.light():
        return train(**{"configuration": tables(), "out": folder() / name} | changes)


@row("kd.training.train", "configuration", "tables", "file", "tables, a configuration and its file are the same run")
def configuration(first, second):
    chosen = TrainingConfiguration.read(tables())
    path = folder() / "file.toml"
    path.write_text(chosen.toml(), encoding="utf-8")
    for name, given in ((first, chosen), (second, path)):
        assert fresh(name, configuration=given).test == finished().test


@row("kd.training.train", "out", "a", "b", "the folder of everything that is written; the numbers do not depend on it")
def out(first, second):
    for name in (first, second):
        result = fresh(name)
        assert result.folder == folder() / name
        assert {path.name for path in result.folder.iterdir()} >= {"best", "last", "metrics.csv", "result.json"}
        assert result.test == finished().test


@row("kd.training.train", "resume", "auto", "never", "auto reads what is there, never refuses it")
def resume(first, second):
    finished()
    assert train(tables(), out=folder() / "finished", resume=first).test == finished().test
    with pytest.raises(ValueError, match="resume='never'"):
        train(tables(), out=folder() / "finished", resume=second)
    assert train(tables(), out=folder() / "finished", resume="end").test == finished().test


@row("kd.training.train", "device", "cpu", None, "where it runs: named, or a GPU where there is one")
def device(first, second):
    assert fresh("cpu", device=first).result["device"] == finished().result["device"] or torch.cuda.is_available()
    assert fresh("any", device=second).test == finished().test
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda'"):
        fresh("tpu", device="tpu")


@row("kd.training.train", "progress", False, True, "a function hears of every step, the last as all; True draws")
def progress(first, second):
    seen = []
    assert fresh("told", progress=lambda *told: seen.append(told)).test == finished().test
    assert seen == [(i, 6) for i in range(1, 7)]
    for name, given in (("silent", first), ("drawn", second)):
        assert fresh(name, progress=given).test == finished().test


@row("kd.training.train", "ending", "png", "pdf", "of the figure, which a run that has ended gets where it is missing")
def ending(first, second):
    drawn = []

    def note(path, rows, about, ending):
        drawn.append((path, len(rows), about["chosen_by"], ending))
        (path / f"curves.{ending}").touch()

    place = folder() / "ending"
    with made.light(), mock.patch("krause_dynamics.training.records.draw_curves", note):
        for ending in (first, second, second):
            rows = len(train(tables(), out=place, ending=ending).metrics)
    assert drawn == [(place, rows, "validation accuracy", ending) for ending in (first, second)]


@row("kd.training.TrainingConfiguration", "model", {"score": "dot"}, {"score": "gaussian"}, "keys of the model's own")
def model(first, second):
    for given in (first, second):
        chosen = TrainingConfiguration(model=MODEL | given, data={"path": data()})
        assert chosen.tables()["model"]["score"] == given["score"]
    with pytest.raises(ValueError, match=r"model.kind must be given, one of kvit,"):
        TrainingConfiguration(model=first, data={"path": data()})


def section(name, first, second):
    given = {"data": {"path": data()}}
    plain = TrainingConfiguration(model=MODEL, **given)
    for keys in (first, second):
        chosen = TrainingConfiguration(model=MODEL, **given | {name: given.get(name, {}) | keys})
        (key, value), = keys.items()  # fmt: skip
        assert chosen.tables()[name][key] == value
        assert (chosen.digest() == plain.digest()) == (chosen == plain)
    with pytest.raises(ValueError, match=rf"unknown key of \[{name}\]"):
        TrainingConfiguration(model=MODEL, **given | {name: {"nonsense": 1}})


for name, first, second in (
    ("data", {"split_seed": 1}, {"validation": 7.0}),
    ("training", {"epochs": 1}, {"mixup": 0.8}),
    ("evaluation", {"limit": 3}, {"batch_size": 5}),
):
    row("kd.training.TrainingConfiguration", name, first, second, "its keys are kept, and another key is another run")(
        lambda a, b, name=name: section(name, a, b)
    )


def best_and_last(first, second):
    result, rows = finished(), [row for row in finished().metrics if row["split"] == "validation"]
    assert result.last == rows[-1]
    assert result.best["accuracy"] == max(row["accuracy"] for row in rows)
    weights = [load_file(result.folder / name / "model.safetensors") for name in ("best", "last")]
    assert weights[0].keys() == weights[1].keys()


def tested(first, second):
    result = finished()
    assert [row for row in result.metrics if row["split"] == "test"] == [result.test]
    assert result.result["test_accuracy"] == result.test["accuracy"]
    assert len(result.metrics) == 2 * 2 + 1
    assert result.folder == folder() / "finished"


WORDS = {
    "folder": (tested, "where its files are"),
    "best": (best_and_last, "the row of the epoch of best validation accuracy"),
    "last": (best_and_last, "the row of the last epoch's validation"),
    "test": (tested, "measured once, by the best weights"),
    "metrics": (tested, "two rows an epoch and one of the test part"),
    "result": (tested, "what result.json holds"),
}
for name, (check, words) in WORDS.items():
    assert name in TrainingResult.__dataclass_fields__
    row("kd.training.TrainingResult", name, 1, 2, words)(check)
