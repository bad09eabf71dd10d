"""Sequences of vectors, for modules of one's own that take positions instead of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from krause_dynamics.checkpoints.blocks import device_of


@dataclass(frozen=True)
class Vectors:
    """Sequences of one length.

    Attributes:
        positions: (sequences, T, d).
    """

    positions: torch.Tensor
    source = "array of vectors"
    left_out = 0

    @classmethod
    def of(cls, inputs: Any) -> Vectors | None:
        """From a floating array (sequences, T, d) of either library; ``None``: something else."""
        if not isinstance(inputs, np.ndarray | torch.Tensor) or inputs.ndim != 3 or "float" not in str(inputs.dtype):
            return None
        return cls(torch.as_tensor(inputs))

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Vectors of each sequence, shape (sequences,)."""
        return np.full(len(self), self.positions.shape[1])

    def batches(self, size: int) -> Iterator[tuple[list[int], torch.Tensor]]:
        """(indices of the sequences, their vectors)."""
        for start in range(0, len(self), size):
            members = list(range(start, min(start + size, len(self))))
            yield members, self.positions[members]

    def arguments(self, batch: torch.Tensor, model: Any) -> dict[str, Any]:
        """The vectors, where the module is and in its dtype."""
        weight = next(model.parameters(), batch)
        return {"positions": batch.to(device=device_of(model), dtype=weight.dtype)}

    def described(self) -> dict[str, np.ndarray]:
        """Nothing beside the first layer, which holds them."""
        return {}
