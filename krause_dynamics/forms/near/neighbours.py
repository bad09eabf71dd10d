"""Bounded confidence and truncated scores in any dimension: only near sources are looked at, the ball is decided
exactly.

Cells or a k-d tree, whichever suits the data (`search`); no box, no number of cells to give. `Flat` means come from
integer sums, which no order of summation can change; other scores come from the lists of admitted pairs and the score
itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import is_torch
from krause_dynamics.forms.near import fixed_point, near_kernels, tree
from krause_dynamics.forms.near.search import Ball, search
from krause_dynamics.forms.near.sorted1d import own_sources, own_sources_are_plain, positions_are_finite
from krause_dynamics.interaction.neighbourhoods import Others, Within
from krause_dynamics.interaction.request import Aggregate, Prepared, Request
from krause_dynamics.interaction.rules import Interaction
from krause_dynamics.interaction.scores import Flat, Score

FLAT_BLOCK, SCORED_BLOCK = 1 << 16, 1 << 10  # queries at once: bounds the memory for ranges, and for lists of pairs
NEAR_SHARE = 0.1  # of the box around all: lists of pairs cost about ten times a dense pair
WORTH = 4_000_000  # pairs from which the dense form is slower than loading compiled code and building cells

sums_of: Any = near_kernels.sums  # numba's dispatchers have no typed call
pairs_of: Any = near_kernels.pairs


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None``, or the reason: float64 numpy points, one `Within`, `Others` at most beside it, scalar score
    parameters.
    """
    if is_torch(request.queries) or request.queries.dtype != np.float64:
        return "neighbours computes numpy float64 arrays only"
    kinds = [type(part) for part in interaction.parts]
    if kinds.count(Within) != 1 or any(kind not in (Within, Others) for kind in kinds):
        return "neighbours needs exactly one Within, joined with Others at most"
    if any(np.ndim(parameter) for parameter in interaction.score.parameters):
        return "neighbours needs scalar score parameters"
    if interaction.pair_bias is not None:
        return "neighbours has no pair_bias"
    if Others in kinds and not own_sources_are_plain(request):
        return "neighbours with Others needs query and source indices without batch axes, and no source index twice"
    return None if positions_are_finite(request) else "neighbours needs finite positions"


def pays(interaction: Interaction, request: Request) -> bool:
    """Where all pairs are many, and with a score to evaluate, few of them near."""
    if not interaction.find(Within) or request.queries.shape[-2] * request.sources.shape[-2] <= WORTH:
        return False
    if interaction.score.is_flat or is_torch(request.sources):
        return True
    extent = np.ptp(request.sources, axis=-2)
    share = np.prod(np.minimum(2 * interaction.reach / np.where(extent > 0, extent, np.inf), 1.0), axis=-1)
    return bool(np.mean(share) < NEAR_SHARE)


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """Mean and log Z as `krause_dynamics.interaction.reference.aggregate` defines them; see `supports`."""
    within, dimension = interaction.find(Within)[0], request.queries.shape[-1]
    log_mass = None if request.log_mass is None else request.log_mass[..., None]
    stacks = [request.queries, request.sources, request.values] + ([] if log_mass is None else [log_mass])
    radius = np.asarray(within.radius, dtype=np.float64)
    n, dv = request.queries.shape[-2], request.values.shape[-1]
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in stacks), radius.shape[:-1])
    radius = np.broadcast_to(radius, (*batch, n if radius.ndim and radius.shape[-1] > 1 else 1))
    arrays = [np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in stacks]
    own = own_sources(request) if interaction.find(Others) else np.full(n, -1)
    mean, log_partition = np.empty((*batch, n, dv)), np.empty((*batch, n))
    for index in np.ndindex(*batch):
        queries, sources, values = (np.ascontiguousarray(x[index]) for x in arrays[:3])
        sources = queries if request.queries is request.sources else sources
        values = sources if request.values is request.sources else values
        logs = np.zeros(sources.shape[0]) if log_mass is None else arrays[3][index][:, 0]
        entry = Entry(queries, sources, values, logs, Ball.of(within, radius[index], dimension), own)
        mean[index], log_partition[index] = _aggregate(interaction.score, request.xp, entry)
    return Aggregate(mean, log_partition)


