"""Matrices of a state: their entries by loops, their classes from small networks, their spectrum from scipy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

import krause_dynamics as kd
from tests import oracle
from tests.keywords.row import row

op = kd.operators
X = np.random.default_rng(121).standard_normal((6, 2))
Y = np.random.default_rng(122).standard_normal((4, 2))
NEAR = kd.bounded_confidence(1.5)
SOFT = kd.softmax(1.3)
LOG_MASS = np.array([0.3, -np.inf, -0.7, 1.1])
MATRIX, SUPPORT = "kd.operators.matrix", "kd.operators.support"


def within(i, j, x, y):
    return oracle.distance(x, y) <= 1.5


def everyone(i, j, x, y):
    return True


def by_loops(rule, queries, sources, log_mass):
    """Weights and who is admitted; alone at home one hears oneself."""
    own = sources is None
    sources = queries if own else sources
    words = (oracle.flat, within) if rule is NEAR else (oracle.dot(1.3), everyone)
    weights = oracle.aggregate(*words, queries, sources, sources, log_mass)[2]
    return weights, weights > 0  # at these sizes no admitted weight underflows


def entries(call, name, first, second):
    for value in (first, second):
        given = {"rule": NEAR, "queries": X, "sources": Y, "log_mass": LOG_MASS} | {name: value}
        if given["sources"] is None:
            given["log_mass"] = None
        weights, admitted = by_loops(**given)
        found = getattr(op, call)(given.pop("rule"), given.pop("queries"), given.pop("sources"), **given)
        if call == "matrix":
            np.testing.assert_allclose(found, weights, rtol=1e-12, atol=1e-15)
        else:
            assert found.dtype == bool
            np.testing.assert_array_equal(found, admitted)


for call, path in (("matrix", MATRIX), ("support", SUPPORT)):
    what = "weights m_j exp s / Z" if call == "matrix" else "who is admitted and has mass"
    for name, first, second in (
        ("rule", NEAR, SOFT),
        ("queries", X, 2 * X[:3]),
        ("sources", None, Y),
        ("log_mass", None, LOG_MASS),
    ):
        row(path, name, first, second, f"{what}, by loops, with that {name}")(partial(entries, call, name))


@row(
    MATRIX,
    "sparse",
    False,
    True,
    "the same entries; stored are the admitted pairs alone, a weight that underflows as a stored zero",
)
@row(SUPPORT, "sparse", False, True, "the same pairs; stored are the admitted ones alone")
def stored(first, second):
    dense, thin = (op.matrix(NEAR, X, sparse=flag) for flag in (first, second))
    admitted, pattern = (op.support(NEAR, X, sparse=flag) for flag in (first, second))
    assert sparse.issparse(thin)
    assert sparse.issparse(pattern)
    np.testing.assert_array_equal(thin.toarray(), dense)
    np.testing.assert_array_equal(pattern.toarray(), admitted)
    assert thin.nnz == pattern.nnz == admitted.sum() < 36
    far = op.matrix(kd.krause(0.01), np.array([[0.0], [1.0]]), sparse=second)  # e^-5000
    assert (far.nnz, far.toarray().tolist()) == (4, [[1.0, 0.0], [0.0, 1.0]])


STOCHASTIC = op.matrix(SOFT, X)
LAZY = 0.5 * np.eye(6) + 0.5 * STOCHASTIC


@row(
    "kd.operators.dobrushin",
    "matrix",
    STOCHASTIC,
    LAZY,
    "1 - the least overlap of two rows, by loops; contracts the extent; dense or sparse",
)
def dobrushin(first, second):
    for matrix in (first, second):
        overlaps = [np.minimum(a, b).sum() for a in matrix for b in matrix]
        tau = op.dobrushin(matrix)
        assert tau == pytest.approx(1 - min(overlaps), rel=1e-12)
        assert op.dobrushin(sparse.csr_array(matrix)) == pytest.approx(tau, rel=1e-12)
        assert np.ptp(matrix @ X[:, 0]) <= tau * np.ptp(X[:, 0]) * (1 + 1e-12)
    assert op.dobrushin(np.eye(3)) == 1.0


def spectrum(matrix):
    """Moduli of scipy's eigenvalues, largest first."""
    return np.sort(np.abs(linalg.eigvals(matrix)))[::-1]


EVERYBODY, CAUSAL = np.ones((6, 6), bool), np.tril(np.ones((6, 6), bool))
FORWARD = kd.softmax(1.3, kd.Causal())
DIAGONAL = np.sort(np.diag(op.matrix(FORWARD, X)))[::-1]


@row(
    "kd.operators.eigenvalues",
    "matrix",
    STOCHASTIC,
    LAZY,
    "scipy's, largest first, and the first exactly 1; dense or sparse",
)
def eigenvalues_matrix(first, second):
    for matrix in (first, second):
        for given in (matrix, sparse.csr_array(matrix)):
            found = op.eigenvalues(given, EVERYBODY)
            assert found[0] == 1.0
            np.testing.assert_allclose(np.abs(found), spectrum(matrix), atol=1e-12)


