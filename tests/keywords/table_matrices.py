"""Rows of `kd.matrices`: laws of random matrices by their moments, and the value matrix of a gradient flow."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import matrices
from tests.keywords.against import public
from tests.keywords.row import row

DRAWS = 4000


def assert_mean(samples, expected):
    """The mean of independent samples is within five of its standard errors; seeds are fixed, so that it stays."""
    samples = np.ravel(samples)
    assert abs(samples.mean() - expected) < 5 * samples.std() / np.sqrt(samples.size)


@row("kd.matrices.gaussian", "d", 2, 8, "d x d entries of mean 0 and variance 1/d, fourth moment 3/d^2")
def _(first, second):
    for d in (first, second):
        drawn = matrices.gaussian(d, 0, leading=(DRAWS,))
        assert drawn.shape == (DRAWS, d, d)
        for power, moment in ((1, 0), (2, 1 / d), (4, 3 / d**2)):
            assert_mean(drawn**power, moment)


@row("kd.matrices.goe", "d", 2, 8, "symmetric, variance 1/d off the diagonal and 2/d on it")
def _(first, second):
    for d in (first, second):
        drawn = matrices.goe(d, 0, leading=(DRAWS,))
        np.testing.assert_array_equal(drawn, np.swapaxes(drawn, -1, -2))
        assert drawn.shape == (DRAWS, d, d)
        assert_mean(drawn[:, 0, 1] ** 2, 1 / d)
        assert_mean(drawn[:, 0, 0] ** 2, 2 / d)
        assert_mean(drawn[:, 0, 1] * drawn[:, 0, 0], 0)


@row("kd.matrices.orthogonal", "d", 2, 5, "orthogonal; under Haar's law the trace has mean 0 and variance 1")
def _(first, second):
    for d in (first, second):
        drawn = matrices.orthogonal(d, 0, leading=(DRAWS,))
        identity = np.broadcast_to(np.eye(d), (DRAWS, d, d))
        np.testing.assert_allclose(np.swapaxes(drawn, -1, -2) @ drawn, identity, atol=1e-12)
        trace = np.trace(drawn, axis1=-2, axis2=-1)
        assert_mean(trace, 0)
        assert_mean(trace**2, 1)
        assert_mean(np.linalg.det(drawn), 0)


def for_each_law(parameter, first, second, states):
    """A row for each of the three laws, of one check that takes the law first."""

    def register(check):
        for name in ("gaussian", "goe", "orthogonal"):
            path = f"kd.matrices.{name}"
            row(path, parameter, first, second, states)(lambda a, b, path=path: check(public(path), a, b))
        return check

    return register


@for_each_law("rng", 3, 4, "a seed is its generator, another one is independent, a generator goes on")
def _(law, first, second):
    one, other = (law(2, seed, leading=(DRAWS,)) for seed in (first, second))
    generator = np.random.default_rng(first)
    np.testing.assert_array_equal(law(2, generator, leading=(DRAWS,)), one)
    for independent in (other, law(2, generator, leading=(DRAWS,))):
        assert_mean(one * independent, 0)
    with pytest.raises(TypeError, match="rng must be an int seed or a numpy Generator"):
        law(2, None)


@for_each_law("leading", (), (2, 3), "a stack is as many matrices drawn one after another")
def _(law, first, second):
    generator = np.random.default_rng(5)
    one_by_one = [law(4, generator, leading=first) for _ in range(6)]
    np.testing.assert_allclose(law(4, 5, leading=second), np.reshape(one_by_one, (*second, 4, 4)), rtol=1e-13)


SQUARE = np.random.default_rng(6).normal(size=(2, 3, 3)) / 2


def assert_drift_is_gradient(query, key):
    """With this value matrix the drift of attention is n times the gradient of the energy, by central differences."""
    x = np.random.default_rng(7).normal(size=(4, 3))
    rule = kd.softmax(1.0, normalised=False)
    value = matrices.gradient_flow(query, key)
    drift = kd.Dynamics(rule, query=query, key=key, value=value, relative=False).drift(0.0, x)

    def energy(shift):
        y = x + shift
        return np.exp((y @ query.T) @ (y @ key.T).T).sum() / (2 * len(x) ** 2)

    units = 1e-5 * np.eye(x.size).reshape(-1, *x.shape)
    gradient = np.array([energy(e) - energy(-e) for e in units]).reshape(x.shape) / 2e-5
    np.testing.assert_allclose(drift, len(x) * gradient, rtol=1e-6, atol=1e-8)  # square of the differences


@row(
    "kd.matrices.gradient_flow", "query", SQUARE[0] + SQUARE[0].T, SQUARE[0], "the drift is the gradient of the energy"
)
def _(first, second):
    assert_drift_is_gradient(first, np.eye(3))
    with pytest.raises(ValueError, match="must be symmetric for a gradient flow"):
        matrices.gradient_flow(second, np.eye(3))


@row("kd.matrices.gradient_flow", "key", SQUARE[1], -0.3 * SQUARE[1], "the drift is the gradient of the energy")
def _(first, second):
    for key in (first, second):
        assert_drift_is_gradient(SQUARE[1], key)
