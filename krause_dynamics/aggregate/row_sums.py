"""Sums over the weights of a rule, taken block by block, so that no more than a block of pairs is ever held."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import Array, device, is_torch
from krause_dynamics.aggregate.weight_blocks import Block
from krause_dynamics.interaction import Request


class Statistics(NamedTuple):
    """Sums over the weights ``a_ij`` of n queries and m sources, in the queries' dtype (half types: float32).

    Attributes:
        received: Mass of every source, ``sum_i a_ij``, (*batch, m); by group of queries (*batch, G, m).
        entropy: Of every row, ``-sum_j a_ij log a_ij`` in nats, (*batch, n); 0 where nobody is heard.
        own: Weight of every query on the source at its own index, (*batch, n); 0 where that is not admitted.
        profile: Weight by index distance, (*batch, 2 D + 1): ``profile[D + o]`` is the mean over all queries of the
            weight on the source o places before (o < 0: after), so it sums to 1 where D leaves nothing out.
    """

    received: Array
    entropy: Array
    own: Array
    profile: Array


class RowSums:
    """Sums over blocks of weights; memory O(n + m)."""

    def __init__(self, request: Request, *, groups: Array | None = None, distances: int | None = None) -> None:
        self.request = request
        self.members = None if groups is None else members_of(request, groups)
        self.distances = largest_distance(request) if distances is None else checked_distance(distances)
        self.received: Array = None
        self.profile: Array = None
        self.entropy: list[Array] = []
        self.own: list[Array] = []

    def add(self, block: Block) -> None:
        """Take in the next rows."""
        if self.received is None:
            self._begin(block)
        for columns, weights in block.pieces():
            if self.members is None:
                received = self.request.xp.sum(weights, axis=-2)
            else:
                received = _as(self.members[..., block.rows], weights) @ weights
            self.received[..., columns] += received
            if self.distances:
                self._profile(block.rows, columns, weights)
        self.entropy.append(block.entropy)
        self.own.append(self._own(block))

    def finish(self) -> Statistics:
        """The sums; call it once, after all rows."""
        join = lambda parts: parts[0] if len(parts) == 1 else self.request.xp.concat(parts, axis=-1)  # noqa: E731
        entropy, own = join(self.entropy), join(self.own)
        if not self.distances:
            self.profile = self.request.xp.sum(own, axis=-1, keepdims=True)
        return Statistics(self.received, entropy, own, self.profile / own.shape[-1])

    def _begin(self, block: Block) -> None:
        batch, m = tuple(block.weights.shape[:-2]), self.request.sources.shape[-2]
        groups: tuple[int, ...] = ()
        if self.members is not None:
            batch_of_groups = tuple(self.members.shape[:-2])
            batch = np.broadcast_shapes(batch, batch_of_groups)
            groups = (self.members.shape[-2],)
        self.received = _zeros(block.weights, (*batch, *groups, m))
        self.profile = _zeros(block.weights, (*block.weights.shape[:-2], 2 * self.distances + 1))

    def _own(self, block: Block) -> Array:
        """Weight of each row on its own index."""
        if not self.request.positions_are_ranks:
            xp, (columns,) = self.request.xp, block.columns
            here = self.request.query_index[..., block.rows, None] == self.request.source_index[..., None, columns]
            return xp.sum(xp.where(here, block.weights, xp.zeros_like(block.weights)), axis=-1)
        own = _zeros(block.weights, tuple(block.weights.shape[:-1]))
        for columns, weights in block.pieces():
            first, last = max(block.rows.start, columns.start), min(block.rows.stop, columns.stop)
            index = np.arange(first, max(first, last))
            own[..., index - block.rows.start] = weights[..., index - block.rows.start, index - columns.start]
        return own

    def _profile(self, rows: slice, columns: slice, weights: Array) -> None:
        """Add the weights of a piece by distance."""
        if not self.request.positions_are_ranks:
            self._profile_by_index(rows, columns, weights)
            return
        sums = _diagonals(weights)  # of j - i, rising from ...
        lowest = columns.start - (rows.stop - 1)
        offsets = np.arange(lowest, lowest + sums.shape[-1])
        inside = np.flatnonzero(abs(offsets) <= self.distances)
        if inside.size:
            self.profile[..., self.distances - offsets[inside]] += sums[..., inside]

    def _profile_by_index(self, rows: slice, columns: slice, weights: Array) -> None:
        """Indices that are anywhere: one place after the other."""
        xp, places = self.request.xp, 2 * self.distances + 1
        offset = self.request.query_index[..., rows, None] - self.request.source_index[..., None, columns]
        inside = abs(offset) <= self.distances
        place = xp.broadcast_to(xp.where(inside, offset + self.distances, xp.zeros_like(offset)), weights.shape)
        weights = xp.where(inside, weights, xp.zeros_like(weights))
        flat, place = weights.reshape(*weights.shape[:-2], -1), place.reshape(*weights.shape[:-2], -1)
        if is_torch(weights):
            self.profile.scatter_add_(-1, place, flat)
            return
        for run in np.ndindex(flat.shape[:-1]):
            self.profile[run] += np.bincount(place[run], flat[run], minlength=places)


def _diagonals(weights: Array) -> Array:
    """Sums of (..., r, c) over entries of equal column minus row, (..., r + c - 1), from ``-(r - 1)`` upwards.

    Written with rows one place shorter than they are read, each row moves by one: diagonals become columns.
    """
    *batch, r, c = weights.shape
    flat = _zeros(weights, (*batch, r * (r + c)))
    flat[..., r - 1 : r - 1 + r * (r + c - 1)].reshape(*batch, r, r + c - 1)[..., :c] = weights
    return flat.reshape(*batch, r, r + c)[..., : r + c - 1].sum(-2)


def members_of(request: Request, groups: Array) -> Array:
    """Groups as booleans (..., G, n)."""
    xp = request.xp
    try:
        groups = xp.asarray(groups, device=device(request.queries))
    except (TypeError, ValueError):
        raise TypeError(f"groups must be an array of whole numbers or booleans, got {groups!r}") from None
    n = request.queries.shape[-2]
    if groups.ndim == 0 or groups.shape[-1] != n:
        raise ValueError(f"groups must have one entry per query, {n}, got shape {tuple(groups.shape)}")
    if groups.dtype == xp.bool:
        return groups[None] if groups.ndim == 1 else groups
    if xp.isdtype(groups.dtype, "integral"):
        numbers = xp.arange(int(groups.max()) + 1, device=device(request.queries))
        return groups[..., None, :] == numbers[:, None]
    raise TypeError(f"groups must hold whole numbers or booleans, got {groups.dtype}")


def largest_distance(request: Request) -> int:
    """The largest difference between an index of a query and one of a source."""
    if request.positions_are_ranks:
        return int(max(request.queries.shape[-2], request.sources.shape[-2])) - 1
    queries, sources = request.query_index, request.source_index
    return max(abs(int(queries.max()) - int(sources.min())), abs(int(queries.min()) - int(sources.max())))


def checked_distance(distances: Any) -> int:
    """A largest distance as a user gives it.

    Raises:
        ValueError: No whole number of at least 0.
    """
    if isinstance(distances, bool) or not isinstance(distances, int | np.integer) or distances < 0:
        raise ValueError(f"distances must be a whole number of at least 0, got {distances!r}; None takes all")
    return int(distances)


def _zeros(x: Array, shape: tuple[int, ...]) -> Array:
    return x.new_zeros(shape) if is_torch(x) else np.zeros(shape, x.dtype)


def _as(members: Array, weights: Array) -> Array:
    return members.to(weights.dtype) if is_torch(weights) else members.astype(weights.dtype)
