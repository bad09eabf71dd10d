"""States on their way from a GPU to the host: each is put where it stays while the next block runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from krause_dynamics.checkpoints.finite import HOST


class _Sent(NamedTuple):
    layer: int
    host: Tensor
    there: torch.cuda.Event


class Arriving:
    """Hands on layers in the order in which they are sent, one behind where they come from a GPU.

    A copy into pinned memory is queued up in the stream that made the state, so that what the model launches next,
    writing over it or not, comes after; an event behind the copy says when the host may read. By then the GPU has the
    next block to do. Pinned memory goes round in torch's own cache, which waits for that stream as well.

    Args:
        put: Called with (layer, state on the host).
    """

    def __init__(self, put: Callable[[int, Tensor], None]) -> None:
        self.put = put
        self._sent: _Sent | None = None

    def send(self, layer: int, state: Tensor) -> None:
        """Put a layer, or send it on its way and put the one that was sent before."""
        if state.device.type != "cuda":
            self.wait()
            self.put(layer, state if state.device.type == HOST else state.cpu())
            return
        with torch.cuda.device(state.device):  # of a model on several, the stream and the event of this one
            host = torch.empty(state.shape, dtype=state.dtype, pin_memory=True)
            host.copy_(state, non_blocking=True)
            there = torch.cuda.Event()
            there.record()
        self.wait()
        self._sent = _Sent(layer, host, there)

    def wait(self) -> None:
        """Put the layer that is on its way, if one is."""
        if self._sent is not None:
            sent, self._sent = self._sent, None
            sent.there.synchronize()
            self.put(sent.layer, sent.host)
