"""Means over the links of a network: O(links), never all pairs, any score; flat means of one state are compiled.

The pairs are the links; the ball decides on the same differences as the reference, and the score itself judges each
pair. Sources stand in the order of the nodes; queries may be any of them, so that one listener at a time meets its own
links only. Torch tensors pass gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._array import Array, device, is_torch, like
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.interaction import Aggregate, Graph, Interaction, Others, Prepared, Request, Within
from krause_dynamics.interaction.scores import bounded

WORTH, WORTH_FLAT = 1 << 13, 1 << 8  # pairs from which links are worth it
NEVER = -float("inf")


def supports(interaction: Interaction, request: Request) -> str | None:
    """One `Graph`, joined with one `Within` and `Others` at most; one state, sources in the order of the nodes."""
    kinds = sorted(type(part).__name__ for part in interaction.parts)
    if kinds.count("Graph") != 1 or kinds.count("Within") > 1 or not set(kinds) <= {"Graph", "Within", "Others"}:
        return "it needs exactly one Graph, joined with one Within and Others at most"
    if interaction.pair_bias is not None or interaction.score_arrays:
        return "it takes one number for each parameter of the score, and no pair bias"
    if request.queries.dtype.itemsize < 4 or any(
        x.ndim > 2 for x in (request.queries, request.sources, request.values)
    ):
        return "it takes one state of float32 or float64, without leading axes"
    if any(np.ndim(part.radius) > 1 for part in interaction.find(Within)) or getattr(request.log_mass, "ndim", 0) > 1:
        return "it takes masses and radii without leading axes"
    if request.query_index.ndim > 1 or not _in_order(request):
        return "its sources must stand in the order of the nodes"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """Where most pairs are not linked: flat means in a loop from 16 particles, else from a hundred.

    In a loop flat means are compiled; a single call, which would have to load compiled code, sums in numpy. Measured by
    ``benchmarks/choice.py``.
    """
    pairs = request.queries.shape[-2] * request.sources.shape[-2]
    if pairs < (WORTH_FLAT if interaction.score.is_flat and request.repeated else WORTH):
        return False
    return any(2 * len(graph.adjacency.heard) <= pairs for graph in interaction.find(Graph))


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """The links of these listeners, found once."""
    (graph,) = interaction.find(Graph)
    graph.check_places(_host(request.query_index), _host(request.source_index))
    flat = interaction.score.is_flat and not is_torch(request.queries) and request.queries.dtype == np.float64
    if flat and request.repeated:
        return _Flat(interaction, request)
    return _Links(interaction, request)


class _Links:
    """Any score: pairs are listed, weighed, and summed by listener."""

    def __init__(self, interaction: Interaction, request: Request) -> None:
        self.interaction = interaction
        self.listeners = _host(request.query_index)
        owner, heard = _links(interaction, self.listeners, request.sources.shape[-2])
        self.owner, self.heard = (request.xp.asarray(x, device=device(request.queries)) for x in (owner, heard))

    def __call__(self, request: Request) -> Aggregate:
        """Mean and log-partition over the links in reach."""
        if request.query_places is not None and not np.array_equal(_host(request.query_places), self.listeners):
            return _Links(self.interaction, request)(request)  # another listener than the one prepared for
        xp, n = request.xp, request.queries.shape[-2]
        owner, heard = self.owner, self.heard
        admitted = self._admitted(request)
        if admitted is not None:
            owner, heard = owner[admitted], heard[admitted]
        x, y = request.queries[owner], request.sources[heard]
        score = self.interaction.score
        logs = bounded(score, score(xp, x[:, None, :], y[:, None, :])[:, 0, 0])
        if request.log_mass is not None:
            logs = logs + request.log_mass[heard]
        shift = _largest(logs, owner, n)
        some = shift > NEVER
        shift = xp.where(some, shift, xp.zeros_like(shift))
        weights = xp.exp(logs - shift[owner])
        total = _summed(weights, owner, n)
        safe = xp.where(some, total, xp.ones_like(total))
        mean = _summed(weights[:, None] * request.values[heard], owner, n) / safe[:, None]
        return Aggregate(mean, xp.where(some, xp.log(safe) + shift, xp.full_like(shift, NEVER)))

    def _admitted(self, request: Request) -> Array | None:
        """Which links are in reach and lead to somebody who has mass, or ``None`` for all."""
        admitted = None
        for within in self.interaction.find(Within):
            admitted = _near(within, request, self.owner, self.heard)
        if request.log_mass is not None:
            there = (request.log_mass > NEVER)[self.heard]
            admitted = there if admitted is None else admitted & there
        return admitted


class _Flat:
    """Flat means of float64 positions, compiled; what else is asked goes through `_Links`."""

    def __init__(self, interaction: Interaction, request: Request) -> None:
        from krause_dynamics.forms.near.network_kernels import network_means

        self.links, self.means = _Links(interaction, request), network_means
        counts = np.bincount(self.links.owner, minlength=request.queries.shape[-2])
        self.bounds = np.concatenate([[0], np.cumsum(counts)])
        self.limits = _limits(interaction, *request.queries.shape)

    def __call__(self, request: Request) -> Aggregate:
        """Means relative to each listener, which keeps the digits of near opinions."""
        x, log_mass = request.queries, request.log_mass
        alone = x is request.sources and request.values is x and request.positions_are_ranks
        if not alone or (log_mass is not None and not np.isfinite(log_mass).all()):
            return self.links(request)
        mean, total = np.empty(x.shape), np.empty(len(x))
        mass = np.ones(len(x)) if log_mass is None else np.exp(log_mass)
        self.means(np.ascontiguousarray(x), self.limits, mass, self.bounds, self.links.heard, mean, total)
        with np.errstate(divide="ignore"):
            return Aggregate(mean, np.log(total))


def _links(interaction: Interaction, listeners: np.ndarray, sources: int) -> tuple[np.ndarray, np.ndarray]:
    """Who hears (place among the listeners, increasing) and who is heard along each link."""
    owner, heard = interaction.find(Graph)[0].adjacency.heard_by(listeners)
    kept = heard < sources
    if interaction.find(Others):
        kept &= listeners[owner] != heard
    return owner[kept], heard[kept]


def _near(within: Within, request: Request, owner: Array, heard: Array) -> Array:
    """Whether each link is in reach, on the differences that the reference looks at."""
    radius = like(within.radius, request.queries)
    radius = radius[owner] if radius.ndim else radius
    if request.queries.shape[-1] == 1:
        distance = abs(request.queries[owner, 0] - request.sources[heard, 0])
        return distance <= radius if within.closed else distance < radius
    squared: Any = 0
    for axis in range(request.queries.shape[-1]):
        difference = request.queries[owner, axis] - request.sources[heard, axis]
        squared = squared + difference * difference
    return squared <= radius**2 if within.closed else squared < radius**2


def _limits(interaction: Interaction, n: int, d: int) -> np.ndarray:
    """What each listener compares with: the radius on a line, its square in more dimensions; infinite without one."""
    for within in interaction.find(Within):
        radii = np.broadcast_to(np.asarray(within.radius, np.float64), (n,))
        return np.ascontiguousarray(Ball.of(within, radii, d).limits)
    return np.full(n, np.inf)


def _largest(logs: Array, owner: Array, n: int) -> Array:
    """Largest of each listener's logs, (n,); -inf where there are none."""
    if is_torch(logs):
        return logs.new_full((n,), NEVER).scatter_reduce(0, owner, logs.detach(), "amax")
    largest = np.full(n, NEVER, logs.dtype)
    if logs.size:
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        largest[owner[starts]] = np.maximum.reduceat(logs, starts)
    return largest


def _summed(terms: Array, owner: Array, n: int) -> Array:
    """Sums of each listener's terms (links, ...), (n, ...)."""
    if is_torch(terms):
        return terms.new_zeros((n, *terms.shape[1:])).index_add(0, owner, terms)
    sums = np.zeros((n, *terms.shape[1:]), terms.dtype)
    if terms.size:
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        sums[owner[starts]] = np.add.reduceat(terms, starts, axis=0)
    return sums


def _in_order(request: Request) -> bool:
    index = request.source_places
    return index is None or (index.ndim == 1 and np.array_equal(_host(index), np.arange(len(index))))


def _host(index: Array) -> np.ndarray:
    return np.asarray(index.cpu() if is_torch(index) else index)
