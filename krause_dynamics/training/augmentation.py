"""Augmentation of pictures where they are: random numbers of the device, whole batches, no step of the host.

Everything is drawn from torch's own generator of the device, so that a CUDA graph draws afresh at each replay.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import special
from torch import Tensor

QUANTILES = 1025  # points of the distribution function of Beta, between which it is taken linear


def shifted(padded: Tensor, rows: Tensor, pad: int, flip: bool) -> Tensor:
    """Pictures of a padded set, cut at a random place and mirrored: (n, c, h + 2 pad, w + 2 pad) -> (batch, c, h, w).

    Args:
        padded: All pictures.
        rows: Which of them, (batch,).
        pad: Pixels that were added on each side.
        flip: Mirror each with probability 1/2.
    """
    height, width = padded.shape[2] - 2 * pad, padded.shape[3] - 2 * pad
    batch, device = len(rows), padded.device
    down, across = ((torch.rand(batch, 1, device=device) * (2 * pad + 1)).long() for _ in range(2))
    y, x = torch.arange(height, device=device) + down, torch.arange(width, device=device).expand(batch, -1)
    if flip:
        x = torch.where(torch.rand(batch, 1, device=device) < 0.5, width - 1 - x, x)
    channel = torch.arange(padded.shape[1], device=device)
    return padded[
        rows[:, None, None, None], channel[:, None, None], y[:, None, :, None], (x + across)[:, None, None, :]
    ]


def beta_table(alpha: float) -> Tensor:
    """Quantiles of Beta(alpha, alpha) at `QUANTILES` equal steps of probability."""
    return torch.from_numpy(special.betaincinv(alpha, alpha, np.linspace(0.0, 1.0, QUANTILES)).astype(np.float32))


class Mixer:
    """Mixup (Zhang et al. 1710.09412) and cutmix (Yun et al. 1905.04899), a draw of its own for each picture.

    Each picture meets the one before it in the batch, whose order is random. With both on, half of the pictures take
    either. The area of a box is clipped at the border, and labels weigh by what is left of it.

    Args:
        mixup: Parameter of Beta for shares; 0: none.
        cutmix: Parameter of Beta for the kept area; 0: none.
        device: Of the pictures.
    """

    def __init__(self, mixup: float, cutmix: float, device: torch.device) -> None:
        self.tables = [None if alpha == 0.0 else beta_table(alpha).to(device) for alpha in (mixup, cutmix)]

    def __call__(self, x: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (batch, c, h, w) and shares of classes (batch, classes) -> the same, mixed."""
        kept = [None if table is None else self._kept(i, table, x) for i, table in enumerate(self.tables)]
        found = [mask for mask in kept if mask is not None]
        if not found:
            return x, shares
        keep = found[0]
        if len(found) == 2:
            keep = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, found[0], found[1])
        share = keep.mean((1, 2, 3))[:, None]
        return keep * x + (1.0 - keep) * x.roll(1, 0), share * shares + (1.0 - share) * shares.roll(1, 0)

    def _kept(self, boxes: int, table: Tensor, x: Tensor) -> Tensor:
        """How much of each pixel stays: a number a picture, or 0 inside a box; (batch, 1, h, w)."""
        batch, _, height, width = x.shape
        place = torch.rand(batch, device=x.device) * (QUANTILES - 1)
        below = place.long().clamp_max(QUANTILES - 2)
        share = torch.lerp(table[below], table[below + 1], place - below)[:, None, None, None]
        if not boxes:
            return share.expand(batch, 1, height, width)
        side = (1.0 - share).sqrt()
        inside = torch.ones(batch, 1, height, width, dtype=torch.bool, device=x.device)
        for axis, length in ((2, height), (3, width)):
            points = torch.arange(length, device=x.device) + 0.5
            centre = torch.rand(batch, 1, 1, 1, device=x.device) * length
            near = (points - centre).abs() < side * length / 2
            inside = inside & (near if axis == 3 else near.transpose(2, 3))
        return (~inside).to(x.dtype)
