"""Sums over the weights of a rule: every argument of ``kd.statistics``."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from tests.keywords.row import row

X = np.random.default_rng(21).standard_normal((9, 2))
Y = np.random.default_rng(22).standard_normal((6, 2))
CLOSE = {"rtol": 1e-11, "atol": 1e-13}
SOFT, NEAR = kd.softmax(1.3), kd.bounded_confidence(1.2)
AFTER = kd.softmax(1.3, kd.Causal())


def same(name, found, expected):
    np.testing.assert_allclose(getattr(found, name), expected, **CLOSE)


@row("kd.statistics", "interaction", SOFT, NEAR, "mass received is the column sum of the dense weights of each rule")
def interaction(first, second):
    for rule in (first, second):
        same("received", kd.statistics(rule, X, Y), kd.weights(rule, X, Y).sum(0))


@row("kd.statistics", "queries", X, X[:1], "every query gives away a mass of 1; its entropy does not ask who else does")
def queries(first, second):
    for given in (first, second):
        same("received", kd.statistics(SOFT, given, Y), kd.weights(SOFT, given, Y).sum(0))
        np.testing.assert_allclose(kd.statistics(SOFT, given, Y).received.sum(), len(given), **CLOSE)
    same("entropy", kd.statistics(SOFT, second, Y), kd.statistics(SOFT, first, Y).entropy[:1])


@row("kd.statistics", "sources", None, Y, "by default the queries; one entry of mass for every source")
def sources(first, second):
    same("received", kd.statistics(SOFT, X, first), kd.statistics(SOFT, X, X).received)
    same("received", kd.statistics(SOFT, X, second), kd.weights(SOFT, X, second).sum(0))


@row("kd.statistics", "log_mass", None, np.log([1, 2, 3, 1, 2, 1.0]), "a source of mass 2 receives what two alike do")
def log_mass(first, second):
    copies = np.repeat(Y, np.exp(second).round().astype(int), axis=0)
    twins = kd.statistics(SOFT, X, copies).received
    ends = np.cumsum(np.exp(second).round().astype(int))[:-1]
    same("received", kd.statistics(SOFT, X, Y, log_mass=second), [part.sum() for part in np.split(twins, ends)])
    same("received", kd.statistics(SOFT, X, Y, log_mass=first), kd.weights(SOFT, X, Y).sum(0))


@row("kd.statistics", "query_index", np.arange(9), np.full(9, 8), "at place 8 a query hears all nine, else its past")
def query_index(first, second):
    same("entropy", kd.statistics(AFTER, X, query_index=first), kd.statistics(AFTER, X).entropy)
    same("entropy", kd.statistics(AFTER, X, query_index=second), kd.statistics(SOFT, X).entropy)


@row("kd.statistics", "source_index", np.arange(9), np.zeros(9, int), "sources at place 0 are the past of every query")
def source_index(first, second):
    same("received", kd.statistics(AFTER, X, source_index=first), kd.statistics(AFTER, X).received)
    same("received", kd.statistics(AFTER, X, source_index=second), kd.statistics(SOFT, X).received)


@row("kd.statistics", "groups", None, np.arange(9) % 2, "masses by group add up to those of all queries")
def groups(first, second):
    parted = kd.statistics(SOFT, X, groups=second).received
    same("received", kd.statistics(SOFT, X, groups=first), parted.sum(0))
    np.testing.assert_allclose(parted[1], kd.weights(SOFT, X)[1::2].sum(0), **CLOSE)


@row("kd.statistics", "distances", None, 2, "the short profile is the middle of the whole one, which sums to 1")
def distances(first, second):
    whole, short = (kd.statistics(AFTER, X, distances=d).profile for d in (first, second))
    np.testing.assert_allclose(short, whole[8 - 2 : 8 + 3], **CLOSE)
    np.testing.assert_allclose(whole.sum(), 1.0, **CLOSE)


@row("kd.statistics", "impl", "auto", "reference", "blocks of queries and all pairs at once agree in every sum")
def impl(first, second):
    for one, other in zip(*(kd.statistics(AFTER, X, impl=name) for name in (first, second)), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
