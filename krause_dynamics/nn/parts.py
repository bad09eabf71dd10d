"""Small parts of a layer: the learned bandwidth, numbers a head, rotary positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics._arguments import FLAG, LARGEST, POSITIVE, Real, Whole, reads


class PerHead(nn.Module):
    """One number a head, or one in all, as one float32 parameter ``weight`` of shape (heads,) or (1,).

    A module of its own, so that optimiser groups, peft's ``modules_to_save`` and FSDP find it; it stays float32 when a
    model is converted to half precision, where a step of a few per cent would be lost to rounding.
    """

    @reads(value=Real(), entries=Whole(1, LARGEST), learn=FLAG)
    def __init__(self, value: float, entries: int = 1, *, learn: bool = True) -> None:
        super().__init__()
        self.initial, self.learn = float(value), learn
        self.weight = nn.Parameter(torch.full((entries,), self.initial), requires_grad=learn)

    def reset_parameters(self) -> None:
        """Back to the number at the start."""
        nn.init.constant_(self.weight, self.initial)

    def forward(self, _: Any = None) -> Tensor:
        """The number, (1,) or (heads,); an argument is let pass: wrappers of peft hand on one that they insist on."""
        return self.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PerHead:
        before = self.weight.detach()
        super()._apply(fn, recurse)
        if self.weight.dtype in (torch.bfloat16, torch.float16):
            self.weight.data = before.to(self.weight.device)
        return self


def is_untouched(module: nn.Module) -> bool:
    """Whether a module may be read instead of called: nobody listens to its calls, replaced its forward or holds its
    weights elsewhere meanwhile (hooks; accelerate's offloading and quantisers put another ``forward`` on the object).
    """
    if "forward" in module.__dict__:
        return False
    return not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def whole(table: nn.Embedding, like: Tensor) -> Tensor:
    """All rows of a table, on the device of the tokens."""
    if is_untouched(table):
        return table.weight
    rows: Tensor = table(torch.arange(table.num_embeddings, device=like.device))
    return rows


class LogSigma(PerHead):
    """The bandwidth as one float32 parameter ``weight`` = log sigma, of shape (1,) or (heads,); see `PerHead`.

    Args:
        sigma: At the start, positive; unit: that of distances between queries and keys.
        entries: How many: 1, or one a head.
        learn: Whether it takes gradients.

    Raises:
        ValueError: A sigma that is not positive and finite.
    """

    @reads(entries=Whole(1, LARGEST), learn=FLAG)
    def __init__(self, sigma: float, entries: int = 1, *, learn: bool = True) -> None:
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive and finite, got {sigma}; its logarithm is what is learned")
        super().__init__(math.log(sigma), entries, learn=learn)

    def forward(self, _: Any = None) -> Tensor:
        """Sigma, (1,) or (heads,)."""
        return self.weight.exp()


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2104.09864): pairs (c, c + d/2) turn by ``position * base^(-2c/d)``.

    Rotations keep lengths, so that the distance |q_i - k_j| depends on i - j alone, as their product does.

    Args:
        dim: Width of a head, even.
        base: Of the frequencies; 10 000 as published.

    Raises:
        ValueError: An odd ``dim``.
    """

    frequencies: Tensor

    @reads(dim=Whole(2, LARGEST), base=POSITIVE)
    def __init__(self, dim: int, base: float = 10000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"rotary positions need an even head dimension, got {dim}")
        frequencies = base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn x (b, h, n, d) by positions (n,) or (b, n)."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        angle = positions.to(dtype)[..., None] * self.frequencies.to(dtype)
        angle = angle if angle.ndim == 2 else angle[:, None]
        cos, sin = angle.cos(), angle.sin()
        first, second = x.to(dtype).chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
