"""Windowed top-k attention on any torch device in O(N W d) time and O(N W) memory, forward and backward.

On the CPU compiled loops visit exactly the admitted pairs, row by row or around matrix products of blocks (`cpu`);
elsewhere blocks of queries meet the slab of keys that they reach in torch operations (`by_tiles`). All compute in
float32 (float64 for float64 inputs) whatever the inputs' dtype.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from krause_dynamics.forms.attention import by_tiles
from krause_dynamics.forms.attention.call import Call, Gradients
from krause_dynamics.forms.attention.cpu import by_blocks, by_rows
from krause_dynamics.forms.attention.cpu.chunks import NotFinite


def forward(call: Call, *, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, h, n, d_v), log-partition (b, h, n) and packed selection (b h, bytes; no bytes when not saved)."""
    if call.q.device.type == "cpu":
        if by_blocks.pays(call) and not (call.reach.top_k and by_blocks.has_equal_keys(call.k)):
            with suppress(NotFinite):
                return by_blocks.forward(call, save)
        return by_rows.forward(call, save)
    out, log_partition = by_tiles.forward(call)
    return out, log_partition, torch.empty(0, dtype=torch.uint8, device=call.q.device)


def backward(call: Call, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """All gradients, on the same selection as the forward pass whatever the rounding."""
    if call.q.device.type == "cpu":
        if by_blocks.pays(call):
            with suppress(NotFinite):
                return by_blocks.backward(call, log_partition, selection, grad_out, grad_log)
        return by_rows.backward(call, log_partition, selection, grad_out, grad_log)
    return by_tiles.backward(call, grad_out, grad_log)
