"""Bounded confidence, the run: noise, schedule, stop, what is kept, files, forms; and hegselmann_krause_batch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

HK = "kd.hegselmann_krause"
LATTICE = np.arange(6.0)  # with radius 1: six steps to the clusters {0, 1, 2} and {3, 4, 5}
X0 = np.random.default_rng(71).random(40)
FAR = 100.0 * np.arange(3000)  # nobody hears anybody


def midpoints(x, order):
    """Agents of ``order``, one after the other, go to the mean of all that they hear within 0.3 now."""
    x = x.copy()
    for i in order:
        x[i] = x[np.abs(x - x[i]) <= 0.3].mean()
    return x


@row(
    HK,
    "noise",
    None,
    kd.StepNoise(0.25),
    "isolated agents stand still, or their steps add up: variance std^2 a unit of time",
)
def noise(first, second):
    assert kd.hegselmann_krause(FAR, 1.0, noise=first).steps == 0
    moved = kd.hegselmann_krause(FAR, 1.0, noise=second, max_steps=4, rng=1).final[:, 0] - FAR
    assert abs(moved.mean()) < 5 * 0.5 / np.sqrt(3000)  # five standard errors
    assert moved.var() == pytest.approx(4 * 0.25**2, rel=5 * np.sqrt(2 / 3000))


@row(
    HK,
    "schedule",
    None,
    kd.Sequential("cyclic"),
    "all at once by default; cyclic: agent after agent hears what the earlier ones became",
)
def schedule(first, second):
    at_once = np.array([X0[np.abs(X0 - x) <= 0.3].mean() for x in X0])
    start = kd.hegselmann_krause(X0, 0.3, max_steps=1, schedule=first)
    np.testing.assert_allclose(start.final[:, 0], at_once, rtol=1e-13)
    same = kd.hegselmann_krause(X0, 0.3, max_steps=1, schedule=kd.Synchronous())
    np.testing.assert_array_equal(same.final, start.final)
    turns = kd.hegselmann_krause(X0, 0.3, max_steps=1, schedule=second)
    np.testing.assert_allclose(turns.final[:, 0], midpoints(X0, range(40)), rtol=1e-12)


@row(
    HK,
    "stop",
    None,
    kd.stopping.AtTime(3.0),
    "frozen after six steps of the lattice by default, or ended by the rule at time 3",
)
def stop(first, second):
    frozen, ended = (kd.hegselmann_krause(LATTICE, 1.0, stop=rule) for rule in (first, second))
    assert (frozen.steps, frozen.meta["stopped"]) == (6, "frozen")
    assert (ended.times[-1], ended.meta["stopped"]) == (3.0, "time")
    np.testing.assert_array_equal(ended.positions, frozen.positions[:4])


@row(HK, "max_steps", None, 4, "a lattice of 6 freezes after six steps; four of them are the same path, cut")
def max_steps(first, second):
    frozen, cut = (kd.hegselmann_krause(LATTICE, 1.0, max_steps=most) for most in (first, second))
    assert (cut.steps, cut.meta["stopped"]) == (second, "max_steps")
    np.testing.assert_array_equal(cut.positions, frozen.positions[: second + 1])
    assert (frozen.steps, frozen.meta["stopped"]) == (6, "frozen")
    with pytest.raises(ValueError, match="max_steps"):
        kd.hegselmann_krause(LATTICE, 1.0, max_steps=0)


@row(HK, "save_every", None, 4, "all states, or every fourth and both ends, of one path")
def save_every(first, second):
    whole, sparse = (kd.hegselmann_krause(LATTICE, 1.0, save_every=count) for count in (first, second))
    np.testing.assert_array_equal(whole.times, np.arange(7))
    np.testing.assert_array_equal(sparse.times, [0, 4, 6])
    np.testing.assert_array_equal(sparse.positions, whole.positions[[0, 4, 6]])


class Heard:
    """A callback that remembers its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, t, x):
        self.calls.append((t, x.copy()))


@row(HK, "on_save", None, Heard(), "is given every state that the run keeps after the first, and its time, in order")
def on_save(first, second):
    second.calls.clear()
    kd.hegselmann_krause(LATTICE, 1.0, save_every=2, on_save=second)
    silent = kd.hegselmann_krause(LATTICE, 1.0, save_every=2, on_save=first)
    times, states = zip(*second.calls, strict=True)
    np.testing.assert_array_equal(times, silent.times[1:])
    np.testing.assert_array_equal(np.stack(states), silent.positions[1:])


@row(HK, "progress", False, Heard(), "is told time and max_steps, increasing to the end; the run is the same")
def progress(first, second):
    second.calls.clear()
    told = kd.hegselmann_krause(LATTICE, 1.0, max_steps=5, progress=lambda t, most: second(t, np.array(most)))
    times, most = zip(*second.calls, strict=True)
    assert list(times) == sorted(set(times))
    assert (times[-1], set(map(int, most))) == (5, {5})
    silent = kd.hegselmann_krause(LATTICE, 1.0, max_steps=5, progress=first)
    np.testing.assert_array_equal(told.positions, silent.positions)


