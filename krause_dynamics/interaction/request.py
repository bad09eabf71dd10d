"""The arguments of `aggregate`, checked once at the border, and its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from krause_dynamics._array import Array, is_torch, namespace


class Aggregate(NamedTuple):
    """Result of `aggregate`.

    Attributes:
        mean: A, (*batch, n, d_v); 0 in a row that admits nobody.
        log_partition: log Z, (*batch, n); -inf in a row that admits nobody.
    """

    mean: Array
    log_partition: Array


@dataclass(frozen=True)
class Request:
    """Arrays that meet an interaction. Build it with `Request.of`, which checks; leading axes broadcast.

    Attributes:
        xp: Array namespace of all of them.
        queries: (*batch, n, d).
        sources: (*batch, m, d).
        values: (*batch, m, d_v).
        log_mass: (*batch, m) or ``None`` for unit masses; -inf takes a source out.
        query_index: (n,) or (*batch, n) integers: where index rules see the queries.
        source_index: (m,) or (*batch, m) integers, likewise.
        positions_are_ranks: True where both indices are the default ``0, 1, ...``.
    """

    xp: Any
    queries: Array
    sources: Array
    values: Array
    log_mass: Array | None
    query_index: Array
    source_index: Array
    positions_are_ranks: bool = True

    @classmethod
    def of(
        cls,
        queries: Array,
        sources: Array | None = None,
        values: Array | None = None,
        *,
        log_mass: Array | None = None,
        query_index: Array | None = None,
        source_index: Array | None = None,
    ) -> Request:
        """Fill the defaults and check shapes, library, dtype and device.

        Raises:
            TypeError: Mixed libraries, dtypes or devices.
            ValueError: Shapes that do not fit.
        """
        sources = queries if sources is None else sources
        values = sources if values is None else values
        xp = namespace(queries=queries, sources=sources, values=values, log_mass=log_mass)
        _check_shapes(queries, sources, values, log_mass)
        default = query_index is None and source_index is None
        query_index = _index(xp, "query_index", query_index, queries)
        source_index = _index(xp, "source_index", source_index, sources)
        return cls(xp, queries, sources, values, log_mass, query_index, source_index, default)

    def meeting(self, queries: Array, sources: Array, values: Array, log_mass: Array | None) -> Request:
        """Fresh arrays of the same shapes and kind, unchecked: for loops."""
        return Request(
            self.xp,
            queries,
            sources,
            values,
            log_mass,
            self.query_index,
            self.source_index,
            self.positions_are_ranks,
        )

    def rows(self, start: int, stop: int) -> Request:
        """The same sources met by queries ``start:stop`` only, at their own indices."""
        return replace(
            self,
            queries=self.queries[..., start:stop, :],
            query_index=self.query_index[..., start:stop],
            positions_are_ranks=False,
        )


def _check_shapes(queries: Array, sources: Array, values: Array, log_mass: Array | None) -> None:
    for name, x in (("queries", queries), ("sources", sources), ("values", values)):
        if x.ndim < 2:
            raise ValueError(f"{name} must have shape (..., n, d), got {tuple(x.shape)}; one-dimensional: x[:, None]")
        if x.shape[-1] == 0 or x.shape[-2] == 0:
            raise ValueError(f"{name} must hold at least one particle of at least one dimension, got {tuple(x.shape)}")
    if queries.shape[-1] != sources.shape[-1]:
        raise ValueError(
            f"queries and sources must have one dimension d, got {tuple(queries.shape)} and {tuple(sources.shape)}"
        )
    if sources.shape[-2] != values.shape[-2]:
        raise ValueError(f"values must have one row per source, got {tuple(values.shape)} for {tuple(sources.shape)}")
    if log_mass is not None and log_mass.shape[-1] != sources.shape[-2]:
        raise ValueError(
            f"log_mass must have shape (..., m) with m = {sources.shape[-2]} sources, got {tuple(log_mass.shape)}"
        )


def _index(xp: Any, name: str, index: Array | None, points: Array) -> Array:
    if index is None:
        if is_torch(points):
            return xp.arange(points.shape[-2], device=points.device)
        return xp.arange(points.shape[-2])
    if index.shape[-1] != points.shape[-2]:
        raise ValueError(f"{name} must have one entry per row, {points.shape[-2]}, got shape {tuple(index.shape)}")
    return index
