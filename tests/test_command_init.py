"""`krause init` and the examples: each runs as it is written, and the options of a rule mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics.command.app import app
from krause_dynamics.command.rules import disguised, rule_options

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[1] / "examples").glob("*.toml"))


def called(*words, status=0):
    """Output of a command that ends with this status."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


def test_every_example_is_written_and_named():
    assert EXAMPLES == ["circle", "opinions", "plane", "sweep", "train"]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_init_writes_an_example_and_replaces_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"krause {kind if kind in ('sweep', 'train') else 'simulate'} {kind}.toml" in called("init", kind)
    written = (tmp_path / f"{kind}.toml").read_text()
    assert written.startswith("#")
    (tmp_path / f"{kind}.toml").write_text("mine")
    assert "--force" in called("init", kind, status=2)
    assert (tmp_path / f"{kind}.toml").read_text() == "mine"
    called("init", kind, "--force")
    assert (tmp_path / f"{kind}.toml").read_text() == written
    assert "did you mean 'circle'" in called("init", "circel", status=2)


@pytest.mark.parametrize("kind", ["circle", "opinions", "plane"])
def test_examples_run(kind, tmp_path, monkeypatch):
    """As written, but for a shorter time; several clusters remain in all of them."""
    monkeypatch.chdir(tmp_path)
    called("init", kind)
    called("simulate", f"{kind}.toml", "--plot", "run.png")
    run = kd.open("run.npz")
    extent = np.ptp(run.positions[0])
    assert 2 <= kd.clusters.find(run.final, 0.02 * extent).count < run.final.shape[0] / 2
    assert (tmp_path / "run.png").stat().st_size > 5000


def test_the_sweep_runs_and_is_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called("init", "sweep")
    called("sweep", "sweep.toml", "-s", "run.t_end=2.0", "-s", "sweep.seeds=1", "--workers", "0", "--plot", "a.svg")
    found = xarray.open_dataset("sweep.nc")
    assert dict(found.sizes) == {"rule_sigma": 3, "rule_neighbourhood_radius": 3, "seed": 1}
    assert found.rule_neighbourhood_radius.values.tolist() == [0.5, 1.0, 2.0]
    assert "rule neighbourhood radius" in (tmp_path / "a.svg").read_text()  # a comment beside the paths of the letters
    refused = called(
        "sweep", "sweep.toml", "-s", 'sweep.parameters={"rule.sigma"=[1.0]}', "--plot", "a.svg", "--force", status=2
    )  # fmt: skip
    assert "two parameters of numbers" in refused


def test_krause_in_the_command_hears_within_a_radius(tmp_path):
    """The rule named without a neighbourhood is not softmax; with softmax's options it is said to be one."""
    krause, softmax = tmp_path / "krause.npz", tmp_path / "softmax.npz"
    called("simulate", "--rule", "krause", "-n", 16, "--t-end", 2, "--out", krause)
    called("simulate", "-n", 16, "--t-end", 2, "--out", softmax)
    assert np.abs(kd.open(krause).final - kd.open(softmax).final).max() > 0.05
    assert "Within(radius=0.5)" in repr(kd.open(krause))
    said = called(
        "simulate", "--rule", "krause", "-s", "rule.neighbourhood=[]", "-n", 16, "--t-end", 2, "--out", krause, "-f"
    )  # fmt: skip
    assert "softmax with beta = 1;" in said
    np.testing.assert_allclose(kd.open(krause).final, kd.open(softmax).final, atol=1e-12)


def test_options_of_a_rule():
    nothing = dict.fromkeys(("rule", "beta", "sigma", "radius", "window", "top_k"))
    assert set(rule_options({}, **nothing).values()) == {None}
    given = rule_options({}, **{**nothing, "rule": "krause", "sigma": 2.0, "window": 8, "top_k": 3})
    assert given["rule.neighbourhood"] == [{"type": "Window", "size": 8}, {"type": "TopK", "k": 3}]
    assert given["rule.sigma"] == 2.0
    assert rule_options({}, **{**nothing, "rule": "bounded_confidence", "radius": 0.3})["rule.radius"] == 0.3
    written = {"rule": {"type": "krause", "neighbourhood": []}}
    assert rule_options(written, **{**nothing, "rule": "krause"})["rule.neighbourhood"] is None
    flat = {"rule": {"type": "krause", "sigma": 1.0}, "space": {"type": "Euclidean"}}
    assert disguised(flat) is None
    assert "beta = 4" in disguised({"rule": {"type": "krause", "sigma": 0.5}, "space": {"type": "Circle"}})
