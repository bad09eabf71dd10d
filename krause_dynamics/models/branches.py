"""Softmax and Krause attention side by side, mixed by a gate per token: the gated language model of the paper."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization

from krause_dynamics.models.decoding import Caches
from krause_dynamics.nn import KrauseAttention

SOFTMAX_SHARE = 0.8  # of the softmax branch before training (2602.11534, Llama and Qwen)


class Gate(nn.Linear):
    """``(a, b) = softmax(G [o_v; o_k] + c)`` a token, (..., 2 d) -> (..., 2); a starts at 0.8.

    Args:
        dim: Width d of each branch.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim, 2)

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01) and biases (ln 4, 0): the published code's later zeroing of biases would start at 0.5."""
        nn.init.normal_(self.weight, std=0.01)
        odds = math.log(SOFTMAX_SHARE / (1.0 - SOFTMAX_SHARE))
        initialization.copy_(self.bias, torch.tensor([odds, 0.0]))

    def share(self, softmax: Tensor, krause: Tensor) -> Tensor:
        """Shares (..., 2) of the two branches, which sum to 1."""
        return super().forward(torch.cat([softmax, krause], -1)).softmax(-1)

    def forward(self, softmax: Tensor, krause: Tensor) -> Tensor:  # type: ignore[override]
        """Mix outputs (..., d) of the two branches."""
        first, second = self.share(softmax, krause).split(1, -1)  # one gradient of both, as slices have not
        return first * softmax + second * krause


class GatedAttention(nn.Module):
    """Two attention layers on the same tokens and the gate between them: x (batch, n, d) -> the same.

    Args:
        softmax: The branch of dot products, over all earlier tokens.
        krause: The other one, with its own projections.
    """

    def __init__(self, softmax: KrauseAttention, krause: KrauseAttention) -> None:
        super().__init__()
        self.softmax, self.krause, self.gate = softmax, krause, Gate(krause.dim)

    def new_cache(self, *, static: bool = False) -> Caches:
        """Empty caches of both branches."""
        return Caches(branch.new_cache(static=static) for branch in (self.softmax, self.krause))

    def forward(self, x: Tensor, *, cache: Caches | None = None, return_weights: Any = False, **heard: Any) -> Any:
        """Attend with both branches, each appending to its own cache; weights are those of the softmax branch."""
        first, second = (None, None) if cache is None else cache
        softmax: Any = self.softmax(x, cache=first, return_weights=return_weights, **heard)
        softmax, weights = softmax if return_weights else (softmax, None)
        mixed: Tensor = self.gate(softmax, self.krause(x, cache=second, **heard))
        return (mixed, weights) if return_weights else mixed
