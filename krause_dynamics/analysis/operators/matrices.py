"""Matrix and support of a state, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._arguments import Flag, Maybe, Points, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.interaction import Interaction, reference
from krause_dynamics.interaction.request import Request
from krause_dynamics.interaction.rules import RULE
from krause_dynamics.spaces import SPACE, Space

ENTRIES = 2**21  # pairs in memory at once while a sparse matrix is built

Matrix = Any  # numpy array or scipy.sparse array, (n, n)


@reads(rule=RULE, queries=Points((1, 2)), sources=Maybe(Points((1, 2))), sparse=Flag(), space=SPACE)
def matrix(
    rule: Interaction,
    queries: Array,
    sources: Array | None = None,
    *,
    log_mass: Array | None = None,
    sparse: bool = False,
    space: Space | None = None,
) -> Matrix:
    """Row-stochastic matrix ``a_ij = m_j exp s_ij / Z_i`` of one state.

    Args:
        rule: The interaction (its ``normalised`` does not matter).
        queries: (n, d) positions, or Q x.
        sources: (m, d); by default the queries. Then a row that admits nobody is that of the identity, since such a
            particle stays where it is; with other sources it is 0.
        log_mass: (m,) log-masses of the sources.
        space: Where the positions live; a source heard through a border has the sum of its images' weights. Default: no
            border.
        sparse: Build a scipy CSR array in blocks of rows. Its stored entries are the support: an admitted pair whose
            weight underflows is a stored zero.

    Returns:
        (n, m) in float64, numpy or scipy.

    Raises:
        ValueError: A batch of states.
    """
    rows = _rows(rule, queries, sources, log_mass, sparse, space)
    if sparse:
        return _csr((block.allowed, block.weights(rule)[block.allowed]) for block in rows)
    return next(rows).weights(rule)


@reads(rule=RULE, queries=Points((1, 2)), sources=Maybe(Points((1, 2))), sparse=Flag(), space=SPACE)
def support(
    rule: Interaction,
    queries: Array,
    sources: Array | None = None,
    *,
    log_mass: Array | None = None,
    sparse: bool = False,
    space: Space | None = None,
) -> Matrix:
    """Which pairs are admitted, whatever their weight.

    Args:
        rule: Whose neighbourhood decides.
        queries: (n, d) who hears.
        sources: (m, d) who is heard; by default the queries.
        log_mass: (m,) log-masses; sources without mass are heard by nobody. By default all have mass.
        sparse: A scipy CSR array, for rules that admit few pairs.
        space: Geometry of the positions; by default Euclidean.

    Returns:
        Boolean (n, m).
    """
    rows = _rows(rule, queries, sources, log_mass, sparse, space)
    if sparse:
        return _csr((block.allowed, block.allowed[block.allowed]) for block in rows)
    return next(rows).allowed


class _Block(NamedTuple):
    """Some rows: support (k, m), those that admit nobody, the request, and whose image each of its sources is."""

    allowed: np.ndarray
    empty: np.ndarray
    request: Request
    owner: np.ndarray | None

    def weights(self, rule: Interaction) -> np.ndarray:
        """Weights (k, m); empty rows have what `_rows` put into the support, the particle itself or nothing."""
        weights = reference.weights(rule, self.request)
        if self.owner is not None:
            images, weights = weights, np.zeros(self.allowed.shape)
            np.add.at(weights.T, self.owner, images.T)
        weights[self.empty] = self.allowed[self.empty]
        return weights


def _rows(
    rule: Interaction,
    queries: Array,
    sources: Array | None,
    log_mass: Array | None,
    in_blocks: bool,
    space: Space | None,
) -> Iterator[_Block]:
    """Blocks of rows, or all rows at once."""
    arrays = [None if x is None else to_numpy(x).astype(np.float64, copy=False) for x in (queries, sources, log_mass)]
    if arrays[0] is None or arrays[0].ndim != 2:
        raise ValueError(f"queries must be one state of shape (n, d), got {np.shape(queries)}; 1-D: x[:, None]")
    if arrays[2] is not None and arrays[2].shape != (m := len(arrays[0] if arrays[1] is None else arrays[1]),):
        raise ValueError(f"log_mass must have one entry for each of {m} sources, got shape {arrays[2].shape}")
    request, owner = _request(rule, arrays[0], arrays[1], arrays[2], space)
    n, m = request.queries.shape[0], request.sources.shape[0]
    columns = m if owner is None else len(arrays[0] if arrays[1] is None else arrays[1])
    height = max(1, ENTRIES // m) if in_blocks else n
    for start in range(0, n, height):
        part = request.rows(start, min(start + height, n)) if in_blocks else request
        allowed = reference.admitted(rule, part)
        if owner is not None:
            images, allowed = allowed, np.zeros((len(allowed), columns), bool)
            np.logical_or.at(allowed.T, owner, images.T)
        empty = np.flatnonzero(~allowed.any(axis=1))
        if sources is None:
            allowed[empty, start + empty] = True
        yield _Block(allowed, empty, part, owner)


def _request(
    rule: Interaction, x: np.ndarray, sources: np.ndarray | None, log_mass: np.ndarray | None, space: Space | None
) -> tuple[Request, np.ndarray | None]:
    """What is met, images behind the border included, and whose image each source is (``None``: there is no border)."""
    if space is None:
        return Request.of(x, sources, log_mass=log_mass), None
    space.check_dimension(x.shape[-1])
    x, sources = space.wrap(x), None if sources is None else space.wrap(sources)
    images = space.images(x if sources is None else sources, rule)
    if images is None:
        return Request.of(x, sources, log_mass=log_mass), None
    keys, owner = images
    masses = None if log_mass is None else log_mass[owner]
    return Request.of(x, keys, log_mass=masses, source_index=owner), owner


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
