"""The one operation: aggregate, weights, plan, supported."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests import oracle
from tests.keywords.row import row

X = np.random.default_rng(11).standard_normal((8, 2))
Y = np.random.default_rng(12).standard_normal((6, 2))
V = np.random.default_rng(13).standard_normal((6, 3))
COUNTS = np.array([1, 2, 3, 1, 2, 1])
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
CLOSE = {"rtol": 1e-11, "atol": 1e-12}
SOFT, NEAR = kd.softmax(1.3), kd.bounded_confidence(1.2)


def loops(rule, queries, sources=None, values=None, log_mass=None):
    """Mean, log Z and weights of SOFT or NEAR, by Python loops."""
    sources = queries if sources is None else sources
    values = sources if values is None else values
    near = rule is NEAR
    score = oracle.flat if near else oracle.dot(1.3)
    return oracle.aggregate(
        score, lambda i, j, x, y: not near or oracle.distance(x, y) <= 1.2, queries, sources, values, log_mass
    )


def same(result, expected):
    np.testing.assert_allclose(result.mean, expected[0], **CLOSE)
    np.testing.assert_allclose(result.log_partition, expected[1], **CLOSE)


@row("kd.aggregate", "interaction", SOFT, NEAR, "mean and log-partition of each rule, by loops")
@row("kd.weights", "interaction", SOFT, NEAR, "the row-stochastic matrix of each rule, by loops")
@row("kd.plan", "interaction", SOFT, NEAR, "the plan computes the rule that it was made for, by loops, and names it")
def interaction(first, second):
    for rule in (first, second):
        same(kd.aggregate(rule, X, Y), loops(rule, X, Y))
        np.testing.assert_allclose(kd.weights(rule, X, Y), loops(rule, X, Y)[2], **CLOSE)
        same(kd.plan(rule, X, Y)(X, Y), loops(rule, X, Y))
        assert kd.plan(rule, X, Y).interaction == rule


@row("kd.aggregate", "queries", X, X[::-1].copy() + 0.5, "each listener's row by loops, whoever else listens")
@row("kd.weights", "queries", X, X[::-1].copy() + 0.5, "each listener's row by loops, whoever else listens")
@row("kd.plan", "queries", X, X[:1], "a plan for one listener is one for the next state of that kind: rows by loops")
def queries(first, second):
    for given in (first, second):
        same(kd.aggregate(SOFT, given, Y), loops(SOFT, given, Y))
        same(kd.aggregate(SOFT, given[:1], Y), loops(SOFT, given[:1], Y))
        np.testing.assert_allclose(kd.weights(SOFT, given, Y), loops(SOFT, given, Y)[2], **CLOSE)
        same(kd.plan(SOFT, given, Y)(given + 1.0, Y), loops(SOFT, given + 1.0, Y))


@row(
    "kd.aggregate",
    "sources",
    None,
    Y,
    "by default the queries themselves; turning listeners and sources turns the mean",
)
@row("kd.weights", "sources", None, Y, "by default the queries themselves: (n, n); else (n, m), by loops")
def sources(first, second):
    for given in (first, second):
        same(kd.aggregate(SOFT, X, given), loops(SOFT, X, given))
        np.testing.assert_allclose(kd.weights(SOFT, X, given), loops(SOFT, X, given)[2], **CLOSE)
    np.testing.assert_allclose(kd.aggregate(SOFT, X @ TURN, second @ TURN).mean, loops(SOFT, X, Y)[0] @ TURN, **CLOSE)


@row(
    "kd.plan", "arrays", (), (Y, V), "sources and values in the order of aggregate: the plan gives their mean, by loops"
)
def plan_arrays(first, second):
    for arrays in (first, second):
        same(kd.plan(SOFT, X, *arrays)(X, *arrays), loops(SOFT, X, *arrays))
    with pytest.raises(ValueError, match="values"):
        kd.plan(SOFT, X, Y, V[:3])


@row("kd.aggregate", "values", None, V, "by default the sources; else weights times values, of any width")
def values(first, second):
    weights = loops(SOFT, X, Y)[2]
    np.testing.assert_allclose(kd.aggregate(SOFT, X, Y, first).mean, weights @ Y, **CLOSE)
    np.testing.assert_allclose(kd.aggregate(SOFT, X, Y, second).mean, weights @ V, **CLOSE)
    ones = kd.aggregate(SOFT, X, Y, np.ones((6, 1)))
    np.testing.assert_allclose(ones.mean, 1.0, **CLOSE)


@row("kd.aggregate", "log_mass", None, np.log(COUNTS), "mass 2 equals the source twice; -inf equals leaving it out")
def log_mass(first, second):
    same(kd.aggregate(SOFT, X, Y, log_mass=first), loops(SOFT, X, Y))
    same(kd.aggregate(SOFT, X, Y, log_mass=second), loops(SOFT, X, np.repeat(Y, COUNTS, axis=0)))
    absent = np.where(np.arange(6) == 2, -np.inf, 0.0)
    same(kd.aggregate(SOFT, X, Y, log_mass=absent), loops(SOFT, X, np.delete(Y, 2, axis=0)))


@row("kd.weights", "rest", {}, {"log_mass": np.log(COUNTS)}, "mass 2 weighs as much as the source twice")
@row("kd.plan", "rest", {}, {"log_mass": np.log(COUNTS)}, "the plan takes masses: mass 2 equals the source twice")
def rest(first, second):
    expected = loops(SOFT, X, np.repeat(Y, COUNTS, axis=0))
    same(kd.plan(SOFT, X, Y, **first)(X, Y, **first), loops(SOFT, X, Y))
    same(kd.plan(SOFT, X, Y, **second)(X, Y, **second), expected)
    grouped = np.add.reduceat(expected[2], np.cumsum(COUNTS) - COUNTS, axis=1)
    np.testing.assert_allclose(kd.weights(SOFT, X, Y, **first), loops(SOFT, X, Y)[2], **CLOSE)
    np.testing.assert_allclose(kd.weights(SOFT, X, Y, **second), grouped, **CLOSE)


CAUSAL = kd.softmax(1.3, kd.Causal() & kd.Window(3))


@row("kd.aggregate", "query_index", None, np.array([5]), "one listener with index 5 hears what row 5 of all heard")
def query_index(first, second):
    whole = kd.aggregate(CAUSAL, X)
    one = kd.aggregate(CAUSAL, X[second], X, query_index=second)
    same(one, (whole.mean[second], whole.log_partition[second]))
    start = kd.aggregate(CAUSAL, X[:1], X, query_index=first)  # by default it is the one of index 0
    np.testing.assert_allclose(start.mean, X[:1], **CLOSE)


BACK = np.arange(8)[::-1].copy()


@row(
    "kd.aggregate",
    "source_index",
    None,
    BACK,
    "sources in another order with their indices mean the same; by default 0, 1, ...",
)
def source_index(first, second):
    whole = kd.aggregate(CAUSAL, X, X, source_index=first)
    np.testing.assert_array_equal(whole.mean, kd.aggregate(CAUSAL, X).mean)
    same(kd.aggregate(CAUSAL, X, X[second], source_index=second), whole)
    unlabelled = kd.aggregate(CAUSAL, X, X[second])
    np.testing.assert_allclose(unlabelled.mean[0], X[-1], **CLOSE)  # row 0 hears the source that stands first


@row(
    "kd.aggregate",
    "impl",
    "auto",
    "blocked",
    "every form that can must agree with the loops; a name that cannot is refused",
)
@row("kd.plan", "impl", "auto", "blocked", "the plan keeps the form that was asked for, and agrees with the loops")
def impl(first, second):
    for name in (first, second, "reference"):
        same(kd.aggregate(SOFT, X, Y, impl=name), loops(SOFT, X, Y))
        same(kd.plan(SOFT, X, Y, impl=name)(X, Y), loops(SOFT, X, Y))
    assert kd.plan(SOFT, X, Y, impl=second).impl == second
    for call in (kd.aggregate, kd.plan):
        with pytest.raises(kd.UnsupportedImplementation, match="sorted1d"):
            call(SOFT, X, Y, impl="sorted1d")
        with pytest.raises(kd.UnsupportedImplementation, match="must be 'auto' or one of"):
            call(SOFT, X, Y, impl="no such form")


def honest(rule, queries, *arrays, **rest):
    """Every form that says yes agrees with the reference; every other one refuses, with the reason given."""
    answers = kd.supported(rule, queries, *arrays, **rest)
    expected = kd.aggregate(rule, queries, *arrays, impl="reference", **rest)
    for name, reason in answers.items():
        if reason is None:
            same(kd.aggregate(rule, queries, *arrays, impl=name, **rest), expected)
        else:
            with pytest.raises(kd.UnsupportedImplementation) as refusal:
                kd.aggregate(rule, queries, *arrays, impl=name, **rest)
            assert reason in str(refusal.value)
    return {name for name, reason in answers.items() if reason is None}


LINE = np.sort(np.random.default_rng(14).random((9, 1)), axis=0)


@row(
    "kd.supported",
    "interaction",
    SOFT,
    NEAR,
    "who says yes agrees with the reference, who says no refuses; a ball on a line has its form, a dot product not",
)
def supported_interaction(first, second):
    assert "sorted1d" not in honest(first, LINE)
    assert "sorted1d" in honest(second, LINE)


@row(
    "kd.supported",
    "queries",
    X,
    LINE,
    "who says yes agrees, who says no refuses; the form for a line does not take a plane",
)
def supported_queries(first, second):
    assert "sorted1d" not in honest(NEAR, first)
    assert "sorted1d" in honest(NEAR, second)


@row(
    "kd.supported",
    "arrays",
    (),
    (LINE[::2] + 0.05, np.ones((5, 2))),
    "sources and values in the order of aggregate: answers hold for that very call",
)
def supported_arrays(first, second):
    assert "reference" in honest(NEAR, LINE, *first)
    assert "reference" in honest(NEAR, LINE, *second)
    with pytest.raises(ValueError, match="values"):
        kd.supported(NEAR, LINE, second[0], second[1][:3])


@row(
    "kd.supported",
    "rest",
    {},
    {"log_mass": np.linspace(-1.0, 0.0, 9)},
    "masses: answers hold for that very call, and a wrong shape is named",
)
def supported_rest(first, second):
    assert "reference" in honest(NEAR, LINE, **first)
    assert "reference" in honest(NEAR, LINE, **second)
    with pytest.raises(ValueError, match="log_mass"):
        kd.supported(NEAR, LINE, log_mass=second["log_mass"][:4])
