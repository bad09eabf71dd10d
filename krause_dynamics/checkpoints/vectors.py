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
        tokens: What the module makes of each (T, or with tokens of its own more).
    """

    positions: torch.Tensor
    tokens: int
    source = "array of vectors"
    left_out = 0

    @classmethod
    def of(cls, inputs: Any) -> Vectors | None:
        """From a floating array (sequences, T, d) of either library; ``None``: something else.

        Raises:
            ValueError: Another shape, no sequence, or NaN.
        """
        if not isinstance(inputs, np.ndarray | torch.Tensor) or "float" not in str(inputs.dtype) or inputs.ndim == 4:
            return None
        if inputs.ndim != 3 or not len(inputs):
            raise ValueError(
                "inputs of a module of one's own must be vectors (sequences, T, d), pixels (n, channels, height, "
                f"width) or token ids, received {inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        positions = torch.as_tensor(inputs)
        if not bool(torch.isfinite(positions).all()):
            raise ValueError("inputs: vectors must be finite, received NaN or infinity")
        return cls(positions, positions.shape[1])

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Vectors of each sequence, shape (sequences,)."""
        return np.full(len(self), self.tokens)

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
