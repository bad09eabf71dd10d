"""What a block does to tokens near their mean: its derivative there, by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SMALL = 0.01  # of the mean token's norm: deviations at which a block is taken for linear


def predicted_contraction(block: Callable[[Tensor], Tensor], tokens: Tensor) -> np.ndarray:
    """Residual after a block over that before, to first order around the mean; (b,).

    Args:
        block: The map (b, T, d) -> (b, T, d).
        tokens: What it is about to be given; the mean is that of all but the first.
    """
    mean = tokens[:, 1:].mean(1, keepdim=True)
    away = tokens - mean
    away[:, 0] = 0.0
    largest = away.norm(dim=-1).amax(1)[:, None, None].clamp_min(torch.finfo(away.dtype).tiny)
    small = SMALL * mean.norm(dim=-1, keepdim=True) / largest
    middle = mean.expand_as(tokens)
    up, down = block(middle + small * away), block(middle - small * away)
    after = (up + down).double() / 2 + (up - down).double() / (2 * small)
    return (residual(after) / residual(tokens.double())).cpu().numpy()


def residual(tokens: Tensor) -> Tensor:
    """|X - mean|/|X| of all tokens but the first, (b,)."""
    rest = tokens[:, 1:]
    return (rest - rest.mean(1, keepdim=True)).norm(dim=(1, 2)) / rest.norm(dim=(1, 2))