class Entry(NamedTuple):
    """One batch entry: queries (n, d), sources (m, d), values (m, dv), log-masses (m,), ball, own source or -1 (n,)."""

    queries: np.ndarray
    sources: np.ndarray
    values: np.ndarray
    logs: np.ndarray
    ball: Ball
    own: np.ndarray

    def with_mass(self) -> Entry:
        """The same without the sources that have no mass."""
        present = np.flatnonzero(self.logs > -np.inf)
        if present.size == self.logs.size:
            return self
        sources, logs = self.sources[present], self.logs[present]
        values = sources if self.values is self.sources else self.values[present]
        return self._replace(sources=sources, values=values, logs=logs, own=_places(self.own, present, self.logs.size))


def flat_means(entry: Entry, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (n, dv) and masses (n,) of the admitted sources of masses ``mass`` (m,)."""
    found = search(entry.sources, entry.ball)
    places = found.structure.order
    points = found.structure.points
    same = entry.values is entry.sources
    values = points[:, : places.size] if same else np.ascontiguousarray(entry.values[places].T)
    if not fixed_point.keeps_digits(mass[places], values):
        mean, log_partition = _scored_means(Flat(), np, entry._replace(logs=np.log(mass)))
        return mean, np.exp(log_partition)
    integers, bits, scales = fixed_point.columns(mass[places], values)
    kernel_columns = near_kernels.padded(integers)
    prefixes = np.zeros((integers.shape[0], 1), np.int64)
    if isinstance(found.structure, tree.Tree):
        prefixes = np.concatenate([prefixes, np.cumsum(integers, axis=1)], axis=1)
    own = _places(entry.own, places, places.size)
    n, dv = entry.queries.shape[0], entry.values.shape[1]
    mean, partition = np.empty((n, dv)), np.empty(n)
    for block, columns, limits, ranges in found.blocks(entry.queries, FLAT_BLOCK):
        part = np.empty((block.size, integers.shape[0]), np.int64)
        sums_of(columns, points, limits, *ranges, kernel_columns, prefixes, own[block], part)
        part_mean, part_partition = np.empty((block.size, dv)), np.empty(block.size)
        fixed_point.means(part, bits, scales, part_mean, part_partition)
        mean[block], partition[block] = part_mean, part_partition
    return mean, partition


def _aggregate(score: Score, xp: Any, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log Z of one batch entry; masses are taken relative to the largest."""
    if not (entry.logs > -np.inf).any():
        n = entry.queries.shape[0]
        return np.zeros((n, entry.values.shape[1])), np.full(n, -np.inf)
    entry = entry.with_mass()
    if not score.is_flat:
        return _scored_means(score, xp, entry)
    largest = float(entry.logs.max())
    mean, partition = flat_means(entry, np.exp(entry.logs - largest))
    with np.errstate(divide="ignore"):
        return mean, np.log(partition) + largest


def _scored_means(score: Score, xp: Any, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Any score: admitted pairs are listed, the score itself judges each, rows are summed over their pairs."""
    found = search(entry.sources, entry.ball)
    places = found.structure.order
    own = _places(entry.own, places, places.size)
    n = entry.queries.shape[0]
    mean, log_partition = np.zeros((n, entry.values.shape[1])), np.full(n, -np.inf)
    for block, columns, limits, ranges in found.blocks(entry.queries, SCORED_BLOCK):
        members, bounds = pairs_of(columns, found.structure.points, limits, *ranges[:4], own[block])
        heard, owner = places[members], np.repeat(block, np.diff(bounds))
        # The score sees each pair as one query and one source, so there is no second definition of it here.
        logs = score(xp, entry.queries[owner][:, None, :], entry.sources[heard][:, None, :])[:, 0, 0]
        logs = logs + entry.logs[heard]
        positive = logs > -np.inf
        logs, owner, heard = logs[positive], owner[positive], heard[positive]
        if logs.size == 0:
            continue
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        shift, counts = np.maximum.reduceat(logs, starts), np.diff(starts, append=logs.size)
        exponentials = np.exp(logs - np.repeat(shift, counts))
        total = np.add.reduceat(exponentials, starts)
        sums = np.add.reduceat(exponentials[:, None] * entry.values[heard], starts, axis=0)
        mean[owner[starts]] = sums / total[:, None]
        log_partition[owner[starts]] = np.log(total) + shift
    return mean, log_partition


def _places(own: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Where the own sources went when sources were reordered (or cut down) by ``order``; -1 where they are gone."""
    place = np.full(size + 1, -1)
    place[order] = np.arange(order.size)
    return place[own]  # own = -1 reads the last entry, which stays -1
