"""kd.sweep: a function over the product of parameters and seeds."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row


def draw(scale, rng, shift=0.0):
    return scale * rng.random() + shift


def two(scale, rng):
    return {"double": 2 * scale, "row": np.array([scale, rng.random()])}


def numbers(rng, seeds):
    """The first number of every seed's generator."""
    return np.array([np.random.default_rng(child).random() for child in np.random.SeedSequence(rng).spawn(seeds)])


@row(
    "kd.sweep",
    "function",
    draw,
    two,
    "its number is called value, its dictionary gives names: at every point what it returns",
)
def sweep_function(first, second):
    one = kd.sweep(first, {"scale": [1.0, 3.0]}, workers=0)
    np.testing.assert_array_equal(one["value"], np.outer([1.0, 3.0], numbers(0, 1)))
    named = kd.sweep(second, {"scale": [1.0, 3.0]}, workers=0)
    np.testing.assert_array_equal(named["double"][:, 0], [2.0, 6.0])
    np.testing.assert_array_equal(named["row"][1, 0], [3.0, numbers(0, 1)[0]])


@row(
    "kd.sweep",
    "parameters",
    {"scale": [1.0, 3.0]},
    {"scale": [2.0], "shift": [0.0, 5.0]},
    "every combination is a point, every argument a dimension with its values",
)
def sweep_parameters(first, second):
    r = numbers(0, 1)[0]
    for given, expected in ((first, [r, 3 * r]), (second, [2 * r, 2 * r + 5])):
        result = kd.sweep(draw, given, workers=0)
        assert result.value.dims == (*given, "seed")
        np.testing.assert_allclose(result.value.values.ravel(), expected, rtol=1e-15)
        for name, values in given.items():
            np.testing.assert_array_equal(result[name], values)


@row(
    "kd.sweep", "seeds", 1, 3, "repetition k has the k-th spawned generator at every point; more change no earlier one"
)
def sweep_seeds(first, second):
    for seeds in (first, second):
        result = kd.sweep(draw, {"scale": [1.0, 2.0]}, seeds=seeds, workers=0)
        np.testing.assert_array_equal(result.value, np.outer([1.0, 2.0], numbers(0, seeds)))
    assert kd.sweep(draw, {"scale": [1.0]}, workers=0).sizes["seed"] == first


@row("kd.sweep", "rng", 0, 9, "the root from which the generators are spawned, as a number or as a sequence")
def sweep_rng(first, second):
    for root in (first, second):
        for given in (root, np.random.SeedSequence(root)):
            result = kd.sweep(draw, {"scale": [1.0, 2.0]}, seeds=2, rng=given, workers=0)
            np.testing.assert_array_equal(result.value, np.outer([1.0, 2.0], numbers(root, 2)))


@row("kd.sweep", "executor", None, ThreadPoolExecutor, "the Dataset is the same; a given executor stays open")
def sweep_executor(first, second):
    here = kd.sweep(draw, {"scale": [1.0, 2.0, 3.0]}, seeds=2, workers=0, executor=first)
    with second(2) as pool:
        assert here.identical(kd.sweep(draw, {"scale": [1.0, 2.0, 3.0]}, seeds=2, executor=pool))
        assert pool.submit(int, 3).result() == 3


def process(scale, rng):
    return os.getpid()


@row("kd.sweep", "workers", 0, 2, "here in a loop, or in processes of their own: the Dataset is the same")
def sweep_workers(first, second):
    here, there = (kd.sweep(draw, {"scale": [1.0, 2.0, 3.0]}, seeds=2, workers=count) for count in (first, second))
    assert here.identical(there)
    ran = [
        set(kd.sweep(process, {"scale": [1, 2, 3]}, workers=count).value.values.ravel()) for count in (first, second)
    ]
    assert ran[0] == {os.getpid()}
    assert os.getpid() not in ran[1]
    assert len(ran[1]) <= second


CALLS = []


def counted(scale, rng):
    CALLS.append(scale)
    return scale * rng.random()


@row(
    "kd.sweep",
    "path",
    None,
    "sweep.npz",
    "a second sweep with the file computes nothing again and returns the same; another sweep is refused",
)
def sweep_path(first, second):
    CALLS.clear()
    plain = kd.sweep(counted, {"scale": [1.0, 2.0]}, workers=0, path=first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / second
        for _ in range(2):
            assert plain.identical(kd.sweep(counted, {"scale": [1.0, 2.0]}, workers=0, path=path))
        assert CALLS == [1.0, 2.0] * 2
        with pytest.raises(ValueError, match="another sweep"):
            kd.sweep(counted, {"scale": [1.0, 7.0]}, workers=0, path=path)


class Bar:
    """A callback that remembers."""

    def __init__(self):
        self.calls = []

    def __call__(self, done, total):
        self.calls.append((done, total))


@row("kd.sweep", "progress", False, Bar(), "is told how many points are done, one after the other, of how many")
def sweep_progress(first, second):
    second.calls.clear()
    loud = kd.sweep(draw, {"scale": [1.0, 2.0]}, seeds=2, workers=0, progress=second)
    assert second.calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert loud.identical(kd.sweep(draw, {"scale": [1.0, 2.0]}, seeds=2, workers=0, progress=first))
