"""What the weights of a rule add up to: mass received, entropy of rows, own weight, and weight by index distance.

All are sums over the weights ``a_ij``, taken block by block, so that no more than a block of pairs is ever held. They
are derivatives of the log-partition as well, ``d log Z_i / d log m_j = a_ij``, which is how the tests check them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from krause_dynamics._array import Array, is_torch, without_gradients
from krause_dynamics.aggregate.border import check_coefficients, check_finite, check_parameters
from krause_dynamics.aggregate.row_sums import RowSums, Statistics, checked_distance, largest_distance, members_of
from krause_dynamics.aggregate.weight_blocks import blocks
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Interaction, Request
from krause_dynamics.interaction.rules import check_rule


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
        groups, runs = members_of(request, groups), tuple(sums.leading_shape(request))
        if np.broadcast_shapes(runs, tuple(groups.shape[:-2])) != runs:
            return "groups have leading axes that the queries lack"
        groups = groups.expand(*runs, *groups.shape[-2:]).reshape(-1, 1, *groups.shape[-2:])
    farthest = largest_distance(request) if distances is None else checked_distance(distances)
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
