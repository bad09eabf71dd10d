"""Communicating classes, closed classes and blocks: what a matrix can do for ever."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from krause_dynamics._arguments import reads
from krause_dynamics.analysis.operators._domain import Matrix as Matrix_
from krause_dynamics.analysis.operators.matrices import Matrix


@dataclass(frozen=True)
class Structure:
    """Who can reach whom along the support. Arrays are numpy.

    Attributes:
        classes: (n,) communicating class (strongly connected component) of each particle, numbered so that influence
            comes from smaller numbers only: sorted by class, the matrix is block lower triangular (Frobenius form).
        closed: (k,) numbers of the closed classes, those that hear nobody outside. Each keeps its own consensus.
        blocks: (n,) weakly connected component of each particle: the matrix is block diagonal over them
            (2602.11534, appendix C.1).
    """

    classes: np.ndarray
    closed: np.ndarray
    blocks: np.ndarray

    @property
    def multiplicity(self) -> int:
        """Multiplicity of the eigenvalue 1 = number of closed communicating classes."""
        return len(self.closed)

    @property
    def block_count(self) -> int:
        """Number of blocks that do not hear each other; at most `multiplicity`, since each holds a closed class."""
        return int(self.blocks.max()) + 1

    @property
    def is_reducible(self) -> bool:
        """Whether some particle cannot reach some other."""
        return bool(self.classes.max() > 0)

    @property
    def order(self) -> np.ndarray:
        """(n,) permutation that shows the blocks and, within each, the triangular form: ``A[order][:, order]``."""
        return np.lexsort((self.classes, self.blocks))

    def members(self, number: int) -> np.ndarray:
        """Particles of one class."""
        return np.flatnonzero(self.classes == number)


@reads(support=Matrix_(square=True))
def structure(support: Matrix) -> Structure:
    """Communicating classes, closed classes and blocks of a support.

    Args:
        support: (n, n) from `support`, a Boolean array, or a sparse array whose stored entries are the support (also
            from ``matrix(..., sparse=True)``). A row without entries is a particle that stays: a closed class.

    Raises:
        ValueError: Not square, or a dense array that is not Boolean (weights underflow, their zeros mean nothing).
    """
    from scipy.sparse.csgraph import connected_components

    pattern = pattern_of(support)
    count, strong = connected_components(pattern, directed=True, connection="strong")
    _, blocks = connected_components(pattern, directed=False)
    between = _between_classes(pattern, strong, count)
    closed = np.ones(count, bool)
    closed[between.indices] = False
    rank = _topological(between)
    return Structure(rank[strong], np.sort(rank[np.flatnonzero(closed)]), blocks.astype(np.int64))


def pattern_of(support: Matrix) -> Matrix:
    """A support as CSR with ones."""
    from scipy import sparse

    if len(support.shape) != 2 or support.shape[0] != support.shape[1]:
        raise ValueError(f"support must be a square matrix, got shape {tuple(support.shape)}")
    if sparse.issparse(support):
        pattern = sparse.csr_array(support, copy=True)
        pattern.data = np.ones(len(pattern.data), np.int8)
        return pattern
    if np.asarray(support).dtype != bool:
        raise ValueError("support must be Boolean; take it from operators.support(rule, x), not from weights > 0")
    return sparse.csr_array(np.asarray(support).astype(np.int8))


def _between_classes(pattern: Matrix, strong: np.ndarray, count: int) -> Matrix:
    """CSR array (count, count) with an entry for each pair (heard class, hearing class) of different classes."""
    from scipy import sparse

    entries = pattern.tocoo()
    hears, heard = strong[entries.coords[0]], strong[entries.coords[1]]
    across = hears != heard
    ones = np.ones(int(across.sum()), np.int32)
    return sparse.coo_array((ones, (heard[across], hears[across])), shape=(count, count)).tocsr()


def _topological(edges: Matrix) -> np.ndarray:
    """Rank of each class such that every class comes after all that it hears (Kahn's algorithm, level by level).

    Each edge is looked at once: a causal matrix has as many levels as particles and costs no more than its entries.
    """
    count = edges.shape[0]
    rank, waiting = np.empty(count, np.int64), np.bincount(edges.indices, minlength=count)
    ready, done = np.flatnonzero(waiting == 0), 0
    while len(ready):
        rank[ready] = np.arange(done, done + len(ready))
        done += len(ready)
        freed = np.concatenate([edges.indices[edges.indptr[a] : edges.indptr[a + 1]] for a in ready])
        np.subtract.at(waiting, freed, 1)
        ready = np.unique(freed[waiting[freed] == 0])
    return rank
