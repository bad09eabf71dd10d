"""Gradients of many particles without all pairs: blocks of rows, forgotten after the forward pass, computed again."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request, reference

CPU_PAIRS, DEVICE_PAIRS = 1 << 20, 1 << 26  # held at once, with the few copies that the definition makes
WORTH = 1 << 21  # pairs in all from which memory matters more than a second forward pass


def supports(interaction: Interaction, request: Request) -> str | None:
    """Torch tensors; every rule, except parameters of one value per query, which would have to be cut with the rows."""
    if not isinstance(request.queries, Tensor):
        return "it takes torch tensors"
    if interaction.varies_by_query(request.queries.shape[-2]):
        return "a parameter has one value per query; the reference handles that"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """Where gradients are recorded and all pairs would be many."""
    arguments = (request.queries, request.sources, request.values, request.log_mass, *interaction.score.parameters)
    recorded = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments)
    return recorded and request.queries.shape[-2] * request.sources.shape[-2] >= WORTH


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate` by blocks of rows; memory O(block + n d) in both passes."""
    n, size = request.queries.shape[-2], _block_rows(request)

    def rows(start: int) -> Aggregate:
        return reference.aggregate(interaction, request.rows(start, min(start + size, n)))

    parts = [checkpoint(rows, start, use_reentrant=False, preserve_rng_state=False) for start in range(0, n, size)]
    means, logs = zip(*parts, strict=True)
    return Aggregate(torch.cat(means, -2), torch.cat(logs, -1))


def _block_rows(request: Request) -> int:
    runs = max(1, request.queries[..., 0, 0].numel())
    pairs = CPU_PAIRS if request.queries.device.type == "cpu" else DEVICE_PAIRS
    return max(1, pairs // (request.sources.shape[-2] * runs))
