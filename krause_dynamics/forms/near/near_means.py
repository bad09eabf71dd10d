"""Means over near sources: the compiled half of `neighbours`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from krause_dynamics.forms.near import fixed_point, near_kernels, tree
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.forms.near.search import search
from krause_dynamics.interaction.scores import Flat, Score, bounded

FLAT_BLOCK, SCORED_BLOCK = 1 << 16, 1 << 10  # queries at once: bounds the memory for ranges, and for lists of pairs

sums_of: Any = near_kernels.sums  # numba's dispatchers have no typed call
pairs_of: Any = near_kernels.pairs


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


def means(score: Score, xp: Any, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
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
        logs = bounded(score, score(xp, entry.queries[owner][:, None, :], entry.sources[heard][:, None, :])[:, 0, 0])
        logs = logs + entry.logs[heard]
        positive = logs > -np.inf
        logs, owner, heard = logs[positive], owner[positive], heard[positive]
        if logs.size == 0:
            continue
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        shift, counts = np.maximum.reduceat(logs, starts), np.diff(starts, append=logs.size)
        exponentials = np.exp(logs - np.repeat(shift, counts))
        total = np.add.reduceat(exponentials, starts)
        sums = np.add.reduceat(exponentials[:, None] * entry.values[heard], starts)
        mean[owner[starts]] = sums / total[:, None]
        log_partition[owner[starts]] = np.log(total) + shift
    return mean, log_partition


def _places(own: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Where the own sources went when sources were reordered (or cut down) by ``order``; -1 where they are gone."""
    place = np.full(size + 1, -1)
    place[order] = np.arange(order.size)
    return place[own]  # own = -1 reads the last entry, which stays -1
