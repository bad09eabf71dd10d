"""What commands print and replace: JSON, CSV, silence, questions, one style of errors; in processes of their own."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import typer
import xarray
from matplotlib.figure import Figure
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics.command.app import app
from krause_dynamics.command.options import BUNDLED, check_model, free
from krause_dynamics.command.output import ADDED, Answer, Output

QUICK = ("simulate", "-n", "4", "--t-end", "0.2", "-s", "run.dt=0.1")
SWEEP = '[initial]\nn = 4\n[run]\nt_end = 0.5\n[sweep]\nseeds = 2\n[sweep.parameters]\n"rule.beta" = [1.0, 2.0]\n'
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def krause(*words, status=0):
    """A command whose two streams are apart."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_the_options_that_mean_something_for_it(name):
    has = {one.name for one in COMMANDS[name].params} & set(ADDED)
    rows, files = name in ("simulate", "sweep", "analyze", "compare", "train"), name != "train"
    figures = name in ("analyze", "compare", "train")
    expected = {"json": True, "quiet": True, "csv": rows, "force": files, "format": figures}
    assert has == {option for option, meant in expected.items() if meant}


def test_json_is_all_that_a_process_prints(here):
    process = subprocess.run(
        [sys.executable, "-m", "krause_dynamics", *QUICK, "--json"], capture_output=True, text=True, check=True
    )
    told = json.loads(process.stdout)
    run = kd.open(told["out"])
    assert (told["states"], told["particles"], told["dimension"]) == run.positions.shape
    assert (told["t_end"], told["ended_by"]) == (0.2, "t_end")


def test_csv_holds_the_positions(here):
    import pandas as pd

    result = krause(*QUICK, "--csv")
    table = pd.read_csv(io.StringIO(result.stdout))
    run = kd.open("run.npz")
    assert list(table) == ["time", "particle", "x0", "x1", "x2"]
    np.testing.assert_array_equal(table[["x0", "x1", "x2"]].to_numpy().reshape(run.positions.shape), run.positions)
    assert "run.npz: 3 states" in result.stderr
    assert "give one of them" in krause(*QUICK, "--csv", "--json", "-f", status=2).stderr


