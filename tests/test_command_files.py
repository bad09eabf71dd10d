"""The command line and files from elsewhere; signals keep what is finished, and what a terminal shows is harmless."""

from __future__ import annotations

import functools
import os
import signal

import numpy as np
import pytest
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics.command import configuration, inputs
from krause_dynamics.command.app import app

FROM_FILE = '[rule]\ntype = "bounded_confidence"\n[space]\ntype = "Euclidean"\n[initial]\ntype = "file"\npath = "{}"\n'
RUN = "[run]\nt_end = 0.2\ndt = 0.1\n"
START = np.array([0.1, 0.5, 0.75, 2.0])


def krause(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def written(folder, ending):
    """A file of `START` of one kind."""
    path = folder / f"start{ending}"
    match ending:
        case ".npy":
            np.save(path, START)
        case ".npz":
            np.savez(path, anything=START)
        case ".csv":
            path.write_text("\ufeffopinion\r\n0.1\r\n0.5\r\n0.75\r\n2\r\n", encoding="utf-8")
        case ".txt":
            path.write_text("# four\n0.1\n0.5\n0.75\n2.0\n")
        case ".nc":
            kd.Trajectory(np.zeros(1), START[None, :, None]).save(path)
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".txt", ".nc"])
def test_a_start_is_read_from_beside_the_configuration(ending, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    written(tmp_path / "a", ending)
    (tmp_path / "a" / "run.toml").write_text(FROM_FILE.format(f"start{ending}") + RUN)
    monkeypatch.chdir(tmp_path)
    result = krause("simulate", "a/run.toml", "--out", "q.npz")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(kd.Trajectory.load("q.npz").positions[0, :, 0], START)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert krause("simulate", "../q.npz", "--out", "again.npz").exit_code == 0
    np.testing.assert_array_equal(kd.Trajectory.load("again.npz").final, kd.Trajectory.load("../q.npz").final)


def test_a_file_that_has_changed_is_refused(tmp_path):
    np.save(tmp_path / "start.npy", START)
    toml, out = tmp_path / "run.toml", tmp_path / "q.npz"
    toml.write_text(FROM_FILE.format("start.npy") + RUN + '[sweep.parameters]\n"rule.radius" = [0.2, 0.3]\n')
    assert krause("simulate", toml, "--out", out).exit_code == 0
    kept = tmp_path / "kept.npz"
    assert krause("sweep", toml, "--out", tmp_path / "s.nc", "--workers", "0", "--resume", kept).exit_code == 0
    np.save(tmp_path / "start.npy", START[:3])
    result = krause("simulate", out, "--out", tmp_path / "again.npz")
    assert result.exit_code == 2
    assert "has changed since the run" in result.output
    assert not (tmp_path / "again.npz").exists()
    result = krause("sweep", toml, "--out", tmp_path / "s.nc", "--workers", "0", "--resume", kept, "--force")
    assert result.exit_code == 2
    assert "another sweep" in result.output
    assert "['files']" in result.output
    anew = krause("simulate", out, "--out", tmp_path / "again.npz", "-s", f"initial.path={tmp_path / 'start.npy'}")
    assert anew.exit_code == 0, anew.output
    assert kd.Trajectory.load(tmp_path / "again.npz").final.shape == (3, 1)


def test_opinions_know_networks_weights_and_stubborn_agents(tmp_path):
    written(tmp_path, ".csv")
    links = np.eye(4, k=1) + np.eye(4, k=-1)
    np.savetxt(tmp_path / "net.csv", links, delimiter=",")
    (tmp_path / "net.edgelist").write_text("0 1\n1 2\n2 3\n")
    (tmp_path / "weights.txt").write_text("1\n2\n1\n1\n")
    (tmp_path / "fixed.csv").write_text("0\n0\n0\n1\n")
    expected = kd.hegselmann_krause(START, 1.5, graph=links, weights=[1, 2, 1, 1], fixed=[False] * 3 + [True])
    text = FROM_FILE.partition("[initial]")[2].format("start.csv")
    for graph, weights, fixed in (
        ('"net.csv"', '"weights.txt"', '"fixed.csv"'),
        ('"net.edgelist"', "[1, 2, 1, 1]", "[false, false, false, true]"),
    ):
        toml = tmp_path / "run.toml"
        toml.write_text(
            f"[opinions]\nradius = 1.5\ngraph = {graph}\nweights = {weights}\nfixed = {fixed}\n[initial]{text}"
        )
        result = krause("simulate", toml, "--out", tmp_path / "o.npz", "--force")
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(kd.Trajectory.load(tmp_path / "o.npz").final, expected.final)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "must name a file that exists"),
        ("a.xlsx", b"", "must name a file that ends in"),
        ("a.csv", b"name,opinion\nann,0.1\n", "every line must hold 2 numbers, got 'ann 0.1'"),
        ("a.csv", b",0\n0,0.1\n1,0.2\n", "first column has no name"),
        ("a.csv", b"", "it holds no numbers"),
        ("a.csv", b"0.1\n0.2,0.3\n", "every line must hold 1 numbers"),
        ("a.npy", b"\x93NUMPY", "damaged or of another kind"),
        ("a.npz", b"PK", "damaged or of another kind"),
    ],
)
def test_files_that_hold_no_start_get_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "run.toml").write_text(FROM_FILE.format(name) + RUN)
    result = krause("simulate", tmp_path / "run.toml", "--out", tmp_path / "result.npz")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_several_arrays_and_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=START, b=START)
    with pytest.raises(ValueError, match="must hold one array, got a, b"):
        inputs.array_of("initial.path", str(tmp_path / "two.npz"), {})
    np.save(tmp_path / "object.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged or of another kind"):
        inputs.array_of("initial.path", str(tmp_path / "object.npy"), {})


