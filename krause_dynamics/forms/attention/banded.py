"""Windowed top-k attention on any torch device in O(N W d) time and O(N W) memory, forward and backward.

On the CPU compiled loops visit exactly the admitted pairs, row by row or around matrix products of blocks (`cpu`);
elsewhere blocks of queries meet the slab of keys that they reach in torch operations (`by_tiles`). All compute in
float32 (float64 for float64 inputs) whatever the inputs' dtype.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from krause_dynamics.forms.attention import by_tiles
from krause_dynamics.forms.attention.call import Call, Gradients, Options, selection_bytes
from krause_dynamics.forms.attention.cpu import by_blocks, by_rows
from krause_dynamics.forms.attention.lowering import Lowered, flatten, leading_shape, lower
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request

__all__ = ["Call", "Gradients", "Options", "aggregate", "backward", "forward", "pays", "selection_bytes", "supports"]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def supports_tensors(q: Tensor, lowered: Lowered) -> str | None:
    """``None`` if banded can compute a lowered call, else the reason."""
    if q.dtype not in DTYPES:
        return f"dtype {q.dtype} is not one of float64, float32, bfloat16, float16"
    return None


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None`` if banded computes this interaction on these arrays, else the reason."""
    lowered = lower(interaction, request)
    return lowered if isinstance(lowered, str) else supports_tensors(request.queries, lowered)


def pays(interaction: Interaction, request: Request) -> bool:
    """Whether banded is expected to beat the dense reference: torch arrays, and a rule that leaves most pairs out."""
    lowered = lower(interaction, request)
    m = request.sources.shape[-2]
    return not isinstance(lowered, str) and m >= 64 and 2 * lowered.rule.row_length(m) <= m


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """The one operation for torch arrays, through the operator with all its gradients."""
    from krause_dynamics.forms.attention import operators

    lowered = lower(interaction, request)
    if isinstance(lowered, str):
        raise ValueError(f"banded cannot compute this interaction: {lowered}")
    lead = leading_shape(request)
    q, k, v = (flatten(x, lead) for x in (request.queries, request.sources, request.values))
    mean, log_partition = operators.banded(q, k, v, lowered)
    n = request.queries.shape[-2]
    return Aggregate(mean.reshape(*lead, n, mean.shape[-1]), log_partition.reshape(*lead, n))


def forward(call: Call, options: Options, *, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, h, n, d_v), log-partition (b, h, n) and packed selection (b h, bytes; no bytes when not saved)."""
    if call.q.device.type == "cpu":
        engine = by_blocks if by_blocks.pays(call, options) else by_rows
        return engine.forward(call, options, save)
    out, log_partition = by_tiles.forward(call, options)
    return out, log_partition, torch.empty(0, dtype=torch.uint8, device=call.q.device)


def backward(
    call: Call, options: Options, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor
) -> Gradients:
    """All gradients, on the same selection as the forward pass whatever the rounding."""
    if call.q.device.type == "cpu":
        blocks = by_blocks.pays(call, options) and by_blocks.finite(grad_out)
        engine = by_blocks if blocks else by_rows
        return engine.backward(call, options, log_partition, selection, grad_out, grad_log)
    return by_tiles.backward(call, options, grad_out, grad_log)
