"""Rows of `kd.initial`: laws by their moments, affine maps with one seed, lattices by their gaps."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import initial, theory
from tests.keywords.row import row
from tests.keywords.table_matrices import assert_mean

CENTRES = np.array([[-10.0, 0.0], [0.0, 10.0], [10.0, 0.0]])
LAWS = {
    "uniform": lambda n, rng: initial.uniform(n, rng=rng),
    "gaussian": lambda n, rng: initial.gaussian(n, rng=rng),
    "mixture": lambda n, rng: initial.mixture(n, CENTRES, 1.0, rng=rng) % 5,  # only what is random around a centre
}


def for_each_law(parameter, first, second, states):
    """A row for each random start, of one check that takes the law first."""

    def register(check):
        for name, law in LAWS.items():
            row(f"kd.initial.{name}", parameter, first, second, states)(lambda a, b, law=law: check(law, a, b))
        return check

    return register


@for_each_law("n", 7, 5000, "so many independent opinions: neighbours in the list are not correlated")
def _(law, first, second):
    assert len(law(first, rng=0)) == first
    x = law(second, rng=0)[:, 0]
    assert x.shape == (second,)
    assert len(np.unique(x)) == second
    assert_mean((x[1:] - x.mean()) * (x[:-1] - x.mean()), 0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        law(0, rng=0)


@for_each_law("rng", 3, 4, "a seed is its generator, another one is independent, a generator goes on")
def _(law, first, second):
    one, other = (law(5000, rng=seed) for seed in (first, second))
    generator = np.random.default_rng(first)
    np.testing.assert_array_equal(law(5000, rng=generator), one)
    for independent in (other, law(5000, rng=generator)):
        assert_mean((one - one.mean()) * (independent - independent.mean()), 0)
    with pytest.raises(TypeError, match="rng must be an int seed or a numpy Generator"):
        law(5, rng=None)


@row("kd.initial.uniform", "d", 1, 3, "independent coordinates of mean 1/2 and variance 1/12")
def _(first, second):
    for d in (first, second):
        x = initial.uniform(5000, d, rng=0) - 0.5
        assert x.shape == (5000, d)
        for i in range(d):
            assert_mean(x[:, i], 0)
            assert_mean(x[:, i] ** 2, 1 / 12)
            assert_mean(x[:, i] * x[:, i - 1], 0 if d > 1 else 1 / 12)


def end_of_box(name):
    def check(first, second):
        ends = {"low": 0.0, "high": 1.0}
        share = initial.uniform(50, 2, rng=0)
        for value in (first, second):
            box = {**ends, name: value}
            x = initial.uniform(50, 2, **box, rng=0)
            np.testing.assert_allclose(x, box["low"] + (box["high"] - box["low"]) * share, rtol=1e-13)
        with pytest.raises(ValueError, match="low and high must be finite with low < high"):
            initial.uniform(5, low=1.0, high=1.0, rng=0)

    return check


row("kd.initial.uniform", "low", 0.0, -3.0, "with one seed the box is stretched from its upper end")(end_of_box("low"))
row("kd.initial.uniform", "high", 1.0, 4.0, "with one seed the box is stretched from its lower end")(end_of_box("high"))


@row(
    "kd.initial.equally_spaced",
    "n",
    5,
    8,
    "so many opinions from end to end with equal gaps, symmetric to the last bit",
)
def _(first, second):
    for n in (first, second):
        x = initial.equally_spaced(n, low=-1.0, high=2.5)
        assert x.shape == (n, 1)
        assert (x[0, 0], x[-1, 0]) == (-1.0, 2.5)
        np.testing.assert_allclose(np.diff(x[:, 0]), 3.5 / (n - 1), rtol=1e-13)
    lattice = initial.equally_spaced(first, high=first - 1)
    np.testing.assert_array_equal(lattice[:, 0], range(first))


@row("kd.initial.equally_spaced", "low", 0.0, -3.0, "the first opinion, all others in proportion")
def _(first, second):
    share = np.arange(5)[:, None] / 4
    for low in (first, second):
        np.testing.assert_allclose(initial.equally_spaced(5, low=low), low + (1 - low) * share, rtol=1e-13, atol=1e-15)


@row("kd.initial.equally_spaced", "high", 1.0, 4.0, "the last opinion, all others in proportion")
def _(first, second):
    share = np.arange(5)[:, None] / 4
    for high in (first, second):
        np.testing.assert_allclose(initial.equally_spaced(5, high=high), high * share, rtol=1e-13)


@row("kd.initial.gaussian", "d", 1, 3, "independent coordinates with the moments of a normal law")
def _(first, second):
    for d in (first, second):
        x = initial.gaussian(5000, d, rng=0)
        assert x.shape == (5000, d)
        for i in range(d):
            for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
                assert_mean(x[:, i] ** power, moment)
            assert_mean(x[:, i] * x[:, i - 1], 0 if d > 1 else 1)


@row("kd.initial.gaussian", "mean", 0.0, [1.0, -2.0], "with one seed the cloud is moved, coordinate by coordinate")
def _(first, second):
    cloud = initial.gaussian(50, 2, rng=0)
    np.testing.assert_array_equal(initial.gaussian(50, 2, mean=first, rng=0), cloud)
    np.testing.assert_allclose(initial.gaussian(50, 2, mean=second, rng=0), cloud + second, rtol=1e-13)


@row("kd.initial.gaussian", "std", 0.0, [1.5, 0.3], "with one seed the cloud is stretched, coordinate by coordinate")
def _(first, second):
    cloud = initial.gaussian(50, 2, rng=0)
    assert (initial.gaussian(50, 2, mean=2.0, std=first, rng=0) == 2.0).all()
    np.testing.assert_allclose(initial.gaussian(50, 2, std=second, rng=0), cloud * second, rtol=1e-13)
    with pytest.raises(ValueError, match="std must not be negative"):
        initial.gaussian(5, std=-1.0, rng=0)


@row("kd.initial.dumbbell", "n", 2, 4, "2 n opinions at the weights and n + 1 on the bar, frozen after 8 and 12 steps")
def _(first, second):
    for n in (first, second):
        x = initial.dumbbell(n)
        assert x.shape == (3 * n + 1, 1)
        np.testing.assert_array_equal(x, n - x[::-1])
        assert kd.hegselmann_krause(x, 1.0).steps == theory.DUMBBELL_FREEZING_TIMES[n]


@row(
    "kd.initial.mixture", "centres", CENTRES, CENTRES[:2, 0], "without spread all opinions are centres, in equal shares"
)
def _(first, second):
    for centres in (first, second):
        x = initial.mixture(5000, centres, 0.0, rng=0)
        at = (x[:, None] == np.reshape(centres, (len(centres), -1))).all(axis=-1)
        assert (at.sum(axis=1) == 1).all()
        for chosen in at.T:
            assert_mean(chosen, 1 / len(centres))


@row("kd.initial.mixture", "std", 0.5, [0.5, 0.1, 2.0], "the spread of each coordinate about the nearest centre")
def _(first, second):
    for std in (first, second):
        x = initial.mixture(5000, CENTRES, std, rng=0)
        nearest = np.argmin(((x[:, None] - CENTRES) ** 2).sum(axis=-1), axis=1)
        for k, spread in enumerate(np.broadcast_to(std, 3)):
            about = x[nearest == k] - CENTRES[k]
            for coordinate in about.T:
                assert_mean(coordinate, 0)
                assert_mean(coordinate**2, spread**2)


@row("kd.initial.mixture", "weights", None, [0.1, 0.0, 0.9], "the share of the opinions at each centre")
def _(first, second):
    for weights, shares in ((first, [1 / 3] * 3), (second, second)):
        x = initial.mixture(5000, CENTRES[:, 0], 0.0, weights=weights, rng=0)
        counts = np.bincount(np.searchsorted(CENTRES[:, 0], x[:, 0]), minlength=3)
        error = np.sqrt(5000 * np.multiply(shares, np.subtract(1, shares)))
        assert (np.abs(counts - 5000 * np.array(shares)) <= 5 * error).all()  # nobody where the share is 0
    with pytest.raises(ValueError, match="weights must be 3 probabilities"):
        initial.mixture(5, CENTRES, 0.0, weights=[0.5, 0.2, 0.2], rng=0)


STATES = np.random.default_rng(8).normal(size=(3, 5, 2))


@row(
    "kd.initial.from_states",
    "states",
    STATES,
    STATES[0],
    "layers, a trajectory and one state start alike; not finite: none",
)
def _(first, second):
    run = kd.Trajectory(np.arange(3.0), first)
    for states in (first, second, run):
        np.testing.assert_array_equal(initial.from_states(states), STATES[0])
    np.testing.assert_array_equal(initial.from_states(second[:, 0]), STATES[0, :, :1])
    with pytest.raises(ValueError, match="states must be finite"):
        initial.from_states(np.full((3, 2), np.nan))


@row("kd.initial.from_states", "layer", 0, -1, "the state of that layer, counted from the end when negative")
def _(first, second):
    assert np.array_equal(initial.from_states(STATES, layer=first), STATES[0])
    assert np.array_equal(initial.from_states(STATES, layer=second), STATES[2])
    assert np.array_equal(initial.from_states(STATES, layer=1), STATES[1])


@row("kd.initial.from_states", "normalise", False, True, "tokens as they are, or of norm 1 in the same direction")
def _(first, second):
    np.testing.assert_array_equal(initial.from_states(STATES, normalise=first), STATES[0])
    unit = initial.from_states(STATES, normalise=second)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.sum(unit * STATES[0], axis=1), np.linalg.norm(STATES[0], axis=1), rtol=1e-14)
    with pytest.raises(ValueError, match="no token at 0"):
        initial.from_states(np.zeros((3, 2)), normalise=second)
