"""Whether the states of a model are finite, asked without making a GPU and its host wait for each other."""

from __future__ import annotations

import torch
from torch import Tensor

HOST = "cpu"  # kind of device that need not be waited for


class NotFinite(ValueError):
    """NaN or infinity in a model's states or weights.

    Attributes:
        layer: The first that is not finite; 0 is the embedding.
    """

    def __init__(self, message: str, layer: int) -> None:
        super().__init__(message)
        self.layer = layer


class FiniteStates:
    """The states of a pass, of which on a GPU only the extremes are kept until the pass has ended."""

    def __init__(self) -> None:
        self._extremes: list[tuple[int, torch.dtype, Tensor]] = []

    def add(self, layer: int, state: Tensor, copy: Tensor) -> None:
        """Take in a state as the model has it, and its copy in float32.

        Raises:
            NotFinite: It is not, and lies on the host, where asking costs no time.
        """
        on_host = copy.device.type == HOST
        # Half types are read in less time on a GPU, and converted on a CPU.
        smaller = copy if on_host or state.itemsize > copy.itemsize else state.detach()
        self._extremes.append((layer, state.dtype, torch.stack(torch.aminmax(smaller))))  # which pass a NaN on
        if on_host:
            self.check()

    def check(self) -> None:
        """Wait for all that was taken in.

        Raises:
            NotFinite: Naming the first state that is not.
        """
        pending, self._extremes = self._extremes, []
        if not pending:
            return
        device = pending[-1][2].device  # blocks may lie on several
        finite = torch.stack([extremes.to(device).float() for *_, extremes in pending]).isfinite().all(-1).tolist()
        for (layer, dtype, _), fine in zip(pending, finite, strict=True):
            if not fine:
                where = "the embedding" if layer == 0 else f"block {layer}"
                raise NotFinite(
                    f"model must have finite hidden states, but {where} gives NaN or infinity in {dtype}; where that "
                    "is a half type, load it with dtype='float32'",
                    layer,
                )
