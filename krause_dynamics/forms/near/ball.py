"""The ball of confidence, and who a query is itself: what the forms beside this one share, without compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics.interaction import Interaction, Others, Request, Within


class Ball(NamedTuple):
    """Radii of the queries, (n,) or (1,), and what `Within` compares with: the distance in 1-D, its square in more."""

    radii: np.ndarray
    limits: np.ndarray

    @classmethod
    def of(cls, within: Within, radii: np.ndarray, dimension: int) -> Ball:
        """An open ball is the closed one of the float below; a square that overflows admits everybody, as it should."""
        with np.errstate(over="ignore"):
            limits = radii if dimension == 1 else radii**2
        return cls(np.ascontiguousarray(radii), limits if within.closed else np.nextafter(limits, -np.inf))


def effective_radius(within: Within) -> np.ndarray:
    """The closed radius that admits what ``within`` admits: an open ball is the closed ball of the float below."""
    radius = np.asarray(within.radius, dtype=np.float64)
    return radius if within.closed else np.nextafter(radius, -np.inf)


def unsupported(interaction: Interaction, request: Request) -> str | None:
    """What the compiled forms refuse: all but float64 numpy and one `Within`, joined with `Others` at most."""
    if type(request.queries) is not np.ndarray or request.queries.dtype != np.float64:
        return "it computes numpy float64 arrays only"
    kinds = [type(part) for part in interaction.parts]
    if kinds.count(Within) != 1 or any(kind not in (Within, Others) for kind in kinds):
        return "it needs exactly one Within, joined with Others at most"
    if interaction.pair_bias is not None:
        return "it has no pair_bias"
    if Others in kinds and not own_sources_are_plain(request):
        return "with Others it needs query and source indices without batch axes, and no source index twice"
    return None if positions_are_finite(request) else "it needs finite positions"


def is_worth(request: Request, in_a_loop: int, in_one_call: int) -> bool:
    """Whether there are pairs enough: of each run where many calls follow, of all runs together for a single call.

    Runs are met one by one, so that each must be large enough by itself; but a single call must win back what loading
    compiled code costs.
    """
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    if request.repeated:
        return bool(n * m >= in_a_loop)
    return bool(np.prod(request.queries.shape[:-1]) * m >= in_one_call)


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
