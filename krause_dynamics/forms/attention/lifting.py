"""The way back from a `Call` of attention to the core: what the definition computes of a call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import NEVER, Call
from krause_dynamics.interaction import (
    Causal,
    DotProduct,
    Everyone,
    Gaussian,
    Grid,
    Interaction,
    RandomKeys,
    Request,
    Segments,
    TopK,
    Window,
)
from krause_dynamics.interaction.neighbourhoods import Neighbourhood, Pairs
from krause_dynamics.interaction.reach import MANHATTAN, UNBOUNDED, Reach


def lift(call: Call) -> tuple[Interaction, Request]:
    """The interaction and the arrays of a call: what every form must equal, for the definition to compute."""
    group = call.q.shape[1] // call.k.shape[1]
    k, v = call.k.repeat_interleave(group, 1), call.v.repeat_interleave(group, 1)
    a = call.coefficients()[..., None]  # (b, h, 1) broadcasts against log Z
    neighbourhood = neighbourhood_of(call.reach) if call.beside is None else _beside(call.reach, call.beside)
    if call.segments is not None:
        neighbourhood = neighbourhood & Segments(call.segments)
    score = Gaussian(a**-0.5) if call.distance else DotProduct(a)
    mass = None if call.log_mass is None else call.log_mass.to(call.q.dtype).expand(*k.shape[:3])
    pair = call.pair_bias
    if call.ranked and mass is not None:  # what ranks is a bias of pairs; who is absent stays a mass
        there = mass > NEVER
        bias = torch.where(there, mass, 0.0)[:, :, None].expand(*call.q.shape[:3], k.shape[2])
        mass, pair = torch.where(there, 0.0, NEVER).to(mass.dtype), bias if pair is None else bias + pair
    request = Request.of(call.q, k, v, log_mass=mass)
    device = call.q.device
    positions = torch.arange(call.q.shape[2], device=device) + call.offset, torch.arange(k.shape[2], device=device)
    # The bias is indexed by place in the call, index rules by position: the places stay "ranks".
    request = replace(request, query_places=positions[0], source_places=positions[1])
    return Interaction(score, neighbourhood, pair_bias=pair), request


@dataclass(frozen=True, eq=False)
class Beside(Neighbourhood):
    """A window, and beside it one more interval of sources of each query.

    Attributes:
        window: The window.
        interval: (b or 1, 2, n) whole numbers, first source and one past the last.
    """

    window: Neighbourhood
    interval: Any

    def admits(self, pairs: Pairs) -> Any:
        first, end = self.interval[:, None, :, :, None].unbind(2)
        j = pairs.source_index[..., None, :]
        return self.window.admits(pairs) | ((j >= first) & (j < end))


def _beside(reach: Reach, interval: Tensor) -> Neighbourhood:
    """The neighbourhood of a reach whose first tokens are those of an interval."""
    window = neighbourhood_of(Reach(reach.left, reach.right))
    return Beside(window, interval) & neighbourhood_of(reach._replace(left=UNBOUNDED, right=UNBOUNDED, first=0))


def neighbourhood_of(reach: Reach) -> Neighbourhood:
    """The neighbourhood whose reach this is.

    Raises:
        ValueError: A window that ends at two distances, neither of them the query's own place.
    """
    left, right = reach.left, reach.right
    if right == 0:
        joined: Neighbourhood = Causal() if left == UNBOUNDED else Window(left + 1, prefix_tokens=reach.first)
    elif left == right:
        joined = Everyone() if left == UNBOUNDED else Window(2 * left + 1, True, prefix_tokens=reach.first)
    else:
        raise ValueError(f"a reach has right=0 or left=right, got left={left}, right={right}; join two windows")
    if reach.grid:
        height, width, radius, metric, prefix = reach.grid
        joined = joined & Grid(height, width, radius, "manhattan" if metric == MANHATTAN else "chebyshev", prefix)
    if reach.random:
        degree, seed, tokens, prefix = reach.random
        joined = joined & RandomKeys(degree, seed, tokens or None, prefix)
    if not reach.top_k:
        return joined
    return joined & TopK(reach.top_k, "keep" if reach.keep_ties else "index", reach.exempt)
