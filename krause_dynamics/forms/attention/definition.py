"""The definition for calls, all pairs in memory; while compiling one step, whose operations the compiler traces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.lifting import lift
from krause_dynamics.forms.attention.packed import Packed
from krause_dynamics.forms.attention.softcap import SoftCapped
from krause_dynamics.interaction import reference


def attend(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n)."""
    mean, log_partition, _ = attend_capped(call, 0.0, weights=False)
    return mean, log_partition


def attend_capped(call: Call, cap: float, *, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Likewise of soft-capped scores (a cap of 0: none), and weights (b, h, n, m) where asked for."""
    if not torch.compiler.is_compiling():
        return _attend(call, cap, weights)
    mean, log_partition, found = _in_graph(*Packed.of(call), cap, weights)
    return mean, log_partition, found


def _attend(call: Call, cap: float, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
    interaction, request = lift(call)
    if cap:
        interaction = replace(interaction, score=SoftCapped(interaction.score, cap))
    mean, log_partition = reference.aggregate(interaction, request)
    return mean, log_partition, reference.weights(interaction, request) if weights else mean.new_empty(0)


def _in_graph(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *packed, cap, weights = arguments
    return _attend(Packed(*packed).call(), cap, weights)


# The tracer of bytecode knows no values whose properties are kept on first use. It takes 150 MB, so it is told later.
when_loaded("torch._dynamo", lambda dynamo: dynamo.allow_in_graph(_in_graph))
