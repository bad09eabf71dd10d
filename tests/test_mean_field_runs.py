"""Runs of densities on the one loop: killed and resumed, interrupted, stopped, reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field

LINE = mean_field.uniform(mean_field.LineCells(120, 0.0, 3.0))
CIRCLE = mean_field.von_mises(64, kappa=0.5, mean=1.0)
NOISY = kd.Dynamics(kd.softmax(beta=4.0), kd.Circle(), noise=0.2)
CONFIDENCE = kd.Dynamics(kd.bounded_confidence(0.5), kd.Interval(0.0, 3.0))


def solve(**options):
    return mean_field.solve(NOISY, CIRCLE, 1.0, save_at=7, **options)


def iterate(**options):
    return mean_field.iterate(CONFIDENCE, LINE, 9, save_every=2, **options)


RUNS = {"solve": solve, "iterate": iterate}
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


def same(one, other):
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.log_mass, other.log_mass)
    assert one.steps == other.steps
    assert one.meta == other.meta


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_by_the_system_resumes_bit_for_bit(name, tmp_path):
    """Its process ends by SIGKILL in the middle, without a chance to clean up."""
    program = f"""
        import os, signal
        from tests.test_mean_field_runs import {name}

        def kill(t, density):
            kill.seen += 1
            if kill.seen == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        kill.seen = 0
        {name}(on_save=kill, checkpoint={str(tmp_path / "file")!r}, checkpoint_every=0.0)
        """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    with np.load(tmp_path / "file") as file:
        assert len(file["times"]) == 3  # the start and two states: the third was not written any more
    run = RUNS[name]
    same(run(checkpoint=tmp_path / "file"), run())
    same(run(checkpoint=tmp_path / "file"), run())  # returns at once


@runs
def test_ctrl_c_keeps_what_there_is_and_the_run_goes_on_later(run, tmp_path):
    def interrupt(t, density):
        if not seen:
            seen.append(t)
            os.kill(os.getpid(), signal.SIGINT)

    seen: list[float] = []
    partial = run(on_save=interrupt, checkpoint=tmp_path / "file", checkpoint_every=1e9)
    assert partial.meta["stopped"] == "interrupted"
    assert seen[0] < partial.times[-1] < run().times[-1]
    same(run(checkpoint=tmp_path / "file"), run())


@runs
def test_progress_is_reported_after_every_step(run):
    seen: list[tuple[float, float]] = []
    trajectory = run(progress=lambda done, total: seen.append((done, total)))
    times = [done for done, _ in seen]
    assert times == sorted(set(times))
    assert len(times) == trajectory.steps
    assert times[-1] == trajectory.times[-1] == seen[-1][1]


@runs
def test_the_file_of_another_run_is_refused_and_kept(run, tmp_path):
    path = tmp_path / "file"
    run(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"belongs to another run \(different: stop\)"):
        run(checkpoint=path, stop=kd.stopping.AtTime(0.5))
    with pytest.raises(ValueError, match="different: .*dt"):
        run(checkpoint=path, dt=1e-3)
    assert path.read_bytes() == before


@runs
def test_a_run_that_goes_on_keeps_the_form_that_its_file_names(run, tmp_path):
    chosen = run().meta["impl"]
    named = "reference" if chosen != "reference" else "blocked"
    first = run(impl=named, stop=_never, checkpoint=tmp_path / "file")
    assert first.meta["impl"] == named != chosen
    same(run(stop=_never, checkpoint=tmp_path / "file"), first)


def _never(t, density, previous):
    assert density.total == pytest.approx(previous.total)
    return


def test_a_stop_rule_ends_the_layers_and_every_saved_one_is_told():
    told: list[tuple[float, float]] = []
    run = mean_field.iterate(
        CONFIDENCE,
        LINE,
        9,
        stop=lambda layer, density, previous: "enough" if layer == 4 else None,
        on_save=lambda layer, density: told.append((layer, density.variance)),
    )
    assert run.meta["stopped"] == "enough"
    np.testing.assert_array_equal(run.times, [0, 1, 2, 3, 4])
    assert [layer for layer, _ in told] == [1, 2, 3, 4]
    kept = [mean_field.density_at(run, k).variance for k in range(1, 5)]
    assert [variance for _, variance in told] == pytest.approx(kept, rel=1e-14)  # a file holds logarithms


def test_layers_go_on_to_more(tmp_path):
    """The layer that was kept only because there were no more is no part of the longer run."""
    for steps in (3, 9):
        run = mean_field.iterate(CONFIDENCE, LINE, steps, save_every=2, checkpoint=tmp_path / "file")
        assert run.times[-1] == steps
    same(run, iterate())