@row(HK, "rng", 3, 4, "one seed one path, as its generator gives; another seed an independent one")
def rng(first, second):
    options = {"noise": kd.StepNoise(0.25), "max_steps": 2}
    ends = [kd.hegselmann_krause(FAR, 1.0, rng=seed, **options).final[:, 0] - FAR for seed in (first, second)]
    again = kd.hegselmann_krause(FAR, 1.0, rng=np.random.default_rng(first), **options).final[:, 0] - FAR
    np.testing.assert_array_equal(again, ends[0])
    assert abs(np.corrcoef(*ends)[0, 1]) < 5 / np.sqrt(3000)
    with pytest.raises(TypeError, match="rng"):
        kd.hegselmann_krause(FAR, 1.0, **options)


class Killed(RuntimeError):
    """What ends a run from outside."""


def kill(t, x):
    if t >= 3:
        raise Killed


def meet(**options):
    return kd.hegselmann_krause(X0, 0.2, schedule=kd.Deffuant(0.3), rng=5, max_steps=8, **options)


@row(
    HK,
    "checkpoint",
    None,
    "run.npz",
    "a killed run, called again with the file, ends with the numbers of one never killed",
)
def checkpoint(first, second):
    whole = meet(checkpoint=first)
    with tempfile.TemporaryDirectory() as folder:
        path, late = Path(folder) / second, Heard()
        with pytest.raises(Killed):
            meet(checkpoint=path, checkpoint_every=0.0, on_save=kill)
        resumed = meet(checkpoint=path, on_save=late)
        assert late.calls[0][0] > 1  # what was done is not done again
        np.testing.assert_array_equal(resumed.positions, whole.positions)
        with pytest.raises(ValueError, match="another run"):
            kd.hegselmann_krause(X0, 0.3, checkpoint=path)


@row(
    HK,
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
                meet(checkpoint=path, checkpoint_every=seconds, on_save=kill)
            assert path.exists() == (seconds == 0.0)
            meet(checkpoint=path, checkpoint_every=seconds)
            assert path.exists()


@row(
    HK,
    "impl",
    "auto",
    "reference",
    "the dense definition gives the states of the compiled plan, and is named in the metadata",
)
def impl(first, second):
    plan, dense = (kd.hegselmann_krause(X0, 0.15, impl=name) for name in (first, second))
    np.testing.assert_allclose(dense.positions, plan.positions, atol=1e-13)
    assert dense.meta["impl"] == second != plan.meta["impl"]
    with pytest.raises(kd.UnsupportedImplementation):
        kd.hegselmann_krause(X0, 0.15, impl="sdpa")


SAMPLES = np.random.default_rng(72).random((3, 25))
BATCH = "kd.hegselmann_krause_batch"


def equals_single_runs(samples, radii, **options):
    """Every entry of the batch is what a single run gives."""
    batch = kd.hegselmann_krause_batch(samples, radii, **options)
    assert batch.largest.shape == (len(np.atleast_1d(radii)), len(np.atleast_2d(samples)))
    for r, radius in enumerate(np.atleast_1d(radii)):
        for s, sample in enumerate(np.atleast_2d(samples)):
            run = kd.hegselmann_krause(sample, radius, **options)
            assert batch.frozen[r, s] == (run.meta["stopped"] == "frozen")
            assert batch.steps[r, s] == run.steps
            if batch.frozen[r, s]:
                assert batch.clusters[r, s] == len(kd.final_clusters(run).masses)
                assert batch.largest[r, s] == pytest.approx(kd.final_clusters(run).masses.max(), rel=1e-14)
    return batch


@row(BATCH, "samples", SAMPLES, LATTICE, "largest cluster, number and steps of every sample as single runs give them")
def samples(first, second):
    equals_single_runs(first, [0.2])
    assert equals_single_runs(second, [1.0]).largest.tolist() == [[0.5]]


@row(
    BATCH,
    "radii",
    0.2,
    [0.1, 0.3, 2.0],
    "one row for each radius, as single runs give them; beyond the range all agree at once",
)
def radii(first, second):
    equals_single_runs(SAMPLES, first)
    batch = equals_single_runs(SAMPLES, second)
    assert batch.steps[2].tolist() == [1, 1, 1]
    assert batch.consensus[2] == 1.0


@row(
    BATCH,
    "closed",
    True,
    False,
    "a lattice whose spacing is the radius ends in two clusters of three, or does not move",
)
def batch_closed(first, second):
    batch = equals_single_runs(LATTICE, [1.0, 2.0], closed=first)
    assert (batch.clusters[0, 0], batch.steps[0, 0]) == (2, 6)
    opened = equals_single_runs(LATTICE, [1.0, 2.0], closed=second)
    assert (opened.clusters[0, 0], opened.steps[0, 0]) == (6, 0)
    assert kd.hegselmann_krause_batch(LATTICE, 1.0).steps[0, 0] == 6


@row(BATCH, "max_steps", 6, 5, "six steps of the lattice and rest; with five it is not frozen")
def batch_max_steps(first, second):
    enough = equals_single_runs(LATTICE, [1.0], max_steps=first + 1)
    short = equals_single_runs(LATTICE, [1.0], max_steps=second)
    assert (bool(enough.frozen[0, 0]), enough.steps[0, 0]) == (True, 6)
    assert (bool(short.frozen[0, 0]), short.steps[0, 0]) == (False, second)
