"""``krause train``: settings, a run that a signal ends and the same command finishes, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from krause_dynamics.command.app import app  # noqa: E402
from krause_dynamics.training import TrainingConfiguration  # noqa: E402
from tests import training_data as made  # noqa: E402

pytestmark = pytest.mark.usefixtures("light_training")

MODEL = {"kind": "kvit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "drop_path": 0.0}


@pytest.fixture
def file(tmp_path):
    tables = {
        "model": MODEL,
        "data": {"format": "idx", "path": str(made.idx(tmp_path / "data")), "validation": 12},
        "training": {"epochs": 2, "batch_size": 12, "learning_rate": 0.01},
        "evaluation": {"cost": False},
    }
    path = tmp_path / "small.toml"
    path.write_text(TrainingConfiguration.read(tables).toml(), encoding="utf-8")
    return path


def run(*words):
    return CliRunner().invoke(app, ["train", *map(str, words)])


def test_a_file_is_trained_and_settings_overrule_it(file, tmp_path):
    answer = run(file, "--out", tmp_path / "run", "-s", "training.epochs=3", "-s", "model.score=dot", "--device", "cpu")
    assert answer.exit_code == 0, answer.output
    assert "test loss" in answer.output
    assert "best of 3 epochs by validation accuracy" in answer.output
    kept = TrainingConfiguration.read(tmp_path / "run" / "configuration.toml")
    assert (kept.training.epochs, kept.model["score"]) == (3, "dot")
    again = run(tmp_path / "run" / "configuration.toml", "--out", tmp_path / "run", "--resume", "never")
    assert (again.exit_code, "without a run" in again.output) == (2, True)


def test_several_seeds_are_several_runs_and_their_spread(file, tmp_path):
    words = (file, "--out", tmp_path / "runs", "-s", "training.epochs=1", "--seeds", 2, "-s", "training.seed=3")
    answer = run(*words, "--json")
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    alone = [json.loads((tmp_path / "runs" / f"seed-{seed}" / "result.json").read_text()) for seed in (3, 4)]
    losses = [result["test_loss"] for result in alone]
    assert (facts["seeds"], losses[0] != losses[1]) == ([3, 4], True)
    assert facts["test_loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert facts["test_loss"]["deviation"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    kept = TrainingConfiguration.read(tmp_path / "runs" / "seed-4" / "configuration.toml")
    assert kept.training.seed == 4
    again = run(*words, "--csv")  # read, not trained again
    assert again.exit_code == 0, again.output
    lines = again.stdout.splitlines()
    assert lines[0].startswith("seed,epoch,")
    assert [line.partition(",")[0] for line in lines[1:]] == ["3"] * 3 + ["4"] * 3
    assert "mean +- standard deviation of 2 seeds" in run(*words).output


def test_paths_are_relative_to_the_file(file, tmp_path, monkeypatch):
    text = file.read_text(encoding="utf-8").replace(str(tmp_path / "data"), "data")
    file.write_text(text, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(file, "-s", "training.epochs=1").exit_code == 0
    assert (tmp_path / "elsewhere" / "small" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-s", "training.epoch=3"), "unknown key of [training] 'epoch'; did you mean 'epochs'"),
        (("-s", "data.path=nowhere"), "nowhere does not exist"),
        (("-s", "data.format=cifar"), "has no data_batch_1.bin"),
        (("--device", "tpu"), "device must be 'cpu' or 'cuda'"),
    ],
)
def test_bad_input_is_one_line_and_the_code_2(file, tmp_path, words, message):
    answer = run(file, "--out", tmp_path / "run", *words)
    assert answer.exit_code == 2
    assert message in answer.output
    assert "Traceback" not in answer.output


def started(*words):
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment, pipe = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow  # processes import torch and transformers
def test_sigterm_keeps_the_last_epoch_and_the_same_command_goes_on(file, tmp_path):
    """The module form of the command, ended by the signal once an epoch is finished."""
    settings = ("-s", "training.epochs=5000", "-s", "training.save_seconds=0.0")
    process = started("-m", "krause_dynamics", "train", file, "--out", tmp_path / "run", *settings)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "the same command goes on" in output
    rows = (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 1
    assert not (tmp_path / "run" / "result.json").exists()


TWO_GPUS = (pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"))


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=TWO_GPUS)])
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_learn_what_one_does(file, tmp_path, device):
    """Each batch is shared: losses and weights as of one process, up to the rounding of sums in float32."""
    port = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    words = ("-m", "torch.distributed.run", *port, "--nproc-per-node", "2", "-m", "krause_dynamics", "train", file)
    how = ("--device", device, "-s", "training.precision=float32")
    two = started(*words, "--out", tmp_path / "two", *how)
    assert run(file, "--out", tmp_path / "one", *how).exit_code == 0
    output, _ = two.communicate(timeout=300)
    assert two.returncode == 0, output
    one, both = (json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert (one["processes"], both["processes"]) == (1, 2)
    assert both["test_loss"] == pytest.approx(one["test_loss"], rel=1e-4)
    first, second = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4)
