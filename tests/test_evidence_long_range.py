"""Sequences hold their answers where they say, and a stack of windows sees exactly L (W - 1) tokens."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evidence import logs
from evidence.long_range.__main__ import main
from evidence.long_range.presets import ARMS, PRESETS, Setting
from evidence.long_range.tasks import IGNORED, Task
from evidence.long_range.training import influence, model_of
from krause_dynamics import theory

ROOT = Path(__file__).parent.parent
SETTING = Setting(layers=2, window=5, width=16)


@pytest.mark.parametrize("kind", ["needle", "recall", "copy"])
@pytest.mark.parametrize("lag", [None, 9])
def test_the_answer_lies_as_many_tokens_back_as_it_says(kind, lag):
    task = Task(kind, length=24, lag=lag)
    batch = task.batch(200, torch.Generator().manual_seed(0))
    rows, places = (batch.answers != IGNORED).nonzero(as_tuple=True)
    answers, lags = batch.answers[rows, places], batch.lags[rows, places]
    source = batch.tokens[rows, places - lags]
    if kind == "recall":
        first = task.values + task.fillers
        asked = batch.tokens[rows, places] - first - task.keys * task.values
        assert torch.equal((source - first) // task.values, asked)
        source = (source - first) % task.values
    elif lag is not None:
        assert set(lags.tolist()) == {lag}
    assert torch.equal(source, answers)
    assert int(batch.tokens.max()) < task.vocabulary
    assert 1 <= int(lags.min()) <= int(lags.max()) <= task.longest
    # A guess is right as often as it should be: three deviations.
    share = (answers == 0).double().mean()
    assert share == pytest.approx(task.chance, abs=3 * (task.chance / len(answers)) ** 0.5)


def test_a_lag_beyond_the_sequence_is_refused():
    with pytest.raises(ValueError, match="lag must be from 1 to 23"):
        Task("needle", length=24, lag=24).batch(1, torch.Generator())


@pytest.mark.parametrize("arm", ARMS)
def test_gradients_end_at_the_horizon_of_the_windows(arm):
    task = Task("needle", length=24)
    found = influence(model_of(task, arm, SETTING, 0), task)
    horizon = theory.stack_reach(layers=2, window=5).horizon
    assert horizon == SETTING.horizon == 8
    beyond = found[horizon + 1 :]
    if "window" not in arm.split(".")[1] or "gated" in arm:  # softmax over all earlier tokens, alone or beside it
        assert (beyond > 0).all()
    elif "first_tokens" in arm:  # only the first four tokens themselves, at the largest lags
        assert (beyond[:-4] == 0).all()
        assert (beyond[-4:] > 0).all()
    else:
        assert (beyond == 0).all()
        assert (found[: horizon + 1] > 0).all() or "top_k" in arm


def test_equal_weights_spread_as_the_law_of_hops_says():
    """A stack of flat windows beside residuals: its band matrix to the power L against mean and deviation."""
    layers, window, residual, n = 4, 6, 0.7, 60
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    hop = ((lag >= 0) & (lag < window)) / window
    last = np.linalg.matrix_power(residual * np.eye(n) + (1 - residual) * hop, layers)[-1, ::-1]
    found = theory.stack_reach(layers=layers, window=window, residual=residual)
    mean = last @ np.arange(n)
    assert mean == pytest.approx(found.mean)
    assert np.sqrt(last @ np.arange(n) ** 2 - mean**2) == pytest.approx(found.deviation)
    assert last[found.horizon] > 0
    assert (last[found.horizon + 1 :] == 0).all()


def test_the_command_writes_its_tables_and_repeats_nothing(tmp_path, capsys):
    arguments = ["--preset", "tiny", "--tasks", "needle", "--arms", "gaussian.window", "--out", str(tmp_path)]
    assert main(arguments) == 0
    row = logs.read(tmp_path, "long_range", "results")[0]
    assert (row["horizon"], row["gradient_beyond"]) == (6, 0)
    asked = sum(found["asked"] for found in logs.read(tmp_path, "long_range", "answers"))
    assert asked == PRESETS["tiny"][1].tested
    assert "gaussian.window" in capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out == ""


def test_workers_find_their_jobs_where_the_command_is_the_main_module(tmp_path):
    """Processes started afresh do not import a package's `__main__`. No time is left, so that they train nothing."""
    chosen = ["--preset", "tiny", "--tasks", "needle", "--arms", "gaussian.window", "dot.full", "--workers", "2"]
    command = [sys.executable, "-m", "evidence.long_range", *chosen, "--limit-seconds", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = [f"tiny-needle-{arm}-0: later" for arm in ("dot.full", "gaussian.window")]
    assert sorted(done.stdout.splitlines()) == said