def test_quiet_prints_nothing_but_errors(here):
    result = krause(*QUICK, "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    assert "Error: " in krause(*QUICK, "--quiet", status=2).stderr  # run.npz is there


def test_numbers_of_a_sweep(here):
    import pandas as pd

    (here / "s.toml").write_text(SWEEP)
    told = json.loads(krause("sweep", "s.toml", "--workers", 0, "--json").stdout)
    found = xarray.open_dataset("sweep.nc", engine="h5netcdf")
    np.testing.assert_array_equal(told["mean_over_seeds"]["order_parameter"], found.order_parameter.mean("seed").values)
    assert told["values"] == {"rule_beta": [1.0, 2.0]}
    found.close()
    table = pd.read_csv(io.StringIO(krause("sweep", "s.toml", "--workers", 0, "--csv", "-f").stdout))
    assert list(table) == ["rule_beta", "seed", "order_parameter"]
    assert len(table) == 4


def test_what_is_no_number_is_null_in_json(capsys):
    Output(json=True).give(Answer("", {"a": np.array([np.nan, 1.0]), "b": np.float32(np.inf), "c": (np.int64(3),)}))
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": None, "c": [3]}


def test_nothing_is_replaced_where_nobody_can_be_asked(here):
    """Run file, picture, sweep; a run is not replaced by its repetition, a sweep that goes on replaces nothing."""
    krause(*QUICK, "--plot", "a.png")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert "run.npz is there already; --force replaces" in krause(*QUICK, status=2).stderr
    assert "a.png is there" in krause(*QUICK, "--out", "b", "--plot", "a.png", status=2).stderr
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
    krause("simulate", "run.npz")
    np.testing.assert_array_equal(kd.open("run_repeated.npz").positions, kd.open("run.npz").positions)
    krause(*QUICK, "--force")
    (here / "s.toml").write_text(SWEEP)
    krause("sweep", "s.toml", "--workers", 0)
    krause("sweep", "s.toml", "--workers", 0)
    assert "sweep.nc is there" in krause("sweep", "s.toml", "-s", "run.t_end=1.0", status=2).stderr


def test_a_folder_is_no_file(here):
    """`--out ..` wrote a file named "...npz", `--out .` ended in words of pathlib, a sweep in a traceback."""
    (here / "s.toml").write_text(SWEEP)
    (here / "runs").mkdir()
    for out in (".", "..", "runs"):
        for command in (QUICK, ("sweep", "s.toml", "--workers", 0), ("init", "sweep")):
            assert f"a file is to be written, but {out} is a folder" in krause(*command, "--out", out, status=2).stderr
    assert "but runs is a folder" in krause(*QUICK, "--plot", "runs", status=2).stderr
    assert sorted(path.name for path in here.iterdir()) == ["runs", "s.toml"]
    run = kd.simulate(kd.Dynamics(kd.krause(1.0)), np.zeros(3), 0.1)
    for folder in (".", here / "runs"):
        with pytest.raises(ValueError, match="path must name a file"):
            run.save(folder)
        with pytest.raises(ValueError, match="path must name a file"):
            kd.plots.save_figure(Figure(), folder)


def test_a_folder_counts_as_the_files_in_it(here):
    (here / "page.txt").write_text("words")
    out = here / "out"
    out.mkdir()
    (out / ".hidden").write_text("")
    Output().may_write(out, None)
    (out / "table.txt").write_text("mine")
    for command in (("analyze", "smollm2-135m"), ("compare", "smollm2-135m")):
        said = krause(*command, "--text", "page.txt", "--out", "out", status=2)
        assert "table.txt is there already; --force replaces, --out names another folder" in said.stderr
    assert (out / "table.txt").read_text() == "mine"


def answered(answer):
    """A command that finds its file, in a terminal where somebody types; its status and what it said."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "krause_dynamics", "init"], stdin=follower, stdout=follower, stderr=follower,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    said, deadline = b"", time.monotonic() + 60
    while b"Replace?" not in said:
        assert time.monotonic() < deadline
        said += os.read(leader, 1000)
    while process.poll() is None:
        assert time.monotonic() < deadline + 60
        if isinstance(answer, int):  # again where it fell into a finaliser, in which Python drops an exception
            process.send_signal(answer)
        else:
            os.write(leader, answer)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    os.close(leader)
    return process.returncode


def test_a_terminal_is_asked(here):
    for answer, status, kept in ((b"n\n", 2, True), (signal.SIGINT, 130, True), (b"y\n", 0, False)):
        (here / "circle.toml").write_text("mine")
        assert answered(answer) == status
        assert ((here / "circle.toml").read_text() == "mine") is kept


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_mistakes_are_one_line(name, here):
    for words in ((name, "--no-such-option"), (name, *["a"] * 9, "--json", "--seed", "x")):
        result = krause(*words, status=2)
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
    assert "Did you mean 'simulate'" in krause("simulat", status=2).stderr


def test_a_mistyped_model_is_answered_before_anything_is_loaded(here):
    code = (
        "import sys; from krause_dynamics.command.app import app\n"
        "try: app(['analyze', 'smolm2-135m', '--text', 'a.txt'])\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    (here / "a.txt").write_text("words")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "did you mean 'smollm2-135m'?" in process.stderr
    assert process.stdout.split() == ["False", "False"]
    (here / "checkpoint-500").mkdir()
    (here / "checkpoint-500" / "config.json").write_text("{}")
    check_model("checkpoint-500")
    (here / "b.txt").write_text("a second text behind one --text")
    with pytest.raises(ValueError, match="'b.txt' is a file.*its own --text"):
        check_model("b.txt")
    for name in ("gpt2", "meta-llama/Llama-3.2-1B", *BUNDLED):
        check_model(name)
    with pytest.raises(ValueError, match="did you mean 'checkpoint-500'"):
        check_model("checkpoint-50")
    with pytest.raises(ValueError, match="there is no 'models/run/best'"):
        check_model("models/run/best")


def test_names_of_bundled_models_are_those_of_analyze():
    from krause_dynamics.checkpoints.bundled import RXN_ALBERT, SMOLLM2

    assert BUNDLED == (SMOLLM2, RXN_ALBERT)


def test_what_an_interrupted_run_leaves_never_replaces(tmp_path):
    path = tmp_path / "run.interrupted.npz"
    assert free(path) == path
    path.touch()
    assert free(path).name == "run.interrupted.2.npz"
    (tmp_path / "run.interrupted.2.npz").touch()
    assert free(path).name == "run.interrupted.3.npz"


def test_options_are_documented():
    for name, (annotation, default) in ADDED.items():
        assert annotation.__metadata__[0].help, name
        assert inspect.signature(Output).parameters[name].default == default


def test_a_sweep_says_what_came_out(here):
    (here / "s.toml").write_text(SWEEP)
    told = krause("sweep", "s.toml", "--workers", 0).stdout.splitlines()
    found = xarray.open_dataset("sweep.nc", engine="h5netcdf")["order_parameter"]
    assert told[:2] == ["sweep.nc", "Sweep: 2 rule_beta x 2 seed"]
    assert told[2].endswith(f"{float(found.min()):.3g} to {float(found.max()):.3g}, mean {float(found.mean()):.3g}")
