"""Matrices of states: classical theorems of non-negative matrices, closed-form spectra, and loops as oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse
from scipy.linalg import eigvalsh_tridiagonal

import krause_dynamics as kd
from krause_dynamics import operators

PATTERNS = st.integers(1, 9).flatmap(lambda n: npst.arrays(bool, (n, n)))


def random_matrix(pattern: np.ndarray, seed: int = 0) -> np.ndarray:
    weights = np.where(pattern, np.random.default_rng(seed).random(pattern.shape) + 0.1, 0)
    return weights / weights.sum(axis=1, keepdims=True)


@given(PATTERNS)
def test_multiplicity_is_the_dimension_of_the_fixed_vectors(pattern: np.ndarray) -> None:
    """dim ker(A - 1) = closed classes, with random weights far from underflow: rank by singular values."""
    np.fill_diagonal(pattern, pattern.diagonal() | ~pattern.any(axis=1))
    matrix = random_matrix(pattern)
    form = operators.structure(pattern)
    singular = np.linalg.svd(matrix - np.eye(len(matrix)), compute_uv=False)
    assert form.multiplicity == int(np.sum(singular < 1e-10))
    values = operators.eigenvalues(matrix, pattern)
    assert int(np.sum(values == 1.0)) >= form.multiplicity
    assert np.sum(values).real == pytest.approx(np.trace(matrix), abs=1e-9)
    # a defective eigenvalue of a 9 x 9 block is moved by eps^(1/9) ~ 0.02 in the plain solver, so compare traces
    assert np.sum(values**2).real == pytest.approx(np.trace(matrix @ matrix), abs=1e-9)


@given(PATTERNS)
def test_classes_by_reachability(pattern: np.ndarray) -> None:
    """Classes, closedness and triangular order from the transitive closure."""
    n = len(pattern)
    reach = np.linalg.matrix_power((pattern | np.eye(n, dtype=bool)).astype(float), n) > 0
    form = operators.structure(pattern)
    mutual = reach & reach.T
    assert np.array_equal(form.classes[:, None] == form.classes, mutual)
    closed = [i for i in range(n) if np.array_equal(reach[i], mutual[i])]
    assert set(form.classes[closed].tolist()) == set(form.closed.tolist())
    i, j = np.nonzero(pattern)
    assert np.all(form.classes[j] <= form.classes[i])
    assert np.all(form.blocks[j] == form.blocks[i])
    assert form.block_count <= form.multiplicity
    assert form.is_reducible == (not mutual.all())
    sorted_pattern = pattern[form.order][:, form.order]
    for block in range(form.block_count):
        here = form.blocks[form.order] == block
        classes = form.classes[form.order][here]
        assert np.all((classes[:, None] >= classes) | ~sorted_pattern[here][:, here])


def test_underflowing_weights_do_not_invent_clusters() -> None:
    """Dense Gaussian rule, clusters 60 sigma apart: weights are 0 in float64, the support is everybody."""
    x = np.array([[0.0], [0.1], [60.0], [60.1]])
    rule = kd.krause(sigma=1.0)
    matrix = operators.matrix(rule, x)
    assert matrix[0, 2] == 0
    assert operators.structure(operators.support(rule, x)).multiplicity == 1
    stored = operators.matrix(rule, x, sparse=True)
    assert stored.nnz == 16
    assert operators.structure(stored).multiplicity == 1
    truncated = kd.krause(sigma=1.0, neighbourhood=kd.Within(1.0))
    form = operators.structure(operators.support(truncated, x))
    assert (form.multiplicity, form.block_count) == (2, 2)
    with pytest.raises(ValueError, match="not from weights > 0"):
        operators.structure(matrix)


def test_a_block_that_looks_outside_is_not_counted() -> None:
    """Three groups of which one hears another: two closed classes (THEORY: closed classes, not blocks)."""
    adjacency = np.kron(np.eye(3, dtype=bool), np.ones((2, 2), bool))
    adjacency[4, 0] = True
    x = np.zeros((6, 1))
    form = operators.structure(operators.support(kd.Interaction(kd.Flat(), kd.Graph(adjacency)), x))
    assert form.multiplicity == 2
    assert form.block_count == 2
    assert len(np.unique(form.classes)) == 3


def test_causal_spectrum_is_the_diagonal() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    rule = kd.softmax(beta=1.0, neighbourhood=kd.Causal())
    matrix, pattern = operators.matrix(rule, x), operators.support(rule, x)
    values = operators.eigenvalues(matrix, pattern)
    np.testing.assert_array_equal(values, np.sort(np.diag(matrix))[::-1])
    assert operators.structure(pattern).multiplicity == 1
    assert operators.spectral_gap(matrix, pattern) == 1 - values[1]


@pytest.mark.parametrize("in_sparse", [False, True])
def test_ring_window_eigenvalues(in_sparse: bool) -> None:
    """lambda_k = (1 + 2 sum_{j<=w} cos(2 pi j k / n)) / (2 w + 1), n = 24, w = 3."""
    n, w = 24, 3
    rule = kd.Interaction(kd.Flat(), kd.Window(2 * w + 1, two_sided=True, periodic=True))
    matrix = operators.matrix(rule, np.zeros((n, 1)), sparse=in_sparse)
    pattern = operators.support(rule, np.zeros((n, 1)), sparse=in_sparse)
    k, j = np.arange(n)[:, None], np.arange(1, w + 1)
    expected = (1 + 2 * np.cos(2 * np.pi * j * k / n).sum(axis=1)) / (2 * w + 1)
    np.testing.assert_allclose(np.sort(operators.eigenvalues(matrix, pattern).real), np.sort(expected), atol=1e-12)
    assert operators.spectral_gap(matrix, pattern) == pytest.approx(1 - np.sort(np.abs(expected))[-2], abs=1e-12)


def test_arnoldi_finds_the_gap_of_a_long_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krause_dynamics.analysis.operators.spectra.DENSE", 50)
    n, w = 100, 20
    rule = kd.Interaction(kd.Flat(), kd.Window(2 * w + 1, two_sided=True, periodic=True))
    matrix = operators.matrix(rule, np.zeros((n, 1)), sparse=True)
    expected = (1 + 2 * np.cos(2 * np.pi * np.arange(1, w + 1) / n).sum()) / (2 * w + 1)
    assert operators.spectral_gap(matrix) == pytest.approx(1 - expected, abs=1e-10)


def test_sparse_equals_dense_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krause_dynamics.analysis.operators.matrices.ENTRIES", 100)
    x = np.random.default_rng(1).standard_normal((30, 2))
    rule = kd.krause(0.5, kd.Within(0.7) & kd.Others() & kd.TopK(3))
    dense, pattern = operators.matrix(rule, x), operators.support(rule, x)
    np.testing.assert_allclose(operators.matrix(rule, x, sparse=True).toarray(), dense, atol=1e-15)
    assert np.array_equal(operators.support(rule, x, sparse=True).toarray(), pattern)
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=1e-14)
    alone = np.flatnonzero(kd.weights(rule, x).sum(axis=1) == 0)
    assert alone.size
    assert np.all(dense[alone, alone] == 1)
    torch_dense = operators.matrix(rule, torch.from_numpy(x))
    np.testing.assert_array_equal(torch_dense, dense)


@given(npst.arrays(np.float64, st.tuples(st.integers(2, 8), st.just(2)), elements=st.floats(-2, 2)))
def test_dobrushin_contracts(x: np.ndarray) -> None:
    rule = kd.softmax(beta=1.0)
    matrix = operators.matrix(rule, x)
    tau = operators.dobrushin(matrix)
    oracle = max(1 - np.minimum(a, b).sum() for a in matrix for b in matrix)
    assert tau == pytest.approx(oracle, abs=1e-14)
    spread = np.ptp(x[:, 0])
    assert np.ptp((matrix @ x)[:, 0]) <= tau * spread + 1e-12
    assert operators.dobrushin(matrix @ matrix) <= tau**2 + 1e-12
    values = np.abs(operators.eigenvalues(matrix, operators.support(rule, x)))
    assert values[1] <= tau + 1e-12
    scores = x @ x.T
    oscillation = max(np.ptp(a - b) for a in scores for b in scores)
    assert tau <= math.tanh(oscillation / 4) + 1e-12  # row total variation <= tanh(osc / 4)


def test_dobrushin_of_rows_with_logits_one_and_minus_one() -> None:
    """Equality tau = tanh(osc / 4): logits (1, -1), (-1, 1) have oscillation 4."""
    matrix = operators.matrix(kd.softmax(beta=1.0), np.array([[1.0], [-1.0]]))
    assert operators.dobrushin(matrix) == pytest.approx(math.tanh(1.0), abs=1e-15)


def test_dobrushin_of_sparse_matrices() -> None:
    disjoint = sparse.csr_array(np.kron(np.eye(2), np.full((2, 2), 0.5)))
    assert operators.dobrushin(disjoint) == 1.0
    shared = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])
    assert operators.dobrushin(sparse.csr_array(shared)) == pytest.approx(0.5)
    assert operators.dobrushin(np.ones((1, 1))) == 0.0


def test_alternation_has_no_gap() -> None:
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert operators.spectral_gap(swap, swap > 0) == pytest.approx(0.0, abs=1e-15)
    assert operators.spectral_gap(np.eye(2), np.eye(2, dtype=bool)) == 1.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one state"):
        operators.matrix(kd.softmax(), np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="square"):
        operators.structure(np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="support must be given"):
        operators.eigenvalues(np.eye(2))


def test_gap_of_a_chain_where_arnoldi_iterations_do_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krause_dynamics.analysis.operators.spectra.DENSE", 50)
    monkeypatch.setattr("krause_dynamics.analysis.operators.spectra.RESTARTS", 2)
    n = 400
    matrix = operators.matrix(kd.bounded_confidence(1.0), np.arange(n, dtype=float)[:, None], sparse=True)
    # The walk with a loop at each end: weights 1/3 inside, 1/2 at the ends; similar to a symmetric tridiagonal matrix.
    heard = np.where((np.arange(n) == 0) | (np.arange(n) == n - 1), 2.0, 3.0)
    expected = eigvalsh_tridiagonal(1 / heard, 1 / np.sqrt(heard[1:] * heard[:-1]))
    assert operators.spectral_gap(matrix) == pytest.approx(1 - expected[-2], rel=1e-6)
