"""The definition for calls, all pairs in memory; while compiling one step, whose operations the compiler traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.lowering import lift
from krause_dynamics.forms.attention.softcap import SoftCapped
from krause_dynamics.interaction import reference
from krause_dynamics.interaction.reach import Reach


def attend(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n)."""
    mean, log_partition, _ = attend_capped(call, 0.0, weights=False)
    return mean, log_partition


def attend_capped(call: Call, cap: float, *, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Likewise of soft-capped scores (a cap of 0: none), and weights (b, h, n, m) where asked for."""
    if not torch.compiler.is_compiling():
        return _attend(call, cap, weights)
    mean, log_partition, found = _in_graph(
        call.q, call.k, call.v, call.coefficients(), call.log_mass, call.pair_bias, call.segments, call.reach.numbers,
        call.distance, call.offset, call.ranked, cap, weights,
    )  # fmt: skip
    return mean, log_partition, found


def _attend(call: Call, cap: float, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
    interaction, request = lift(call)
    if cap:
        interaction = replace(interaction, score=SoftCapped(interaction.score, cap))
    mean, log_partition = reference.aggregate(interaction, request)
    return mean, log_partition, reference.weights(interaction, request) if weights else mean.new_empty(0)


# The tracer of bytecode knows no values whose properties are kept on first use.
@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _in_graph(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    log_mass: Tensor | None,
    pair_bias: Tensor | None,
    segments: Tensor | None,
    numbers: Sequence[int],
    distance: bool,
    offset: int,
    ranked: bool,
    cap: float,
    weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    reach = Reach.from_numbers(numbers)
    call = Call(q, k, v, scale, distance, reach, log_mass, pair_bias, segments, offset, ranked=ranked)
    return _attend(call, cap, weights)