def test_names_cannot_steer_the_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("\x1b[31mred\x1b[0m.toml", "[bold red]x[/bold red].toml"):
        result = krause("simulate", name)
        assert result.exit_code == 2
        assert "\x1b" not in result.output
        assert name.replace("\x1b", "\\x1b") in result.output.replace("\n", "")


def test_absurd_sizes_get_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[sweep]\nseeds = 1_000_000_000\n[sweep.parameters]\n"rule.beta" = [1.0]\n')
    result = krause("sweep", "s.toml")
    assert result.exit_code == 2
    assert "at most 10_000_000 points, got 1_000_000_000" in result.output
    for settings in (("-n", str(10**13)), ("-n", str(2**70))):
        result = krause("simulate", *settings)
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
    for suffix in ("foo", "jpg"):
        assert "must end in .png" in krause("simulate", "--plot", f"a.{suffix}").output
    assert list(tmp_path.iterdir()) == [tmp_path / "s.toml"]


@pytest.fixture
def signalled(monkeypatch):
    """Runs of the command that receive a signal at t = 0.5."""

    def arrange(number):
        def tell(t, x):
            if t >= 0.5 and not sent:
                sent.append(t)
                os.kill(os.getpid(), number)

        sent: list[float] = []
        monkeypatch.setattr(configuration, "simulate", functools.partial(kd.simulate, on_save=tell))

    return arrange


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_what_is_finished_and_the_earlier_file(number, status, tmp_path, signalled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ("-n", "4", "--t-end", "1.0", "-s", "run.dt=0.1", "--out", "a.npz", "--force")
    assert krause("simulate", *settings).exit_code == 0
    before = (tmp_path / "a.npz").read_bytes()
    whole = kd.Trajectory.load("a.npz")
    signalled(number)
    result = krause("simulate", *settings, "--checkpoint", "c.npz")
    assert result.exit_code == status, result.output
    assert (tmp_path / "a.npz").read_bytes() == before
    assert "a.interrupted.npz holds the run up to t = 0.6" in result.output
    assert "--checkpoint c.npz goes on" in result.output
    half = kd.Trajectory.load("a.interrupted.npz")
    np.testing.assert_array_equal(half.positions, whole.positions[: len(half)])
    assert krause("simulate", *settings, "--checkpoint", "c.npz").exit_code == 0
    np.testing.assert_array_equal(kd.Trajectory.load("a.npz").positions, whole.positions)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sweep_keeps_its_points_and_goes_on(number, status, workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(
        '[initial]\nn = 4\n[run]\nt_end = 0.2\n[sweep.parameters]\n"rule.beta" = [1, 2, 3]\n'
    )
    from krause_dynamics.sweeps import store

    done = []

    def add(self, index, result, add=store.Store.add):
        add(self, index, result)
        done.append(index)
        if len(done) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(store.Store, "add", add)
    result = krause("sweep", "s.toml", "--workers", workers)
    assert result.exit_code == status, result.output
    assert "finished points are in sweep.unfinished.npz, and the same command goes on" in result.output
    assert not (tmp_path / "sweep.nc").exists()
    result = krause("sweep", "s.toml", "--workers", workers)
    assert result.exit_code == 0, result.output
    assert sorted(done[:3]) == [0, 1, 2]
    assert len(done) == 3
    assert not (tmp_path / "sweep.unfinished.npz").exists()


def test_a_sweep_that_kept_nothing_says_so(tmp_path, monkeypatch):
    from krause_dynamics.command import sweep

    def stop(*args, **point):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[sweep.parameters]\n"rule.beta" = [1, 2]\n')
    monkeypatch.setattr(sweep, "evaluate_point", stop)
    result = krause("sweep", "s.toml", "--workers", 0)
    assert result.exit_code == 130, result.output
    assert "interrupted; no point was finished" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]
