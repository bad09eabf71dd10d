"""Means over windows of sorted positions, from compensated prefix sums: the compiled half of `sorted1d`."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics.forms.near import line_kernels

window_means: Any = line_kernels.window_means  # numba's dispatchers have no typed call


def means(
    queries: np.ndarray, sources: np.ndarray, values: np.ndarray, logs: np.ndarray, radius: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One batch entry; sources without mass are left out, masses are taken relative to the largest."""
    present = np.flatnonzero(logs > -np.inf)
    if present.size == 0:
        return np.zeros((queries.size, values.shape[1])), np.full(queries.size, -np.inf)
    order = present[np.argsort(sources[present])]
    along = order if queries is sources and order.size == sources.size else np.argsort(queries)
    rank = np.full(sources.size + 1, -1)
    rank[order] = np.arange(order.size)
    own = rank[own[along]]  # own = -1 reads the last entry, which stays -1
    largest = float(logs[order].max())
    mass = np.exp(logs[order] - largest)
    weighted = bool((mass != 1.0).any())
    first, last = np.empty(along.size, np.int64), np.empty(along.size, np.int64)
    if radius.size == 1:
        line_kernels.walk(queries[along], float(radius[0]), sources[order], first, last)
    else:
        line_kernels.search(queries[along], radius[along], sources[order], first, last)
    mean, partition = np.empty((queries.size, values.shape[1])), np.empty(queries.size)
    buffers: Any = [np.empty(order.size + 1) for _ in range(4)]
    column, total = np.empty(queries.size), np.empty(queries.size)
    for k in range(values.shape[1]):
        value = values[order, k]
        line_kernels.prefixes(value, mass, order.size, weighted, *buffers)
        window_means(first, last, own, mass, value, weighted, *buffers, column, total)
        mean[along, k] = column
    partition[along] = total
    with np.errstate(divide="ignore"):
        return mean, np.log(partition) + largest
