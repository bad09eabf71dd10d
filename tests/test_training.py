"""A run of training: what it writes, that it goes on bit for bit, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from krause_dynamics.errors import TrainingDiverged  # noqa: E402
from krause_dynamics.models import KrauseViT  # noqa: E402
from krause_dynamics.training import TrainingConfiguration, records, tasks, train  # noqa: E402
from krause_dynamics.training.run import _alone as alone  # noqa: E402
from krause_dynamics.training.used import check_used  # noqa: E402
from tests import training_data as made  # noqa: E402

pytestmark = pytest.mark.usefixtures("light_training")

MODEL = {"kind": "kvit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
DRAWN = records.draw_curves
STRONG = {"mixup": 0.8, "cutmix": 1.0, "crop": 1, "flip": True, "drop_path": 0.2, "label_smoothing": 0.1}


@pytest.fixture
def tables(tmp_path):
    return {
        "model": dict(MODEL),
        "data": {"format": "idx", "path": str(made.idx(tmp_path / "data")), "validation": 12},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "save_seconds": 0.0, **STRONG},
    }


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_brightness_is_learned_and_everything_is_written(tables, tmp_path):
    """Three classes of another brightness each: a model that learns tells them apart; one that does not has 1/3."""
    tables["training"] = {"epochs": 20, "batch_size": 6, "learning_rate": 0.01}
    result = train(tables, out=tmp_path / "run")
    assert result.test["accuracy"] > 0.9
    assert result.best["accuracy"] == max(row["accuracy"] for row in result.metrics if row["split"] == "validation")
    model = KrauseViT.from_pretrained(result.folder / "best")
    assert not model.training
    assert same(weights(result.folder / "best"), {name: p.detach() for name, p in model.state_dict().items()})
    stored = json.loads((result.folder / "result.json").read_text())
    assert stored["parameters"] == sum(p.numel() for p in model.parameters())
    assert stored["test_accuracy"] == result.test["accuracy"]
    assert stored["best_epoch"] == result.best["epoch"]
    guesses = np.load(result.folder / "predictions.npz")["predictions"]
    assert (guesses == made.pictures(24, 1)[1]).mean() == result.test["accuracy"]
    assert stored["examples"] == {"train": 36, "validation": 12, "test": 24}
    lines = (result.folder / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 20 + 1
    assert sum(",test," in line for line in lines) == 1, "the test part is measured once"
    again = train(result.folder / "configuration.toml", out=result.folder)
    assert without_times(again.metrics) == without_times(result.metrics), "a finished run is read, not repeated"


@pytest.mark.parametrize(("stopped", "seconds"), [(1, 0.0), (5, 0.0), (9, 1000.0)])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tables, tmp_path, stopped, seconds):
    """4 steps an epoch: stopped inside the first, second and third epoch; strong augmentation, dropped paths."""
    tables["training"]["save_seconds"] = seconds  # written after each epoch, or when the signal comes
    whole = train(tables, out=tmp_path / "whole")

    def stop(done, total):
        assert total == 12
        if done == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tables, out=tmp_path / "parts", progress=stop)
    assert (tmp_path / "parts" / "state.safetensors").exists() == (stopped > 4)
    parts = train(tables, out=tmp_path / "parts")
    assert without_times(parts.metrics) == without_times(whole.metrics)
    for name in ("best", "last"):
        assert same(weights(parts.folder / name), weights(whole.folder / name))


def interrupted(tables, out, *, at):
    """A run that a signal ends at a step."""

    def stop(done, total):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tables, out=out, progress=stop)


FILES = (
    "configuration.toml",
    "state.safetensors",
    "metrics.csv",
    "last/config.json",
    "best/model.safetensors",
    "result.json",
)


def killed_before(file, tables, out, replace=os.replace):
    """Train in a process that is killed, without a last word, when it would put the file in its place."""

    def killing(source, target, **rest):
        if Path(target) == out / file:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **rest)

    process = os.fork()
    if not process:
        try:
            os.replace = killing
            train(tables, out=out)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(process, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads of torch do nothing meanwhile
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that knows torch already is a fork")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA cannot be used in a fork")
def test_a_kill_at_any_file_is_gone_on_from_bit_for_bit(tables, tmp_path):
    """The first file of each kind: the next call neither reads nor refuses what is half there."""
    tables["evaluation"] = {"cost": False}
    whole = train(tables, out=tmp_path / "whole")
    for number, file in enumerate(FILES):
        out = tmp_path / str(number)
        assert killed_before(file, tables, out) == signal.SIGKILL, file
        assert not (out / file).exists()
        parts = train(tables, out=out)
        assert without_times(parts.metrics) == without_times(whole.metrics), file
        assert same(weights(out / "best"), weights(tmp_path / "whole" / "best")), file


def test_the_loss_and_what_chose_the_best_epoch_are_drawn(tmp_path):
    rows = [{"epoch": i, "split": part, "loss": 1.0 / i, "accuracy": 0.5} for i in (1, 2) for part in ("train", "test")]
    about = {"chosen_by": "validation accuracy"}
    for ending, mark in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        DRAWN(tmp_path, rows, about, ending)
        content = (tmp_path / f"curves.{ending}").read_bytes()
        assert content.startswith(mark)
        assert len(content) > 1000
    assert json.loads((tmp_path / "curves.json").read_text(encoding="utf-8")) == about


def test_the_seed_decides_and_the_callers_generator_is_left_alone(tables, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = train(tables, out=tmp_path / "1")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = train(tables, out=tmp_path / "2")
    assert without_times(first.metrics) == without_times(second.metrics)
    tables["training"]["seed"] = 1
    third = train(tables, out=tmp_path / "3")
    assert without_times(third.metrics) != without_times(first.metrics)


@pytest.mark.slow  # a compiler runs
def test_a_compiled_run_learns_the_same(tables, tmp_path):
    """With the same random numbers, those of drop path within the compiled model too: but for rounding, one run."""
    tables["training"] |= {"drop_path": 0.5}
    first = train(tables, out=tmp_path / "eager")
    tables["training"]["compile"] = True
    second = train(tables, out=tmp_path / "compiled")
    for mine, theirs in zip(second.metrics, first.metrics, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert second.result["compiled"]
    assert not first.result["compiled"]
    # The compiler works before the first step has been made, and is counted there.
    assert second.result["startup_seconds"] > first.result["startup_seconds"] > 0.0


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_good_state(tables, tmp_path):
    tables["model"] |= {"score": "dot", "support": "full"}
    tables["training"] |= {"learning_rate": 1e30, "clip": 0.0, "epochs": 5}
    with pytest.raises(
        TrainingDiverged, match=r"the loss became (nan|inf) at step \d+ \(epoch 1\) at a learning rate of .*e\+2"
    ):
        train(tables, out=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_loss_that_becomes_nan_later_leaves_the_best_weights_before_it(tables, tmp_path, monkeypatch):
    """The second epoch of four steps meets it; the first is what the same run of one good epoch kept."""
    whole = train(tables, out=tmp_path / "whole")
    pixels, calls = tasks.Classes.inputs, []

    def spoiled(task, rows):
        calls.append(rows)
        return {name: x * torch.nan if len(calls) > 6 else x for name, x in pixels(task, rows).items()}

    monkeypatch.setattr(tasks.Classes, "inputs", spoiled)
    with pytest.raises(TrainingDiverged, match=r"nan at step 7 \(epoch 2\) .*best holds the best weights before it"):
        train(tables, out=tmp_path / "run")
    kept = load_file(tmp_path / "run" / "state.safetensors")
    best = weights(tmp_path / "run" / "best")
    assert all(torch.equal(kept[f"model.{name}"], x) for name, x in best.items())
    first = records.read_metrics(tmp_path / "run")
    assert without_times(first) == without_times(whole.metrics)[:2]
    ended = train(tables, out=tmp_path / "run", resume="end")
    assert (ended.result["epochs"], ended.best["epoch"], ended.test["split"]) == (1, 1, "test")
    assert same(weights(ended.folder / "best"), best)
    guesses = np.load(ended.folder / "predictions.npz")["predictions"]
    assert (guesses == made.pictures(24, 1)[1]).mean() == ended.test["accuracy"]
    with pytest.raises(ValueError, match="resume='end' needs a run with a finished epoch"):
        train(tables, out=tmp_path / "fresh", resume="end")


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tables, tmp_path):
    """Without random numbers, which are drawn a part: one run but for the rounding of sums in float32."""
    tables["training"] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01}
    whole = train(tables, out=tmp_path / "whole")
    tables["training"]["accumulation"] = 4
    parts = train(tables, out=tmp_path / "parts")
    for mine, theirs in zip(parts.metrics, whole.metrics, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    tables["training"]["accumulation"] = 3
    with pytest.raises(ValueError, match="training.accumulation must divide the 8 examples of a process, got 3"):
        train(tables, out=tmp_path / "three")


def test_data_that_changed_since_the_run_began_are_not_gone_on_with(tables, tmp_path):
    interrupted(tables, tmp_path / "run", at=5)
    path = tmp_path / "data" / "train-labels-idx1-ubyte"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ValueError, match="a run on other data: train-labels-idx1-ubyte changed since it began"):
        train(tables, out=tmp_path / "run")
    path.write_bytes(before)
    assert train(tables, out=tmp_path / "run").result["epochs"] == 3


def test_a_bandwidth_that_leaves_all_bounds_is_told_as_a_loss_is(tables, tmp_path):
    """The layer refuses it before there is a loss."""
    tables["training"] |= {"learning_rate": 1e30, "epochs": 5}
    with pytest.raises(
        TrainingDiverged, match=r"at step \d+ \(epoch 1\) at a learning rate of .*no epoch was finished"
    ):
        train(tables, out=tmp_path / "run")


def test_a_folder_of_another_run_is_refused_and_left_as_it_is(tables, tmp_path):
    train(tables, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    tables["training"]["seed"] = 7
    with pytest.raises(ValueError, match="training.seed is 0, got 7"):
        train(tables, out=tmp_path / "run")
    tables["training"] |= {"seed": 0, "drop_path": 0.3}
    with pytest.raises(ValueError, match=r"training.drop_path is 0.2, got 0.3"):
        train(tables, out=tmp_path / "run")
    with pytest.raises(ValueError, match="without a run"):
        train(tables, out=tmp_path / "run", resume="never")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("kind", "format_", "table", "key", "value", "message"), [
    ("lm", "text", "training", "mixup", 0.8, "it is for classes of pictures, model.kind is 'lm'; take it out"),
    ("karm", "idx", "training", "crop", 2, "it is for classes of pictures, model.kind is 'karm'"),
    ("gated", "text", "training", "drop_path", 0.1, "it is for models that are built here"),
    ("kvit", "idx", "data", "size", 32, "it is for pictures from folders, data.format is 'idx'"),
    ("kvit", "idx", "data", "test", 0.2, "have a test part of their own"),
    ("kvit", "folders", "data", "length", 8, "it is for text, data.format is 'folders'"),
    ("lm", "text", "data", "field", "body", "it is for JSON lines, data.format is 'text'"),
    ("lm", "jsonl", "data", "vocabulary", 300, "it is that of data.tokenizer = 'bpe', which is 'bytes'"),
])  # fmt: skip
def test_a_key_that_nothing_reads_is_refused(kind, format_, table, key, value, message):
    tables = {"model": {"kind": kind}, "data": {"format": format_, "path": "x"}, "training": {}}
    check_used(TrainingConfiguration.read(tables))
    tables[table][key] = value
    with pytest.raises(ValueError, match=rf"{table}.{key} = {value!r} would change nothing: .*{message}"):
        check_used(TrainingConfiguration.read(tables))


def test_keys_that_are_read_are_taken(tables):
    """Each key that is refused above, where it means something; and every configuration that ships."""
    tables["training"] |= {"mixup": 0.8, "crop": 2, "flip": True, "label_smoothing": 0.1, "drop_path": 0.1}
    check_used(TrainingConfiguration.read(tables))
    text = {
        "format": "jsonl",
        "path": "x",
        "field": "body",
        "tokenizer": "bpe",
        "vocabulary": 300,
        "length": 8,
        "test": 0.2,
    }
    check_used(TrainingConfiguration.read({"model": {"kind": "lm"}, "data": text}))
    check_used(
        TrainingConfiguration.read({"data": {"format": "folders", "path": "x", "size": 8, "channels": 1, "test": 3}})
    )
    files = sorted((Path(__file__).parents[1] / "evidence" / "configurations").glob("*.toml"))
    assert files
    for file in files:
        check_used(TrainingConfiguration.read(file))


def test_a_run_is_not_written_among_its_data(tmp_path):
    """Its folders best/ and last/ would be classes of the next run, its vocabulary a text."""
    data = made.picture_folders(tmp_path / "pictures")
    tables = {"data": {"format": "folders", "path": str(data), "size": 8}}
    before = sorted(data.rglob("*"))
    for out in (data, data / "run"):
        with pytest.raises(ValueError, match=r"out must not lie in data.path, .* choose another folder"):
            train(tables, out=out)
    assert sorted(data.rglob("*")) == before


def test_pictures_of_one_class_leave_nothing_to_tell_apart(tables, tmp_path):
    """Every model was right at once, 1.0 on the test part."""
    for path in (tmp_path / "data").glob("*labels*"):
        content = path.read_bytes()
        path.write_bytes(content[:8] + bytes([7]) * (len(content) - 8))
    with pytest.raises(ValueError, match=r"two classes at least to tell apart, got \('7',\)"):
        train(tables, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "epoch", 3, r"unknown key of \[training\] 'epoch'; did you mean 'epochs'"),
        ("training", "epochs", 0, "training.epochs must be at least 1, got 0"),
        ("training", "precision", "fp16", "training.precision must be"),
        ("training", "batch_size", 64, "training.batch_size must be at most the 36 examples"),
        ("training", "learning_rate", 0.0, "training.learning_rate must be positive"),
        ("training", "seed", 2**32, r"training.seed must be below 2\*\*32"),
        ("training", "crop", 8, "training.crop must be below the 8 pixels of a side, got 8"),
        ("data", "format", "idy", "data.format must be"),
        ("data", "channels", 2, r"data.channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ("data", "sha256", {"train-images": "0"}, "unknown file of data.sha256 'train-images'; did you mean 'train-im"),
        ("data", "validation", 48, "data.validation must be a share below 1 or a number of examples below 48"),
        ("model", "kind", "vit", "unknown model.kind 'vit'; did you mean 'kvit'"),
        ("model", "suport", "full", "unknown KrauseViTConfig key 'suport'; did you mean 'support'"),
        ("model", "num_labels", 5, "model.num_labels must be 3, as the data are, got 5"),
        ("model", "size", "huge", "unknown model.size 'huge'"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_words(tables, tmp_path, section, key, value, message):
    tables[section][key] = value
    with pytest.raises(ValueError, match=message):
        train(tables, out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))  # so that the mended tables are not those of another run


def test_a_configuration_is_the_same_as_a_file(tables, tmp_path):
    first = TrainingConfiguration.read(tables)
    (tmp_path / "a.toml").write_text(first.toml())
    assert TrainingConfiguration.read(tmp_path / "a.toml") == first
    assert TrainingConfiguration.read(first) is first
    assert first.digest() == TrainingConfiguration.read(tmp_path / "a.toml").digest()
    assert {"model", "data", "training", "evaluation"} == first.tables().keys()
    with pytest.raises(TypeError, match=r"\[model\] must be a table, got 'kvit'"):
        TrainingConfiguration.read({**tables, "model": "kvit"})
    with pytest.raises(ValueError, match="model.kind must be given, one of kvit"):
        TrainingConfiguration.read({**tables, "model": {"size": "tiny"}})
    with pytest.raises(ValueError, match="unknown table 'trainings'; did you mean 'training'"):
        TrainingConfiguration.read({**tables, "trainings": {}})


def test_a_folder_in_which_another_process_trains_is_refused_and_left_alone(tables, tmp_path):
    """Workers may outlive a launcher that is killed; two runs would write the same files."""
    with alone(tmp_path / "run"), pytest.raises(ValueError, match="in which no other process trains, one does in"):
        train(tables, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with alone(tmp_path / "run"):
        pass  # free again


def test_a_run_of_several_processes_is_gone_on_with_by_as_many(tables, tmp_path):
    interrupted(tables, tmp_path / "run", at=5)
    path = tmp_path / "run" / "state.safetensors"
    with safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["krause_dynamics"])
    assert about["processes"] == 1
    save_file(load_file(path), path, {"krause_dynamics": json.dumps(about | {"processes": 2})})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="a run of 2 processes, which 1 would take to other numbers.*: start 2, or"):
        train(tables, out=tmp_path / "run")
    assert path.read_bytes() == before
    assert train(tables, out=tmp_path / "run", resume="end").result["epochs"] == 1  # no number of an epoch to come
