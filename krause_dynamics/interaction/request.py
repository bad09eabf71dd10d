"""The arguments of `aggregate`, checked once at the border, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import Array, as_one_kind, is_floating, is_torch, namespace


class Aggregate(NamedTuple):
    """Result of `aggregate`.

    Attributes:
        mean: A, (*batch, n, d_v); 0 in a row that admits nobody.
        log_partition: log Z, (*batch, n); -inf in a row that admits nobody.
    """

    mean: Array
    log_partition: Array

    @staticmethod
    def joined(parts: Sequence[Aggregate]) -> Aggregate:
        """The result over the union of disjoint sources, from the results over each part of them."""
        if len(parts) == 1:
            return parts[0]
        xp = namespace(mean=parts[0].mean)
        logs = xp.stack([part.log_partition for part in parts])
        top = xp.max(logs, axis=0)
        shares = xp.exp(logs - xp.where(top > -float("inf"), top, xp.zeros_like(top)))
        total = xp.sum(shares, axis=0)
        safe = xp.where(total > 0, total, xp.ones_like(total))
        mean = sum(share[..., None] * part.mean for share, part in zip(shares, parts, strict=True)) / safe[..., None]
        return Aggregate(mean, xp.where(total > 0, xp.log(safe) + top, top))


@dataclass(frozen=True)
class Request:
    """Arrays that meet an interaction; leading axes broadcast. `Request.of` checks them, the constructor does not.

    Attributes:
        xp: Array namespace of all of them.
        queries: (*batch, n, d).
        sources: (*batch, m, d).
        values: (*batch, m, d_v).
        log_mass: (*batch, m) or ``None`` for unit masses; -inf takes a source out.
        query_places: ``query_index`` as given, or ``None`` for 0, 1, ...
        source_places: ``source_index`` as given, likewise.
        positions_are_ranks: Whether a pair bias is read by place in the arrays: true where both indices are the
            default.
        repeated: Whether many requests like this one follow (a plan, a loop), so that a form which takes time to load
            pays sooner.
    """

    xp: Any
    queries: Array
    sources: Array
    values: Array
    log_mass: Array | None = None
    query_places: Array | None = None
    source_places: Array | None = None
    positions_are_ranks: bool = True
    repeated: bool = False

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
        queries, sources, values, log_mass = as_floats(queries, sources, values, log_mass)
        xp = namespace(queries=queries, sources=sources, values=values, log_mass=log_mass)
        default = query_index is None and source_index is None
        request = cls(xp, queries, sources, values, log_mass, query_index, source_index, default).checked()
        if default:
            return request
        return replace(request, query_places=_whole(query_index), source_places=_whole(source_index))

    def checked(self) -> Request:
        """Itself.

        Raises:
            ValueError: Shapes that do not fit.
        """
        _check_shapes(self.queries, self.sources, self.values, self.log_mass)
        _check_index("query_index", self.query_places, self.queries)
        _check_index("source_index", self.source_places, self.sources)
        return self

    @cached_property
    def query_index(self) -> Array:
        """Where index rules see the queries, (n,) or (*batch, n) integers."""
        return _places(self.xp, self.queries) if self.query_places is None else self.query_places

    @cached_property
    def source_index(self) -> Array:
        """Where index rules see the sources, (m,) or (*batch, m) integers."""
        return _places(self.xp, self.sources) if self.source_places is None else self.source_places

    def rows(self, start: int, stop: int) -> Request:
        """The same sources met by queries ``start:stop`` only, at their own indices."""
        return replace(
            self,
            queries=self.queries[..., start:stop, :],
            query_places=self.query_index[..., start:stop],
            source_places=self.source_index,
            positions_are_ranks=False,
        )


def as_floats(
    queries: Array, sources: Array, values: Array, log_mass: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """The same as floating arrays of one kind; what is one array stays one, since forms look at that."""
    known = True
    for x in (queries, sources, values, log_mass):  # the common case without a call
        if x is None or (type(x) is np.ndarray and x.dtype.kind == "f" and x.dtype.isnative):
            continue
        known = known and is_floating(x)
    if known:
        return queries, sources, values, log_mass
    q, s, v, mass = as_one_kind(queries=queries, sources=sources, values=values, log_mass=log_mass)
    s = q if sources is queries else s
    return q, s, s if values is sources else v, mass


Prepared = Callable[[Request], Aggregate]  # what a form makes of a rule: all that depends on the rule alone is done


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
    if log_mass is not None and (log_mass.ndim == 0 or log_mass.shape[-1] != sources.shape[-2]):
        raise ValueError(
            f"log_mass must have shape (..., m) with m = {sources.shape[-2]} sources, got {tuple(log_mass.shape)}"
        )
    if queries.ndim > 2 or sources.ndim > 2 or values.ndim > 2 or (log_mass is not None and log_mass.ndim > 1):
        _check_batch(queries, sources, values, log_mass)


def _check_batch(queries: Array, sources: Array, values: Array, log_mass: Array | None) -> None:
    named = {"queries": queries.shape[:-2], "sources": sources.shape[:-2], "values": values.shape[:-2]}
    if log_mass is not None:
        named["log_mass"] = log_mass.shape[:-1]
    try:
        np.broadcast_shapes(*(tuple(shape) for shape in named.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in named.items())
        raise ValueError(f"leading axes must broadcast, got {shapes}; insert axes of length 1") from None


def _check_index(name: str, index: Array | None, points: Array) -> None:
    if index is None:
        return
    shape, kind = tuple(getattr(index, "shape", ())), getattr(index, "dtype", type(index).__name__)
    if "int" not in str(kind) and getattr(kind, "kind", "") not in ("i", "u"):
        raise TypeError(f"{name} must be an array of whole numbers, got {kind}; places are counted 0, 1, ...")
    if not shape or shape[-1] != points.shape[-2]:
        raise ValueError(f"{name} must have one entry per row, {points.shape[-2]}, got shape {shape}")


def _whole(index: Array | None) -> Array | None:
    """Places as 64-bit integers: differences of unsigned ones would wrap around."""
    if index is None:
        return None
    return index.long() if is_torch(index) else np.asarray(index, np.int64)


def _places(xp: Any, points: Array) -> Array:
    if is_torch(points):
        return xp.arange(points.shape[-2], device=points.device)
    return xp.arange(points.shape[-2])
