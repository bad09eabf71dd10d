"""Scores and rules: DotProduct, Gaussian, Radial, Interaction, softmax, krause, bounded_confidence, from_dict."""

from __future__ import annotations

import json

import numpy as np
import pytest

import krause_dynamics as kd
from tests import oracle
from tests.keywords.row import row

X = np.random.default_rng(3).standard_normal((7, 2))
Y = np.random.default_rng(4).standard_normal((5, 2))
BIAS = np.random.default_rng(5).standard_normal((7, 7))
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def everyone(i, j, x, y):
    return True


def by_loops(score, admits=everyone, queries=X, sources=X, **rest):
    """Mean and log Z by Python loops in float64."""
    return oracle.aggregate(score, admits, queries, sources, sources, **rest)[:2]


def agrees(rule, expected, queries=X, sources=None):
    """`kd.aggregate` of the rule gives the expected mean and log-partition."""
    result = kd.aggregate(rule, queries, sources)
    np.testing.assert_allclose(result.mean, expected[0], **CLOSE)
    np.testing.assert_allclose(result.log_partition, expected[1], **CLOSE)


def speed(rule, x=X):
    """Drift in the plane under a rule."""
    return kd.Dynamics(rule).drift(0.0, x)


@row(
    "kd.DotProduct", "beta", 1.0, -2.5, "s = beta <x, y>, by loops; one beta for each listener equals calls one by one"
)
def dot_product(first, second):
    for beta in (first, second):
        agrees(kd.Interaction(kd.DotProduct(beta)), by_loops(oracle.dot(beta)))
    own = np.linspace(first, second, len(X))
    together = kd.aggregate(kd.Interaction(kd.DotProduct(own)), X).mean
    for i, beta in enumerate(own):
        alone = kd.aggregate(kd.Interaction(kd.DotProduct(float(beta))), X[i : i + 1], X).mean
        np.testing.assert_allclose(together[i], alone[0], **CLOSE)


@row(
    "kd.Gaussian",
    "sigma",
    1.0,
    0.4,
    "s = -|x - y|^2 / (2 sigma^2), by loops; positions in units of sigma need sigma = 1",
)
def gaussian(first, second):
    for sigma in (first, second):
        agrees(kd.Interaction(kd.Gaussian(sigma)), by_loops(oracle.gaussian(sigma)))
        scaled = kd.aggregate(kd.Interaction(kd.Gaussian(1.0)), X / sigma).mean * sigma
        np.testing.assert_allclose(kd.aggregate(kd.Interaction(kd.Gaussian(sigma)), X).mean, scaled, **CLOSE)


def cucker_smale(r):
    return (1 + r**2) ** -0.5


def bell(r):
    return np.exp(-(r**2) / 2)


@row(
    "kd.Radial",
    "phi",
    bell,
    cucker_smale,
    "weights are phi(|x - y|) over their sum; the bell is the Gaussian score of sigma 1",
)
def radial(first, second):
    agrees(kd.Interaction(kd.Radial(first)), by_loops(oracle.gaussian(1.0)))
    affinity = second(np.linalg.norm(X[:, None] - X, axis=-1))
    expected = affinity / affinity.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kd.weights(kd.Interaction(kd.Radial(second)), X), expected, **CLOSE)
    with pytest.raises(TypeError, match="phi"):
        kd.Radial(0.5)


@row(
    "kd.Interaction", "score", kd.DotProduct(0.7), kd.Gaussian(0.7), "each score gives its own log-affinities, by loops"
)
def score(first, second):
    agrees(kd.Interaction(first), by_loops(oracle.dot(0.7)))
    agrees(kd.Interaction(second), by_loops(oracle.gaussian(0.7)))


def backward(i, j, x, y):
    return j <= i


