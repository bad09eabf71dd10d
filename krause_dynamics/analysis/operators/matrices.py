"""Matrix and support of a state, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from krause_dynamics._arguments import Flag, Maybe, Points, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.interaction import Interaction, reference
from krause_dynamics.interaction.request import Request
from krause_dynamics.interaction.rules import RULE

ENTRIES = 2**21  # pairs in memory at once while a sparse matrix is built

Matrix = Any  # numpy array or scipy.sparse array, (n, n)


@reads(rule=RULE, queries=Points((1, 2)), sources=Maybe(Points((1, 2))), sparse=Flag())
def matrix(
    rule: Interaction,
    queries: Array,
    sources: Array | None = None,
    *,
    log_mass: Array | None = None,
    sparse: bool = False,
) -> Matrix:
    """Row-stochastic matrix ``a_ij = m_j exp s_ij / Z_i`` of one state.

    Args:
        rule: The interaction (its ``normalised`` does not matter).
        queries: (n, d) positions, or Q x.
        sources: (m, d); by default the queries. Then a row that admits nobody is that of the identity, since such a
            particle stays where it is; with other sources it is 0.
        log_mass: (m,) log-masses of the sources.
        sparse: Build a scipy CSR array in blocks of rows. Its stored entries are the support: an admitted pair whose
            weight underflows is a stored zero.

    Returns:
        (n, m) in float64, numpy or scipy.

    Raises:
        ValueError: A batch of states.
    """
    rows = _rows(rule, queries, sources, log_mass, sparse)
    if sparse:
        return _csr((allowed, _weights(rule, request, allowed, empty)[allowed]) for allowed, empty, request in rows)
    allowed, empty, request = next(rows)
    return _weights(rule, request, allowed, empty)


@reads(rule=RULE, queries=Points((1, 2)), sources=Maybe(Points((1, 2))), sparse=Flag())
def support(
    rule: Interaction,
    queries: Array,
    sources: Array | None = None,
    *,
    log_mass: Array | None = None,
    sparse: bool = False,
) -> Matrix:
    """Which pairs are admitted, whatever their weight: Boolean (n, m), dense or scipy CSR; arguments as in `matrix`."""
    rows = _rows(rule, queries, sources, log_mass, sparse)
    if sparse:
        return _csr((allowed, allowed[allowed]) for allowed, _, _ in rows)
    return next(rows)[0]


def _rows(
    rule: Interaction, queries: Array, sources: Array | None, log_mass: Array | None, in_blocks: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, Request]]:
    """Support, rows that admit nobody, and request, of each block of rows or of all rows at once."""
    arrays = [None if x is None else to_numpy(x).astype(np.float64, copy=False) for x in (queries, sources, log_mass)]
    if arrays[0] is None or arrays[0].ndim != 2:
        raise ValueError(f"queries must be one state of shape (n, d), got {np.shape(queries)}; 1-D: x[:, None]")
    request = Request.of(arrays[0], arrays[1], log_mass=arrays[2])
    n, m = request.queries.shape[0], request.sources.shape[0]
    height = max(1, ENTRIES // m) if in_blocks else n
    for start in range(0, n, height):
        part = request.rows(start, min(start + height, n)) if in_blocks else request
        allowed = reference.admitted(rule, part)
        empty = np.flatnonzero(~allowed.any(axis=1))
        if sources is None:
            allowed[empty, start + empty] = True
        yield allowed, empty, part


def _weights(rule: Interaction, request: Request, allowed: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Weights of some rows; the empty ones have what `_rows` put into the support, the particle itself or nothing."""
    weights = reference.weights(rule, request)
    weights[empty] = allowed[empty]
    return weights


def _csr(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Matrix:
    """CSR array from blocks of rows, (pattern, stored values); explicit zeros are kept."""
    from scipy import sparse

    data, indices, lengths, columns = [], [], [], 0
    for allowed, values in blocks:
        data.append(values)
        indices.append(np.nonzero(allowed)[1])
        lengths.append(allowed.sum(axis=1))
        columns = allowed.shape[1]
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return sparse.csr_array(
        (np.concatenate(data), np.concatenate(indices), pointers), shape=(len(pointers) - 1, columns)
    )
