"""kd.mean_field.solve and iterate on the loop: files, progress, and what iterate tells and asks on the way."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
SOLVE, ITERATE = "kd.mean_field.solve", "kd.mean_field.iterate"
MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))  # drift: mean - x
START = mf.gaussian(mf.LineCells(60, -4.0, 4.0), 0.2, 0.6)


def solve(**options):
    return mf.solve(MEAN, START, 0.5, save_at=6, **options)


def iterate(**options):
    return mf.iterate(MEAN, START, 5, dt=0.1, **options)


RUNS = (solve, iterate)


class Killed(Exception):
    """In place of a signal."""


class Heard:
    """Keeps what it is called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, *arguments):
        self.calls.append(arguments)


class KillAfter(Heard):
    """Raises at the third state that is kept."""

    def __call__(self, *arguments):
        super().__call__(*arguments)
        if len(self.calls) == 3:
            raise Killed


def half(run, path, seconds):
    """Leave the file of a run that was killed in its middle."""
    with pytest.raises(Killed):
        run(checkpoint=path, checkpoint_every=seconds, on_save=KillAfter())


GOES_ON = "a killed run, called again with the file, does the rest only and ends with the numbers of one never killed"


@row(SOLVE, "checkpoint", None, "solve.npz", GOES_ON)
@row(ITERATE, "checkpoint", None, "iterate.npz", GOES_ON)
def checkpoint(first, second):
    run = solve if "solve" in second else iterate
    whole = run(checkpoint=first)
    with tempfile.TemporaryDirectory() as folder:
        path, late = Path(folder) / second, Heard()
        half(run, path, 0.0)
        resumed = run(checkpoint=path, on_save=late)
        assert [t for t, _ in late.calls] == list(whole.times[3:])
        np.testing.assert_array_equal(resumed.log_mass, whole.log_mass)
        with pytest.raises(ValueError, match="belongs to another run"):
            run(checkpoint=path, impl="reference" if whole.meta["impl"] != "reference" else "blocked")


WRITES = "0 writes after each step, so a killed run leaves a file; a long time leaves none until the end"


@row(SOLVE, "checkpoint_every", 0.0, 1e9, WRITES)
@row(ITERATE, "checkpoint_every", 0.0, 1e8, WRITES)
def checkpoint_every(first, second):
    run = solve if second == 1e9 else iterate
    for seconds in (first, second):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.npz"
            half(run, path, seconds)
            assert path.exists() == (seconds == 0.0)
            run(checkpoint=path, checkpoint_every=seconds)
            assert path.exists()


@row(SOLVE, "progress", False, Heard(), "is told the time after each step, increasing to the end, and changes nothing")
def progress_of_solve(first, second):
    second.calls.clear()
    silent, told = solve(progress=first), solve(progress=second)
    times, ends = np.transpose(second.calls)
    assert (np.diff(times) > 0).all()
    assert (times.size, times[-1], set(ends)) == (told.steps, 0.5, {0.5})
    np.testing.assert_array_equal(silent.log_mass, told.log_mass)


@row(ITERATE, "progress", False, Heard(), "is told every layer, and the last one of all")
def progress_of_iterate(first, second):
    second.calls.clear()
    silent, told = iterate(progress=first), iterate(progress=second)
    assert second.calls == [(layer, 5) for layer in range(1, 6)]
    np.testing.assert_array_equal(silent.log_mass, told.log_mass)


def close(layer, density, before):
    return "close" if density.variance < 0.9 * before.variance else None


@row(
    ITERATE,
    "stop",
    None,
    close,
    "asked with the densities after and before: a layer of 0.1 multiplies variances by 0.81",
)
def stop(first, second):
    assert iterate(stop=first).meta["stopped"] == "steps"
    ended = iterate(stop=second)
    assert (ended.steps, ended.meta["stopped"]) == (1, "close")
    # The images are shared out with linear weights: at most width^2/4 more than the map itself.
    assert 0 <= mf.density_at(ended).variance - 0.81 * START.variance <= START.cells.width**2 / 4


@row(ITERATE, "on_save", None, Heard(), "is given every layer that is kept after the first, and its density, in order")
def on_save(first, second):
    second.calls.clear()
    iterate(save_every=2, on_save=second)
    silent = iterate(save_every=2, on_save=first)
    assert [layer for layer, _ in second.calls] == [2, 4, 5] == list(silent.times[1:])
    for k, (_, density) in enumerate(second.calls):
        np.testing.assert_array_equal(density.log_mass, silent.log_mass[k + 1])
