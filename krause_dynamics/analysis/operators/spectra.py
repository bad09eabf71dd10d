"""Contraction and spectrum of a row-stochastic matrix."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Maybe, Whole, reads
from krause_dynamics._array import to_numpy
from krause_dynamics.analysis.operators._domain import Matrix as Matrix_
from krause_dynamics.analysis.operators.classes import structure
from krause_dynamics.analysis.operators.matrices import Matrix

DENSE = 1500  # largest block whose eigenvalues are computed densely (some seconds); beyond, Arnoldi iterations
RESTARTS = 100  # of Arnoldi iterations; a long chain of particles needs some 10^5, shift and invert needs a few
SHIFT = 1 + 1e-9  # a stochastic matrix has no eigenvalue beyond 1, so A - SHIFT I is regular


@reads(matrix=Matrix_(stochastic=True))
def dobrushin(matrix: Matrix) -> float:
    """Dobrushin's coefficient ``tau(A) = max_ij 1/2 sum_k |a_ik - a_jk| = 1 - min_ij sum_k min(a_ik, a_jk)``.

    ``diam(A X) <= tau(A) diam(X)``, ``|lambda_2| <= tau(A)`` and ``tau(A B) <= tau(A) tau(B)``. It is 1 as soon as two
    rows share no source, which sparse matrices are asked first.

    Args:
        matrix: Row-stochastic (n, m), dense or sparse.

    Returns:
        Between 0 (all rows equal) and 1. O(n^2 m).

    Source: Dobrushin 1956; Seneta, Non-negative Matrices and Markov Chains, section 3.1.
    """
    from scipy import sparse
    from scipy.spatial.distance import pdist

    if sparse.issparse(matrix):
        pattern = sparse.csr_array(matrix, copy=True)
        pattern.data = np.ones(len(pattern.data), np.float32)
        if (pattern @ pattern.T).nnz < pattern.shape[0] ** 2:
            return 1.0
        matrix = matrix.toarray()
    rows = to_numpy(matrix).astype(np.float64, copy=False)
    if len(rows) < 2:
        return 0.0
    return min(1.0, float(pdist(rows, "cityblock").max()) / 2)


@reads(matrix=Matrix_(square=True), count=Maybe(Whole()))
def eigenvalues(matrix: Matrix, support: Matrix | None = None, *, count: int | None = None) -> np.ndarray:
    """Eigenvalues, largest modulus first, class by class, so that a triangular part never meets an eigensolver.

    The spectrum is the union over the communicating classes (Frobenius form). A closed class has the eigenvalue 1
    exactly once and it is returned as exactly 1; a class of one particle has its self-weight. So a causal matrix gives
    its diagonal, where a plain ``eigvals`` returns rounding noise of the size eps^(1/n).

    Args:
        matrix: Row-stochastic (n, n), dense or sparse.
        support: (n, n); by default the stored entries of a sparse matrix. Needed for a dense one.
        count: How many of each class larger than `DENSE`, found by Arnoldi iterations; by default 6 there. Where they
            do not converge (long chains, whose eigenvalues crowd at 1), those nearest to 1, by shift and invert.
            Smaller classes are always complete.

    Returns:
        Complex or real (k,).

    Raises:
        ValueError: A dense matrix without its support.
    """
    from scipy import sparse

    if support is None:
        if not sparse.issparse(matrix):
            raise ValueError("support must be given for a dense matrix: operators.support(rule, x)")
        support = matrix
    form = structure(support)
    order = np.argsort(form.classes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(form.classes[order])) + 1)
    alone = np.array([len(group) == 1 for group in groups])
    found = [matrix.diagonal()[[group[0] for group, single in zip(groups, alone, strict=True) if single]]]
    for number in np.flatnonzero(~alone).tolist():
        here = groups[number]
        values = _block_eigenvalues(matrix[here][:, here], count or 6)
        if number in form.closed:
            values[np.argmin(np.abs(values - 1))] = 1.0
        found.append(values)
    spectrum = np.concatenate(found)
    return spectrum[np.argsort(-np.abs(spectrum), kind="stable")]


def _block_eigenvalues(block: Matrix, count: int) -> np.ndarray:
    from scipy import linalg, sparse

    if block.shape[0] > DENSE:
        from scipy.sparse.linalg import ArpackNoConvergence, eigs

        start = np.ones(block.shape[0]) + np.linspace(0, 1, block.shape[0])  # fixed, so that a run can be repeated
        wanted = {"k": count, "v0": start, "return_eigenvectors": False}
        try:
            return np.atleast_1d(eigs(sparse.csr_array(block), maxiter=RESTARTS, **wanted))
        except ArpackNoConvergence:
            return np.atleast_1d(eigs(sparse.csc_array(block), sigma=SHIFT, **wanted))
    dense = block.toarray() if sparse.issparse(block) else np.asarray(block)
    return linalg.eigvals(dense)


@reads(matrix=Matrix_(square=True))
def spectral_gap(matrix: Matrix, support: Matrix | None = None) -> float:
    """``1 - max |lambda|`` over the eigenvalues other than the 1 of each closed class.

    0 for a class that alternates (lambda = -1). Repeated averaging with a fixed matrix converges like ``(1 - gap)^t``.

    Args:
        matrix: Row-stochastic (n, n), dense or sparse.
        support: As in `eigenvalues`.
    """
    values = np.abs(eigenvalues(matrix, support, count=2))
    ones = structure(matrix if support is None else support).multiplicity
    return float(1 - values[ones]) if len(values) > ones else 1.0