@row("kd.Interaction", "neighbourhood", kd.Everyone(), kd.Causal(), "means over all, or over j <= i only, by loops")
@row(
    "kd.softmax",
    "neighbourhood",
    None,
    kd.Causal(),
    "everyone by default; a causal row is the softmax of its own prefix",
)
@row("kd.krause", "neighbourhood", None, kd.Causal(), "everyone by default; a causal row is the mean of its own prefix")
def neighbourhood(first, second):
    rules = (
        (lambda part: kd.Interaction(kd.DotProduct(1.3), *(() if part is None else (part,))), oracle.dot(1.3)),
        (lambda part: kd.softmax(1.3, part), oracle.dot(1.3)),
        (lambda part: kd.krause(0.8, part), oracle.gaussian(0.8)),
    )
    for make, loops in rules:
        agrees(make(first), by_loops(loops))
        agrees(make(second), by_loops(loops, backward))


@row(
    "kd.Interaction",
    "normalised",
    True,
    False,
    "per capita the drift is sum_j (1/n) exp(s) (x_j - x_i); by default divided by Z/n",
)
@row("kd.softmax", "normalised", True, False, "per capita the drift is Z/n times the row-stochastic one")
@row(
    "kd.krause",
    "normalised",
    True,
    False,
    "per capita the drift conserves the mean, as a symmetric score must; normalised it does not",
)
def normalised(first, second):
    distances = np.linalg.norm(X[:, None] - X, axis=-1)
    cases = (
        (lambda flag: kd.Interaction(kd.Gaussian(0.8), normalised=flag), np.exp(-(distances**2) / 1.28)),
        (lambda flag: kd.softmax(1.3, normalised=flag), np.exp(1.3 * X @ X.T)),
        (lambda flag: kd.krause(0.8, normalised=flag), np.exp(-(distances**2) / 1.28)),
    )
    for make, affinity in cases:
        pulls = np.einsum("ij,ijd->id", affinity, X[None] - X[:, None])
        np.testing.assert_allclose(speed(make(first)), pulls / affinity.sum(axis=1)[:, None], **CLOSE)
        # Z (mean - x) cancels where the own affinity, up to 1e3, outweighs the others: 1e-16 becomes 1e-13 to 1e-10.
        np.testing.assert_allclose(speed(make(second)), pulls / len(X), rtol=1e-9, atol=1e-9)
    mean = [np.abs(speed(kd.krause(0.8, normalised=flag)).mean(axis=0)).max() for flag in (first, second)]
    assert mean[1] < 1e-14 < 1e-3 < mean[0]


@row(
    "kd.Interaction",
    "pair_bias",
    None,
    BIAS,
    "added to the score of each pair (i, j) and not of (j, i), by loops; None adds nothing",
)
@row("kd.softmax", "pair_bias", None, BIAS, "added to beta <x, y> of each pair, by loops")
@row("kd.krause", "pair_bias", None, BIAS, "added to -|x - y|^2 / (2 sigma^2) of each pair, by loops")
def pair_bias(first, second):
    rules = (
        (lambda bias: kd.Interaction(kd.Flat(), pair_bias=bias), oracle.flat),
        (lambda bias: kd.softmax(1.3, pair_bias=bias), oracle.dot(1.3)),
        (lambda bias: kd.krause(0.8, pair_bias=bias), oracle.gaussian(0.8)),
    )
    for make, loops in rules:
        agrees(make(first), by_loops(loops))
        agrees(make(second), by_loops(loops, pair_bias=second))
    ranked = kd.weights(kd.Interaction(kd.Flat(), kd.TopK(1), pair_bias=second), X)
    np.testing.assert_array_equal(ranked.argmax(axis=1), second.argmax(axis=1))  # it takes part in the ranking


@row(
    "kd.softmax",
    "beta",
    1.0,
    3.0,
    "s = beta <x, y>: log Z is the log-sum-exp of beta X X^T, and beta X X^T needs beta = 1",
)
def softmax_beta(first, second):
    for beta in (first, second):
        agrees(kd.softmax(beta), by_loops(oracle.dot(beta)))
        root = np.sqrt(beta)
        scaled = kd.aggregate(kd.softmax(1.0), root * X).log_partition
        np.testing.assert_allclose(kd.aggregate(kd.softmax(beta), X).log_partition, scaled, **CLOSE)
    np.testing.assert_array_equal(kd.weights(kd.softmax(), X), kd.weights(kd.softmax(first), X))


