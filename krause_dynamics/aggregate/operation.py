"""The one operation of the package: checks its arguments, picks a form, returns mean and log-partition."""

from __future__ import annotations

from typing import Any

from krause_dynamics._array import Array
from krause_dynamics.aggregate.border import check_coefficients, check_finite, check_parameters
from krause_dynamics.aggregate.registry import FORMS, bound, choose, refusal
from krause_dynamics.interaction import Aggregate, Interaction, Request, reference
from krause_dynamics.interaction.rules import check_rule


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
        impl: ``"auto"``, or the name of a form (`supported` lists them); an explicit name never falls back.

    Returns:
        `Aggregate(mean, log_partition)`; a row that admits nobody has mean 0 and log-partition -inf.

    Raises:
        TypeError: Mixed array libraries, dtypes or devices.
        ValueError: Shapes that do not fit, or NaN among particles that have mass.
        UnsupportedImplementation: ``impl`` cannot compute this; the message says why.

    Examples:
        >>> import numpy as np, krause_dynamics as kd
        >>> x = np.array([[0.0], [1.0], [5.0]])
        >>> kd.aggregate(kd.bounded_confidence(radius=1.0), x).mean[:, 0].tolist()
        [0.5, 0.5, 5.0]
    """
    check_rule(interaction)
    request = Request.of(
        queries, sources, values, log_mass=log_mass, query_index=query_index, source_index=source_index
    )
    check_finite(request)
    check_coefficients(interaction, request)
    return bound(interaction, request, choose(interaction, request, impl))(request)


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
    check_rule(interaction)
    request = Request.of(queries, sources, **rest)
    check_finite(request)
    check_parameters(interaction, request)
    check_coefficients(interaction, request)
    return reference.weights(interaction, request)


def supported(interaction: Interaction, queries: Array, *arrays: Array | None, **rest: Any) -> dict[str, str | None]:
    """For every form ``None`` if it computes this, else the reason why not.

    Args:
        interaction: The rule.
        queries: (..., n, d) positions.
        arrays: Sources and values, as in `aggregate`.
        rest: Keywords of `aggregate`.
    """
    check_rule(interaction)
    request = Request.of(queries, *arrays, **rest)
    return {name: refusal(name, interaction, request) for name in FORMS}
