"""The definition itself as an implementation of `krause_attention`: the `Interaction` of the core, met densely."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from krause_dynamics.forms.attention.lowering import Lowered, score_dtype
from krause_dynamics.interaction import DotProduct, Gaussian, Interaction, Request, reference
from krause_dynamics.nn.arguments import NEVER
from krause_dynamics.nn.pattern import Pattern


def interaction(pattern: Pattern, lowered: Lowered, q: Tensor) -> Interaction:
    """The rule as an `Interaction` of the core: what every implementation must equal."""
    a = lowered.coefficients(q)[..., None]  # (batch, heads, 1) broadcasts against log Z
    # The parameter was checked at the border; looking at it again would stall a GPU and break function transforms.
    score = object.__new__(Gaussian if lowered.distance else DotProduct)
    object.__setattr__(score, *(("sigma", a**-0.5) if lowered.distance else ("beta", a)))
    return Interaction(score, pattern.neighbourhood, pair_bias=_all_pairs_bias(lowered, q))


def _all_pairs_bias(lowered: Lowered, q: Tensor) -> Tensor | None:
    """Pair bias with the walls between packed sequences, which the core has no neighbourhood for."""
    if lowered.segments is None:
        return lowered.pair_bias
    n = int(lowered.segments[-1])
    position = torch.arange(n, device=q.device)
    owner = torch.searchsorted(lowered.segments.to(position.dtype), position, right=True)
    walls = torch.zeros(n, n, dtype=score_dtype(q), device=position.device)
    walls = walls.masked_fill(owner[:, None] != owner, NEVER)
    return walls if lowered.pair_bias is None else lowered.pair_bias + walls


def run_reference(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) by the dense definition."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    n, m = q.shape[2], k.shape[2]
    mass = lowered.log_mass
    if mass is not None:
        mass = mass.to(q.dtype).expand(*k.shape[:3])
    rule, device = interaction(pattern, lowered, q), q.device
    request = Request.of(q, k, v, log_mass=mass)
    positions = torch.arange(n, device=device) + lowered.query_offset, torch.arange(m, device=device)
    # The bias is indexed by place in the call, index rules by position: the places stay "ranks".
    return reference.aggregate(rule, replace(request, query_places=positions[0], source_places=positions[1]))
