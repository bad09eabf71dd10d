"""kd.simulate as seen while it runs: on_save, progress, checkpoint, checkpoint_every."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))
X0 = np.random.default_rng(41).standard_normal((5, 2))


class Heard:
    """A callback that remembers its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, t, x):
        self.calls.append((t, x))


@row(
    "kd.simulate",
    "on_save",
    None,
    Heard(),
    "is given every state that the run keeps after the first, and its time, in order",
)
def on_save(first, second):
    second.calls.clear()
    run = kd.simulate(MEAN, X0, 1.0, dt=0.1, save_every=4, on_save=second)
    silent = kd.simulate(MEAN, X0, 1.0, dt=0.1, save_every=4, on_save=first)
    times, states = zip(*second.calls, strict=True)
    np.testing.assert_array_equal(times, silent.times[1:])
    np.testing.assert_array_equal(np.stack(states), run.positions[1:])


@row(
    "kd.simulate",
    "progress",
    False,
    Heard(),
    "is called with the time of every step, increasing to the end, and the end",
)
def progress(first, second):
    second.calls.clear()
    run = kd.simulate(MEAN, X0, 1.0, dt=0.1, save_at=[], progress=second)
    times, ends = np.array(second.calls).T
    np.testing.assert_allclose(times, np.arange(1, 11) / 10, atol=1e-12)
    np.testing.assert_array_equal(ends, 1.0)
    np.testing.assert_array_equal(run.final, kd.simulate(MEAN, X0, 1.0, dt=0.1, save_at=[], progress=first).final)


class Killed(RuntimeError):
    """What ends a run from outside."""


def kill(t, x):
    if t > 0.5:
        raise Killed


def walk(**options):
    return kd.simulate(kd.Dynamics(kd.softmax(), noise=0.3), X0, 1.0, dt=0.1, rng=3, **options)


@row(
    "kd.simulate",
    "checkpoint",
    None,
    "run.npz",
    "a killed run, called again with the file, ends with the numbers of one never killed",
)
def checkpoint(first, second):
    whole = walk(checkpoint=first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / second
        with pytest.raises(Killed):
            walk(checkpoint=path, checkpoint_every=0.0, on_save=kill)
        late = Heard()
        resumed = walk(checkpoint=path, on_save=late)
        assert late.calls[0][0] > 0.4  # what was done is not done again
        np.testing.assert_array_equal(resumed.positions, whole.positions)
        with pytest.raises(ValueError, match="another run"):
            kd.simulate(MEAN, X0, 1.0, checkpoint=path)


@row(
    "kd.simulate",
    "checkpoint_every",
    0.0,
    1e9,
    "0 writes after each step, so a killed run leaves a file; a long time leaves none until the end",
)
def checkpoint_every(first, second):
    for seconds in (first, second):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.npz"
            with pytest.raises(Killed):
                walk(checkpoint=path, checkpoint_every=seconds, on_save=kill)
            assert path.exists() == (seconds == 0.0)
            walk(checkpoint=path, checkpoint_every=seconds)
            assert path.exists()
