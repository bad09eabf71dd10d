"""Bounded confidence on a line: sources sorted once, each neighbourhood a window, each mean a difference of prefix
sums.

O((n + m) log m) for any values, masses and radii; the mean agrees with exact summation to about one rounding. A run
of many steps keeps its sorted state in `krause_dynamics.forms.near.line.SortedLine`, where a step costs O(n).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from krause_dynamics._array import is_torch
from krause_dynamics.forms.near import line_kernels
from krause_dynamics.interaction.neighbourhoods import Others, Within
from krause_dynamics.interaction.request import Aggregate, Prepared, Request
from krause_dynamics.interaction.rules import Interaction
from krause_dynamics.interaction.steps import ManySteps, Steps

window_means: Any = line_kernels.window_means  # numba's dispatchers have no typed call


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None``, or the reason: float64 numpy opinions in one dimension, `Flat`, one `Within`, `Others` at most beside
    it.
    """
    if is_torch(request.queries) or request.queries.dtype != np.float64:
        return "sorted1d computes numpy float64 arrays only"
    if request.queries.shape[-1] != 1:
        return f"sorted1d needs one dimension, got {request.queries.shape[-1]}"
    if not interaction.score.is_flat:
        return f"sorted1d needs the Flat score, got {type(interaction.score).__name__}"
    kinds = [type(part) for part in interaction.parts]
    if kinds.count(Within) != 1 or any(kind not in (Within, Others) for kind in kinds):
        return "sorted1d needs exactly one Within, joined with Others at most"
    if interaction.pair_bias is not None:
        return "sorted1d has no pair_bias"
    if Others in kinds and not own_sources_are_plain(request):
        return "sorted1d with Others needs query and source indices without batch axes, and no source index twice"
    return None if positions_are_finite(request) else "sorted1d needs finite positions"


def pays(interaction: Interaction, request: Request) -> bool:
    """Where all pairs are so many that loading compiled code is worth it."""
    return bool(interaction.find(Within)) and request.queries.shape[-2] * request.sources.shape[-2] > 1_000_000


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """Mean and log Z as `krause_dynamics.interaction.reference.aggregate` defines them; see `supports`."""
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    log_mass = None if request.log_mass is None else request.log_mass[..., None]
    stacks = [request.queries, request.sources, request.values] + ([] if log_mass is None else [log_mass])
    (within,) = interaction.find(Within)
    radius = effective_radius(within)
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in stacks), radius.shape[:-1])
    mean = np.empty((*batch, n, request.values.shape[-1]))
    log_partition = np.empty((*batch, n))
    radius = np.broadcast_to(radius, (*batch, n if radius.ndim and radius.shape[-1] > 1 else 1))
    arrays = [np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in stacks]
    own = own_sources(request) if interaction.find(Others) else np.full(n, -1)
    for index in np.ndindex(*batch):
        queries, sources, values = (x[index] for x in arrays[:3])
        logs = np.zeros(m) if log_mass is None else arrays[3][index][:, 0]
        listeners = queries[:, 0]
        spoken = listeners if request.queries is request.sources else sources[:, 0]
        mean[index], log_partition[index] = _aggregate(listeners, spoken, values, logs, radius[index], own)
    return Aggregate(mean, log_partition)


def many_steps(interaction: Interaction, steps: Steps) -> ManySteps | None:
    """``(x, count) -> x`` for Euler steps of length 1 towards the mean, the classical model; else ``None``."""
    classical = steps.scheme.method == "euler" and steps.dt == 1.0 and steps.relative and not steps.sphere
    (within,) = interaction.find(Within)
    padded = steps.log_mass is not None and bool((steps.log_mass == -np.inf).any())
    alone = len(interaction.parts) == 1 and np.ndim(within.radius) == 0
    if not (classical and alone and interaction.normalised) or padded:
        return None
    from krause_dynamics.forms.near.line import SortedLine

    radius, logs = float(effective_radius(within)), steps.log_mass
    masses = 1.0 if logs is None else np.exp(logs - logs.max(axis=-1, keepdims=True))

    def advance(x: np.ndarray, count: int) -> np.ndarray:
        result, weights = np.empty_like(x), np.broadcast_to(masses, x.shape[:-1])
        for index in np.ndindex(*x.shape[:-2]):
            line = SortedLine(x[index][:, 0], radius, 0.0, masses=weights[index])
            line.advance(count)
            result[index] = line.positions[:, None]
        return result

    return advance


def effective_radius(within: Within) -> np.ndarray:
    """The closed radius that admits what ``within`` admits: an open ball is the closed ball of the float below."""
    radius = np.asarray(within.radius, dtype=np.float64)
    return radius if within.closed else np.nextafter(radius, -np.inf)


def own_sources(request: Request) -> np.ndarray:
    """Which source is the query's own, -1 where none is: (n,)."""
    order = np.argsort(request.source_index, kind="stable")
    place = np.searchsorted(request.source_index[order], request.query_index)
    found = order[np.minimum(place, order.size - 1)]
    return np.where(request.source_index[found] == request.query_index, found, -1)


def own_sources_are_plain(request: Request) -> bool:
    """Whether each query has at most one source of its own, the same in every batch entry."""
    indices = request.source_index
    return request.query_index.ndim == 1 and indices.ndim == 1 and np.unique(indices).size == indices.size


def positions_are_finite(request: Request) -> bool:
    """Whether queries, and sources that have mass, hold neither NaN nor infinity."""
    sources = request.sources
    if request.log_mass is not None:
        sources = np.where((request.log_mass > -np.inf)[..., None], sources, 0.0)
    return bool(np.isfinite(request.queries).all() and np.isfinite(sources).all())


def _aggregate(
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
