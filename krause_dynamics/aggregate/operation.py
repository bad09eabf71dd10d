"""The one operation of the package: checks its arguments, picks an implementation, returns mean and log-partition."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from krause_dynamics._array import Array, all_finite, as_floating, is_torch
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Aggregate, Interaction, Request, reference

logger = logging.getLogger(__name__)

# Each module exposes supports(interaction, request) -> reason or None, aggregate(interaction, request), and, where
# "auto" may take it, pays(interaction, request) -> bool: whether it is expected to beat the reference.
MODULES = {
    "reference": "krause_dynamics.interaction.reference",
    "blocked": "krause_dynamics.forms.blocked",
    "compiled": "krause_dynamics.forms.attention.compiled",
    "sorted1d": "krause_dynamics.forms.near.sorted1d",
    "neighbours": "krause_dynamics.forms.near.neighbours",
    "cells": "krause_dynamics.forms.near.cell_lists",
    "sdpa": "krause_dynamics.forms.attention.sdpa",
    "banded": "krause_dynamics.forms.attention.banded",
    "recomputed": "krause_dynamics.forms.recomputed",
    "convolution": "krause_dynamics.forms.lattice.convolution",
}
TORCH_ONLY = ("cells", "sdpa", "banded", "recomputed")
# Asked in this order; the reference is what remains.
AUTO = ("sorted1d", "neighbours", "cells", "sdpa", "banded", "recomputed", "blocked")


@dataclass(frozen=True)
class Plan:
    """A choice made once, for use in a loop.

    Attributes:
        interaction: The rule.
        impl: Name of the implementation that runs.
        reason: Why this one, in words.
    """

    interaction: Interaction
    impl: str
    reason: str

    def __call__(
        self, queries: Array, sources: Array | None = None, values: Array | None = None, **rest: Any
    ) -> Aggregate:
        """`aggregate` with fresh arrays of the planned kind; arguments as there, without the search and its checks."""
        return implementation(self.impl).aggregate(self.interaction, Request.of(queries, sources, values, **rest))


def aggregate(
    interaction: Interaction,
    queries: Array,
    sources: Array | None = None,
    values: Array | None = None,
    *,
    log_mass: Array | None = None,
    query_index: Array | None = None,
    source_index: Array | None = None,
    impl: str = "auto",
) -> Aggregate:
    """Weighted mean of values under an interaction, and its log-partition.

    ``Z_i = sum_{j in N(i)} m_j exp s(x_i, y_j)``, ``A_i = (1/Z_i) sum_{j in N(i)} m_j exp s(x_i, y_j) v_j``.

    Args:
        interaction: Score, neighbourhood and normalisation.
        queries: Who listens, (*batch, n, d), numpy or torch.
        sources: Who is heard, (*batch, m, d); by default the queries.
        values: What is heard, (*batch, m, d_v); by default the sources.
        log_mass: log m_j, (*batch, m); by default unit masses; -inf takes a source out (padding).
        query_index: Where index rules (`Causal, Window, Grid, Graph, Others`) see the queries; default 0, 1, ...
        source_index: Likewise for the sources (one query meeting a cache gives both).
        impl: ``"auto"``, or a name from `MODULES`; an explicit name never falls back.

    Returns:
        `Aggregate(mean, log_partition)`; a row that admits nobody has mean 0 and log-partition -inf.

    Raises:
        TypeError: Mixed array libraries, dtypes or devices.
        ValueError: Shapes that do not fit, or NaN among particles that have mass.
        UnsupportedImplementation: ``impl`` cannot compute this; the message says why.

    Example:
        >>> import numpy as np, krause_dynamics as kd
        >>> x = np.array([[0.0], [1.0], [5.0]])
        >>> kd.aggregate(kd.bounded_confidence(radius=1.0), x).mean[:, 0].tolist()
        [0.5, 0.5, 5.0]
    """
    request = Request.of(
        queries, sources, values, log_mass=log_mass, query_index=query_index, source_index=source_index
    )
    _check_finite(request)
    name, _ = choose(interaction, request, impl)
    return implementation(name).aggregate(interaction, request)  # type: ignore[no-any-return]


def weights(interaction: Interaction, queries: Array, sources: Array | None = None, **rest: Any) -> Array:
    """The row-stochastic matrix a_ij = m_j exp s_ij / Z_i, dense, for analysis.

    Args:
        interaction: The rule.
        queries: (*batch, n, d).
        sources: (*batch, m, d); by default the queries.
        **rest: ``log_mass, query_index, source_index`` as in `aggregate`.

    Returns:
        (*batch, n, m); rows sum to 1, or are 0 where nobody is admitted.

    Raises:
        TypeError, ValueError: As `aggregate`.
    """
    request = Request.of(queries, sources, **rest)
    _check_finite(request)
    return reference.weights(interaction, request)


def plan(interaction: Interaction, queries: Array, *arrays: Array | None, impl: str = "auto", **rest: Any) -> Plan:
    """Choose the implementation once for arrays of this kind; arguments as in `aggregate`."""
    name, reason = choose(interaction, Request.of(queries, *arrays, **rest), impl)
    logger.debug("aggregate: %s (%s)", name, reason)
    return Plan(interaction, name, reason)


def supported(interaction: Interaction, queries: Array, *arrays: Array | None, **rest: Any) -> dict[str, str | None]:
    """For every implementation ``None`` if it computes this, else the reason why not; arguments as in `aggregate`."""
    request = Request.of(queries, *arrays, **rest)
    return {name: _refusal(name, interaction, request) for name in MODULES}


def choose(interaction: Interaction, request: Request, impl: str) -> tuple[str, str]:
    """Name of the implementation that computes this, and why; for callers that hold a `Request`."""
    _check_parameters(interaction, request)
    if impl != "auto":
        if impl not in MODULES:
            raise UnsupportedImplementation(f"impl must be 'auto' or one of {sorted(MODULES)}, got {impl!r}")
        reason = _refusal(impl, interaction, request)
        if reason is not None:
            raise UnsupportedImplementation(f"impl={impl!r} cannot compute this interaction: {reason}; use impl='auto'")
        return impl, "asked for"
    for name in AUTO:
        if _refusal(name, interaction, request, only_if_it_pays=True) is None:
            return name, "fastest known for this rule and size"
    return "reference", "small, or no faster form supports this rule"


def _refusal(name: str, interaction: Interaction, request: Request, *, only_if_it_pays: bool = False) -> str | None:
    """Why an implementation cannot (or, if asked, should not) compute this; ``None`` where it does."""
    if name in TORCH_ONLY and not is_torch(request.queries):
        return "it takes torch tensors"  # known without importing torch
    module = implementation(name)
    if only_if_it_pays and not module.pays(interaction, request):
        return "another form is faster"
    return module.supports(interaction, request)  # type: ignore[no-any-return]


def implementation(name: str) -> Any:
    """The module behind a name of `MODULES`."""
    return importlib.import_module(MODULES[name])


def _check_parameters(interaction: Interaction, request: Request) -> None:
    """beta, sigma and radius are one number, or one per listener, per head, per run."""
    shape = tuple(request.queries.shape[:-1])
    for part in (interaction.score, *interaction.parts):
        for name in ("beta", "sigma", "radius"):
            given = tuple(getattr(getattr(part, name, None), "shape", ()))
            # From the right, as arrays broadcast; one may have more leading axes than the other.
            if any(g not in (1, s) and (s != 1 or axis == 0) for axis, (g, s) in enumerate(_aligned(given, shape))):
                raise ValueError(f"{name} must be a number or broadcast against (*batch, n) = {shape}, got {given}")


def _aligned(given: tuple[int, ...], shape: tuple[int, ...]) -> zip[tuple[int, int]]:
    return zip(reversed(given), reversed(shape), strict=False)


def _check_finite(request: Request) -> None:
    """NaN would spread through every mean; padding (log-mass -inf) may hold anything."""
    if is_torch(request.queries) and request.queries.device.type != "cpu":
        return  # asking a GPU for the answer would stall it at every call
    distinct = {id(x): (n, x) for n, x in ((n, getattr(request, n)) for n in ("values", "sources", "queries"))}
    for name, x in distinct.values():
        padded = request.log_mass is not None and (name != "queries" or x is request.sources)
        if not all_finite(reference.present(request, x) if padded else x):
            raise ValueError(f"{name} must be finite, got NaN or infinity; set log_mass=-inf for padding")
    check_masses(request.log_mass)


def check_masses(log_mass: Array | None) -> None:
    """A single NaN or infinite mass would turn every mean that hears it into NaN.

    Raises:
        ValueError: If ``log_mass`` holds NaN or +infinity.
    """
    if log_mass is not None and not bool((log_mass < float("inf")).all()):
        raise ValueError("log_mass must hold numbers or -inf (padding), got NaN or +infinity; equal masses: None")


def as_points(name: str, x: Any) -> Array:
    """Positions as a floating (..., n, d) array; one dimension (n,) becomes (n, 1).

    Raises:
        ValueError: Empty, or not finite.
    """
    points = as_floating(name, x)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim < 2 or points.shape[-1] == 0 or points.shape[-2] == 0:
        raise ValueError(f"{name} must have shape (n,) or (..., n, d) with n, d >= 1, got {tuple(points.shape)}")
    return points
