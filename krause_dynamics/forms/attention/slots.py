"""Keys and values in a ring, each token in one place for good: below the kernels and what chooses them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Ring(NamedTuple):
    """Keys and values of the last W tokens and of the first ones that stay, each in one place for good.

    Position p lies in slot p, if it is one of the first, else in slot ``first + (p - first) mod W``, where it replaces
    the position that has just left the window.

    Attributes:
        k: (b, h_kv, first + W, d), dense.
        v: As k.
        valid: Boolean (b, first + W), false where a token is padding and where there is none yet.
        seen: Number of tokens ever appended, (1,) int64 on the device: a step that is captured counts there.
        first: Number of first tokens that stay beside the window.
    """

    k: Tensor
    v: Tensor
    valid: Tensor
    seen: Tensor
    first: int

    @property
    def window(self) -> int:
        """W keys, the query's own counted."""
        return self.k.shape[2] - self.first

    def slots(self, positions: Tensor) -> Tensor:
        """Slots of positions >= 0."""
        return torch.where(positions < self.first, positions, self.first + (positions - self.first) % self.window)