@row(
    "kd.operators.eigenvalues",
    "support",
    None,
    CAUSAL,
    "of a causal matrix its diagonal, bit for bit; a sparse matrix brings its support",
)
def eigenvalues_support(first, second):
    np.testing.assert_array_equal(op.eigenvalues(op.matrix(FORWARD, X), second), DIAGONAL)
    np.testing.assert_array_equal(op.eigenvalues(op.matrix(FORWARD, X, sparse=True), first), DIAGONAL)
    with pytest.raises(ValueError, match="support"):
        op.eigenvalues(op.matrix(FORWARD, X), first)


HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])


@row(
    "kd.operators.eigenvalues",
    "count",
    2,
    3,
    "so many of a block of more than 1500: of four groups of 376 those of the 4 x 4 matrix of the groups",
)
def eigenvalues_count(first, second):
    between = HADAMARD @ np.diag([1.0, 0.6, 0.3, 0.1]) @ HADAMARD / 4
    matrix = sparse.csr_array(np.kron(between, np.full((376, 376), 1 / 376)))
    for count in (first, second):
        found = op.eigenvalues(matrix, count=count)
        np.testing.assert_allclose(found, [1.0, 0.6, 0.3][:count], atol=1e-9)
    np.testing.assert_allclose(np.sort(op.eigenvalues(sparse.csr_array(between), count=first)), [0.1, 0.3, 0.6, 1.0])


@row(
    "kd.operators.spectral_gap",
    "matrix",
    STOCHASTIC,
    LAZY,
    "1 minus the second modulus of scipy; (1 + A)/2 has half the gap of a positive spectrum",
)
def gap_matrix(first, second):
    for matrix in (first, second):
        assert op.spectral_gap(matrix, EVERYBODY) == pytest.approx(1 - spectrum(matrix)[1], abs=1e-12)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert op.spectral_gap(swap, swap > 0) == pytest.approx(0.0, abs=1e-12)


@row(
    "kd.operators.spectral_gap",
    "support",
    None,
    CAUSAL,
    "1 minus the second self-weight of a causal matrix; a sparse matrix brings its support",
)
def gap_support(first, second):
    assert op.spectral_gap(op.matrix(FORWARD, X), second) == pytest.approx(1 - DIAGONAL[1], abs=1e-15)
    assert op.spectral_gap(op.matrix(FORWARD, X, sparse=True), first) == pytest.approx(1 - DIAGONAL[1], abs=1e-15)
    with pytest.raises(ValueError, match="support"):
        op.spectral_gap(op.matrix(FORWARD, X), first)


# 0 and 1 hear each other, 2 hears them, 3 hears itself alone, 4 hears 3, 5 nobody.
LINKS = np.zeros((6, 6), bool)
LINKS[[0, 1, 2, 3, 4], [1, 0, 1, 3, 3]] = True


@row(
    "kd.operators.structure",
    "support",
    LINKS,
    CAUSAL,
    "classes, closed ones and blocks of a small network, read off by eye; all that one hears comes before",
)
def structure(first, second):
    form = op.structure(first)
    alike = form.classes[:, None] == form.classes
    np.testing.assert_array_equal(alike, np.eye(6, dtype=bool) | (np.add.outer(np.arange(6), np.arange(6)) == 1))
    assert set(form.closed) == {form.classes[0], form.classes[3], form.classes[5]}
    np.testing.assert_array_equal(form.blocks, [0, 0, 0, 1, 1, 2])
    assert form.classes[2] > form.classes[0]
    np.testing.assert_array_equal(op.structure(second).classes, np.arange(6))
    assert op.structure(second).closed.tolist() == [0]


def field(name, other, first, second, states):
    """A row: the field has the known values for the causal network and another, and serves what is derived."""

    def check(first, second):
        for support, known in ((CAUSAL, first), (other, second)):
            form = op.structure(support)
            np.testing.assert_array_equal(getattr(form, name), known)
            given = {"classes": form.classes, "closed": form.closed, "blocks": form.blocks} | {name: np.array(known)}
            again = op.Structure(**given)
            assert again.multiplicity == len(form.closed)
            assert again.block_count == connected_components(support, directed=False)[0]
            assert again.is_reducible == (support is not EVERYBODY)
            np.testing.assert_array_equal(again.members(0), np.flatnonzero(form.classes == 0))

    row("kd.operators.Structure", name, first, second, states)(check)


NOBODY = np.eye(6, dtype=bool)
field("classes", EVERYBODY, [0, 1, 2, 3, 4, 5], [0] * 6, "each alone and after those it hears, or all in one")
field("closed", NOBODY, [0], [0, 1, 2, 3, 4, 5], "the first, which hears itself alone, or all of six that do")
field("blocks", NOBODY, [0] * 6, [0, 1, 2, 3, 4, 5], "all are linked, whatever the direction, or nobody is")
