"""The reference on blocks of rows: O(block x m) memory instead of O(n m), for any rule and both array libraries."""

from __future__ import annotations

from krause_dynamics.interaction import Aggregate, Interaction, Request, reference

BLOCK_PAIRS = 1 << 18  # pairs held at once: 2 MB in float64, so that a block stays in the cache between its passes


def supports(interaction: Interaction, request: Request) -> str | None:
    """Every rule, except parameters of one value per query, which would have to be cut along with the rows."""
    if _varies_by_query(interaction, request):
        return "a parameter has one value per query; the reference handles that"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """From the size at which all pairs no longer fit a cache."""
    return request.queries.shape[-2] * request.sources.shape[-2] > 4 * BLOCK_PAIRS


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate`, a block of queries at a time."""
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    block = max(1, BLOCK_PAIRS // m)
    parts = [reference.aggregate(interaction, request.rows(i, min(i + block, n))) for i in range(0, n, block)]
    means, logs = zip(*parts, strict=True)
    return Aggregate(request.xp.concat(means, axis=-2), request.xp.concat(logs, axis=-1))


def _varies_by_query(interaction: Interaction, request: Request) -> bool:
    n = request.queries.shape[-2]
    parameters = list(vars(interaction.score).values()) + [getattr(p, "radius", None) for p in interaction.parts]
    return any(getattr(p, "ndim", 0) > 0 and p.shape[-1] == n and n > 1 for p in parameters)
