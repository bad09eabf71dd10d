"""A step of each arm alone: of the arm's own model and data, timed where it is, and shown in the table of verdicts."""

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from evidence import costs, logs  # noqa: E402
from evidence.experiments import EXPERIMENTS  # noqa: E402
from evidence.plan import Arm, Run  # noqa: E402


def test_each_arm_is_timed_once_and_rows_are_kept(tmp_path, capsys, monkeypatch):
    """A second call measures nothing again; a limit of no time begins no arm."""
    call = ["--small", "--steps", "1", "--out", str(tmp_path)]
    costs.main(["cifar", "--limit-seconds", "0", *call])
    assert logs.read(tmp_path, "costs", "results") == []
    costs.main(["pair", *call])
    rows = logs.read(tmp_path, "costs", "results")
    assert [row["arm"] for row in rows] == [arm.name for arm in EXPERIMENTS["pair"].arms]
    assert all(row["milliseconds"] > 0 and row["batch_size"] == 16 for row in rows)
    assert capsys.readouterr().out.count("ms a step") == len(rows)
    monkeypatch.setattr(costs, "measured", lambda run, **rest: pytest.fail(f"{run.name} again"))
    costs.main(["pair", *call])


@pytest.mark.parametrize("run", [
    Run("cifar", "gaussian.window+top_k", 0), Run("fashion-read_out", "gaussian.full.mean", 0),
    Run("novels", "gaussian.window+top_k.gated", 0),
], ids=lambda run: run.experiment)  # fmt: skip
def test_the_step_is_that_of_the_arm(run, monkeypatch):
    """The model that is timed is the arm's, and its weights move: it is a whole step, not a forward pass."""
    seen = []

    def watched(step, steps):
        model = seen[0]
        before = [p.detach().clone() for p in model.parameters()]
        step(0)
        assert sum(bool((a != b).any()) for a, b in zip(before, model.parameters(), strict=True)) > len(before) / 2
        return 1.5

    built = costs.build
    monkeypatch.setattr(costs, "build", lambda *args: seen.append(built(*args)) or seen[0])
    monkeypatch.setattr(costs, "timed", watched)
    row = costs.measured(run, small=True)
    wanted = {"kind": None, "size": None, **EXPERIMENTS[run.experiment].tables["model"]} | Arm(run.arm).model
    config = seen[0].config.to_dict()
    assert {key: config[key] for key in ("score", "support")} == {key: wanted[key] for key in ("score", "support")}
    assert config.get("read_out", "cls") == wanted.get("read_out", "cls")
    assert bool(config.get("gate")) == bool(wanted.get("gate"))
    assert row["milliseconds"] == 1.5


def test_the_time_is_the_median_of_rounds_after_the_first(monkeypatch):
    """Rounds of 100 (not counted), 1, 2, 3, 4 and 50 seconds for ten steps: the median is 3 seconds, 300 ms a step."""
    ticks = iter([x for seconds in (100, 1, 2, 3, 4, 50) for x in (0.0, float(seconds))])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(ticks))
    calls = []
    assert costs.timed(calls.append, 10) == pytest.approx(300.0)
    assert calls == 6 * list(range(10))
