"""The weights a_ij of any rule, a block of queries at a time: what analyses need without holding all pairs.

A block is the reference's own definition on fewer rows, so every rule, rank and bias is served. Where index rules bound
who is heard, a block looks at the sources in reach only: a window of W sources costs O(n W).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import Array, is_torch, like
from krause_dynamics.interaction import Interaction, Request, Window, Within, reference
from krause_dynamics.interaction.neighbourhoods import All
from krause_dynamics.interaction.reach import UNBOUNDED, Reach

# Scores held at once, over all batch axes: 4 MB in float32 on a CPU (so that the passes over a block find it in the
# cache), 256 MB on a device. FEWEST keeps matrix products from degenerating when the batch is large.
CPU_PAIRS, DEVICE_PAIRS, FEWEST = 1 << 20, 1 << 26, 32


class Block(NamedTuple):
    """Rows ``rows`` of the weights, and of nothing but the sources that they can reach.

    Attributes:
        rows: Which queries.
        columns: Which sources, as slices in rising order.
        weights: (*batch, rows, columns of all slices).
        entropy: -sum_j a_ij log a_ij, (*batch, rows); 0 in a row that admits nobody.
        log_partition: log Z_i, (*batch, rows); -inf in such a row.
    """

    rows: slice
    columns: tuple[slice, ...]
    weights: Array
    entropy: Array
    log_partition: Array

    def pieces(self) -> Iterator[tuple[slice, Array]]:
        """Each slice of sources with its part of the weights."""
        begin = 0
        for columns in self.columns:
            size = columns.stop - columns.start
            yield columns, self.weights[..., begin : begin + size]
            begin += size


def blocks(interaction: Interaction, request: Request, *, whole: bool = False) -> Iterator[Block]:
    """All rows of the weights, block after block; half types are computed in float32.

    Args:
        interaction: The rule.
        request: The arrays.
        whole: One block of all pairs, which is the reference itself.
    """
    request = reference.accumulating(request)
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    if interaction.pair_bias is not None:
        interaction = replace(interaction, pair_bias=_all_pairs(interaction, request))
    reach = _reach(interaction, request)
    size = n if whole else _rows_a_block(reach, request)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        columns = (slice(0, m),) if whole else _columns(reach, rows, m)
        part = _among(request.rows(rows.start, rows.stop), columns, m)
        logs = reference.log_weights(_for_rows(interaction, rows, n), part)
        yield Block(rows, columns, *_normalised(request.xp, logs))


def _normalised(xp: Any, logs: Array) -> tuple[Array, Array, Array]:
    """Weights, entropies and log-partitions of rows of log-weights."""
    largest = xp.max(logs, axis=-1, keepdims=True)
    logs = logs - xp.where(largest > reference.NEVER, largest, xp.zeros_like(largest))
    weights = xp.exp(logs)
    total = xp.sum(weights, axis=-1, keepdims=True)
    total = xp.where(total > 0, total, xp.ones_like(total))
    weights /= total
    # With t = log-weight - largest and z = sum exp t, the entropy is ln z - sum a t: no logarithm of small weights. A
    # pair left out has weight 0 and t = -inf, whose product would be NaN: any finite t will do.
    lowest = float(xp.finfo(logs.dtype).min)
    logs = logs.clamp_(min=lowest) if is_torch(logs) else np.maximum(logs, lowest, out=logs)
    logs *= weights
    entropy = xp.log(total[..., 0]) - xp.sum(logs, axis=-1)
    log_partition = xp.log(total[..., 0]) + largest[..., 0]
    return weights, xp.where(entropy > 0, entropy, xp.zeros_like(entropy)), log_partition


# --- which pairs


def _reach(interaction: Interaction, request: Request) -> Reach:
    """Index rules that bound every row from outside: those of the parts which have a reach, the others ignored."""
    if not request.positions_are_ranks:
        return Reach()
    bounding = []
    for part in interaction.parts:
        if isinstance(part, Window) and part.periodic:
            return Reach()  # it counts its sources, so none may be missing
        if isinstance(part.reach, Reach):
            bounding.append(part)
    reach = Reach.of(bounding)
    return Reach() if isinstance(reach, str) else reach


def _rows_a_block(reach: Reach, request: Request) -> int:
    masses = () if request.log_mass is None else tuple(request.log_mass.shape[:-1])
    batch = np.broadcast_shapes(tuple(request.queries.shape[:-2]), tuple(request.sources.shape[:-2]), masses)
    runs = int(np.prod(batch))
    on_cpu = not is_torch(request.queries) or request.queries.device.type == "cpu"
    pairs = (CPU_PAIRS if on_cpu else DEVICE_PAIRS) // max(1, runs)
    m, (left, right) = request.sources.shape[-2], reach.band
    width = left + right + 1 + reach.leading
    if UNBOUNDED in (left, right) or width >= m:
        return max(FEWEST, pairs // m)
    # As many rows as half the width: a block then looks at a third of sources in vain. Large ones fill a device.
    rows = max(FEWEST, width // 2 if on_cpu else 8 * width)
    return max(FEWEST, min(rows, pairs // (rows + width)))


def _columns(reach: Reach, rows: slice, m: int) -> tuple[slice, ...]:
    """Sources that any of these rows may hear; never none, so that a row without sources is a row of zeros."""
    (left, right), prefix = reach.band, reach.leading
    if rows.start < reach.prefix:  # leading cells hear all
        return (slice(0, m),)
    first = 0 if left == UNBOUNDED else min(max(0, rows.start - left), m - 1)
    last = m if right == UNBOUNDED else min(max(rows.stop + right, first + 1), m)
    if first <= prefix:
        return (slice(0, max(last, min(prefix, m))),)
    return (slice(0, prefix), slice(first, last)) if prefix else (slice(first, last),)


def _among(request: Request, columns: tuple[slice, ...], m: int) -> Request:
    """The request with these sources only, at their own indices."""
    if columns == (slice(0, m),):
        return request

    def take(x: Array, axis: int) -> Array:
        parts = [x[..., c, :] if axis == -2 else x[..., c] for c in columns]
        return parts[0] if len(parts) == 1 else request.xp.concat(parts, axis=axis)

    sources = take(request.sources, -2)
    return replace(
        request,
        sources=sources,
        values=sources,
        log_mass=None if request.log_mass is None else take(request.log_mass, -1),
        source_places=take(request.source_index, -1),
    )


# --- what depends on the query


def _for_rows(interaction: Interaction, rows: slice, n: int) -> Interaction:
    """The rule with parameters of one value per query cut to these rows."""
    score = _cut(interaction.score, rows, n)
    parts = tuple(_cut(part, rows, n) if isinstance(part, Within) else part for part in interaction.parts)
    if score is interaction.score and all(a is b for a, b in zip(parts, interaction.parts, strict=True)):
        return interaction
    return replace(interaction, score=score, neighbourhood=All(parts))


def _cut(part: Any, rows: slice, n: int) -> Any:
    given = {field.name: getattr(part, field.name) for field in fields(part)}
    varying = {name: x for name, x in given.items() if getattr(x, "ndim", 0) > 0 and x.shape[-1] == n and n > 1}
    return replace(part, **{name: x[..., rows] for name, x in varying.items()}) if varying else part


def _all_pairs(interaction: Interaction, request: Request) -> Array:
    """The pair bias with both index axes written out (as a view), in the dtype of the scores."""
    bias = like(interaction.pair_bias, request.queries)
    if not request.positions_are_ranks:
        return bias
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    shape = np.broadcast_shapes(tuple(bias.shape), (n, m))
    return request.xp.broadcast_to(bias, shape)
