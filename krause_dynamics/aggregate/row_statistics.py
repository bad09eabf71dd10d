"""What the weights of a rule add up to: mass received, entropy of rows, own weight, and weight by index distance.

All are sums over the weights ``a_ij``, taken block by block, so that no more than a block of pairs is ever held. They
are derivatives of the log-partition as well, ``d log Z_i / d log m_j = a_ij``, which is how the tests check them.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import Array, device, is_torch, without_gradients
from krause_dynamics.aggregate.border import check_coefficients, check_finite, check_parameters
from krause_dynamics.aggregate.weight_blocks import Block, blocks
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Interaction, Request
from krause_dynamics.interaction.rules import check_rule


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


def statistics(
    interaction: Interaction,
    queries: Array,
    sources: Array | None = None,
    *,
    log_mass: Array | None = None,
    query_index: Array | None = None,
    source_index: Array | None = None,
    groups: Array | None = None,
    distances: int | None = None,
    impl: str = "auto",
) -> Statistics:
    """How much every source is heard, and how every query spreads its attention, without the matrix of weights.

    With masses and a pair bias the entropy is ``log Z_i - beta d log Z_i / d beta - sum_j a_ij (log m_j + b_ij)``. No
    gradients are recorded. Memory is O(n + m) beside a block of pairs; time O(n m), or O(n W) where index rules
    (`Window, Grid`) let a query hear W sources.

    Args:
        interaction: Any rule.
        queries: Who listens, (*batch, n, d), numpy or torch.
        sources: Who is heard, (*batch, m, d); by default the queries.
        log_mass: log m_j, (*batch, m); by default unit masses; -inf takes a source out (padding).
        query_index: Where index rules see the queries; default 0, 1, ...
        source_index: Likewise for the sources.
        groups: Queries whose mass is summed apart: whole numbers (n,) or (*batch, n), the group of each query
            (negative: none), or booleans (n,) or (*batch, G, n), the members of each group (which may overlap).
        distances: D, the largest index distance of the profile; by default all that occur. 0 is fastest: the profile
            is then the mean of ``own`` alone.
        impl: ``"auto"``, the fastest; ``"fused"``, one compiled pass (dot products of torch tensors on the CPU, heard
            from everyone or in a window); ``"blocked"``, blocks of queries, any rule; ``"reference"``, all pairs at
            once.

    Returns:
        `Statistics(received, entropy, own, profile)`.

    Raises:
        TypeError: Mixed array libraries, dtypes or devices; groups that are neither whole numbers nor booleans.
        ValueError: Shapes that do not fit, or NaN among particles that have mass.
        UnsupportedImplementation: An ``impl`` of another name, or ``"fused"`` where it cannot compute this.

    Examples:
        >>> import numpy as np, krause_dynamics as kd
        >>> x = np.array([[0.0], [1.0], [5.0]])
        >>> kd.statistics(kd.bounded_confidence(radius=1.0), x).received.tolist()
        [1.0, 1.0, 1.0]
    """
    if impl not in ("auto", "fused", "blocked", "reference"):
        raise UnsupportedImplementation(f"impl must be 'auto', 'fused', 'blocked' or 'reference', got {impl!r}")
    check_rule(interaction)
    request = Request.of(queries, sources, log_mass=log_mass, query_index=query_index, source_index=source_index)
    check_finite(request)
    check_parameters(interaction, request)
    check_coefficients(interaction, request)
    if impl in ("auto", "fused"):
        found = _fused(interaction, request, groups, distances)
        if isinstance(found, Statistics):
            return found
        if impl == "fused":
            raise UnsupportedImplementation(f"impl='fused' cannot compute this: {found}; use impl='auto'")
    sums = RowSums(request, groups=groups, distances=distances)
    with without_gradients(queries):
        for block in blocks(interaction, request, whole=impl == "reference"):
            sums.add(block)
        return sums.finish()


def _fused(interaction: Interaction, request: Request, groups: Any, distances: int | None) -> Statistics | str:
    """The sums in one compiled pass, or the reason why there is none."""
    if not is_torch(request.queries):
        return "it takes torch tensors"
    sums = importlib.import_module("krause_dynamics.forms.attention.sums")
    call = sums.lowered(interaction, request)
    if isinstance(call, str):
        return call
    if groups is not None:
        groups, runs = _members(request, groups), tuple(sums.leading_shape(request))
        if np.broadcast_shapes(runs, tuple(groups.shape[:-2])) != runs:
            return "groups have leading axes that the queries lack"
        groups = groups.expand(*runs, *groups.shape[-2:]).reshape(-1, 1, *groups.shape[-2:])
    farthest = _largest_distance(request) if distances is None else _checked(distances)
    found = sums.attend(call, sums.Wanted(groups=groups, profile=farthest > 0, mean=False))
    lead, m = sums.leading_shape(request), request.sources.shape[-2]
    received, entropy, own = (x.reshape(*lead, *x.shape[2:]) for x in (found.received, found.entropy, found.own))
    if not farthest:
        return Statistics(received, entropy, own, own.mean(-1, keepdim=True))
    profile = own.new_zeros(*lead, 2 * farthest + 1)
    every = found.profile.reshape(*lead, -1) / own.shape[-1]
    first, last = max(-farthest, 1 - m), min(farthest, own.shape[-1] - 1)
    profile[..., farthest + first : farthest + last + 1] = every[..., m - 1 + first : m + last]
    return Statistics(received, entropy, own, profile)


class RowSums:
    """Sums over blocks of weights; memory O(n + m)."""

    def __init__(self, request: Request, *, groups: Array | None = None, distances: int | None = None) -> None:
        self.request = request
        self.members = None if groups is None else _members(request, groups)
        self.distances = _largest_distance(request) if distances is None else _checked(distances)
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


def _members(request: Request, groups: Array) -> Array:
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


def _largest_distance(request: Request) -> int:
    if request.positions_are_ranks:
        return int(max(request.queries.shape[-2], request.sources.shape[-2])) - 1
    queries, sources = request.query_index, request.source_index
    return max(abs(int(queries.max()) - int(sources.min())), abs(int(queries.min()) - int(sources.max())))


def _checked(distances: Any) -> int:
    if isinstance(distances, bool) or not isinstance(distances, int | np.integer) or distances < 0:
        raise ValueError(f"distances must be a whole number of at least 0, got {distances!r}; None takes all")
    return int(distances)


def _zeros(x: Array, shape: tuple[int, ...]) -> Array:
    return x.new_zeros(shape) if is_torch(x) else np.zeros(shape, x.dtype)


def _as(members: Array, weights: Array) -> Array:
    return members.to(weights.dtype) if is_torch(weights) else members.astype(weights.dtype)