@row("kd.krause", "sigma", 1.0, 1e6, "by loops; a bandwidth far beyond the cloud gives everyone the mean of all")
def krause_sigma(first, second):
    agrees(kd.krause(first), by_loops(oracle.gaussian(first)))
    agrees(kd.krause(), by_loops(oracle.gaussian(first)))  # the default
    # The weights differ from 1/n by |x - y|^2 / (2 sigma^2), below 1e-10 here.
    np.testing.assert_allclose(kd.aggregate(kd.krause(second), X).mean, np.tile(X.mean(axis=0), (7, 1)), atol=1e-10)


LINE = np.array([0.0, 1.0, 2.0, 3.0, 10.0])


def means_within(radius, x=LINE, closed=True):
    gaps = np.abs(x[:, None] - x)
    near = gaps <= radius if closed else gaps < radius
    return (near @ x) / near.sum(axis=1)


@row(
    "kd.bounded_confidence",
    "radius",
    1.0,
    9.9,
    "the plain mean of all within the radius; one radius for each listener as well",
)
def radius(first, second):
    for bound in (first, second):
        mean = kd.aggregate(kd.bounded_confidence(bound), LINE[:, None]).mean[:, 0]
        np.testing.assert_allclose(mean, means_within(bound), **CLOSE)
    own = np.array([first, second, first, second, first])
    mean = kd.aggregate(kd.bounded_confidence(own), LINE[:, None]).mean[:, 0]
    np.testing.assert_allclose(mean, np.where(own == first, means_within(first), means_within(second)), **CLOSE)


@row(
    "kd.bounded_confidence",
    "neighbourhood",
    None,
    kd.Others(),
    "without the own opinion the middle of three hears 0 and 2, the first hears 1",
)
def further(first, second):
    three = np.array([[0.0], [1.0], [2.5]])
    means = [kd.aggregate(kd.bounded_confidence(1.5, part), three).mean[:, 0] for part in (first, second)]
    np.testing.assert_allclose(means[0], [0.5, 3.5 / 3, 1.75], **CLOSE)
    np.testing.assert_allclose(means[1], [1.0, 1.25, 1.0], **CLOSE)


@row("kd.bounded_confidence", "closed", True, False, "neighbours exactly at the radius are heard, or not at all")
def closed(first, second):
    assert kd.bounded_confidence(1.0) == kd.bounded_confidence(1.0, closed=first)
    for flag in (first, second):
        mean = kd.aggregate(kd.bounded_confidence(1.0, closed=flag), LINE[:, None]).mean[:, 0]
        np.testing.assert_allclose(mean, means_within(1.0, closed=flag), **CLOSE)


@row(
    "kd.bounded_confidence",
    "normalised",
    True,
    False,
    "drift: mean of those heard minus x_i; per capita: sum over those heard of (x_j - x_i)/n",
)
def per_capita(first, second):
    x = LINE[:, None]
    near = np.abs(x - LINE) <= 1.0
    assert kd.bounded_confidence(1.0) == kd.bounded_confidence(1.0, normalised=first)
    np.testing.assert_allclose(
        speed(kd.bounded_confidence(1.0, normalised=first), x)[:, 0], means_within(1.0) - LINE, **CLOSE
    )
    pulls = (near * (LINE - x)).sum(axis=1) / len(LINE)
    np.testing.assert_allclose(speed(kd.bounded_confidence(1.0, normalised=second), x)[:, 0], pulls, **CLOSE)


COMPOSITE = kd.krause(0.3, kd.Within(0.5, closed=False) & kd.Window(3, two_sided=True) & kd.TopK(2, ties="keep"))


@row(
    "kd.from_dict",
    "content",
    COMPOSITE,
    kd.Dynamics(kd.softmax(2.0), kd.Torus(3.0), noise=0.1),
    "rebuilds through JSON a value that is equal and computes the same",
)
def content(first, second):
    for value in (first, second):
        again = kd.from_dict(json.loads(json.dumps(value.to_dict())))
        assert again == value
        assert type(again) is type(value)
    rebuilt = kd.from_dict(json.loads(json.dumps(first.to_dict())))
    np.testing.assert_array_equal(kd.weights(rebuilt, X), kd.weights(first, X))
    assert rebuilt != kd.krause(0.4, first.neighbourhood)
