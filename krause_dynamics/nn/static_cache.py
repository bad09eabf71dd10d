"""The cache of a decoding step that is captured once and replayed, as a CUDA graph or as compiled code."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.nn.cache import Cached


class StaticWindowCache:
    """Keys and values of the last W - 1 tokens, always in the same memory, oldest first.

    New tokens are appended to a copy and the last W - 1 move back: 2 W d numbers a head and token, on the device alone,
    with shapes that depend on the number of new tokens only. `WindowCache` moves less, but counts on the host.

    Attributes:
        window: W keys, the query's own counted.
        seen: Number of tokens ever appended, a tensor of one integer; 0 before the first.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window = window
        self.seen: Tensor | int = 0
        self._buffers: tuple[Tensor, Tensor, Tensor] | None = None

    def reset(self) -> None:
        """Forget everything, in place: a captured step goes on to work."""
        if self._buffers is not None:
            assert isinstance(self.seen, Tensor)
            self.seen.zero_()
            self._buffers[2].zero_()

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Cached:
        """Append new tokens and return all keys that they may hear; see `WindowCache.update`.

        The first call allocates, so that it must come before a capture.

        Raises:
            ValueError: Batch, heads or dimension differ from what is stored.
        """
        if self._buffers is None:
            self._buffers = self._allocate(k, v)
            self.seen = torch.zeros(1, dtype=torch.int64, device=k.device)
        stored = self._buffers[0]
        if k.shape[:2] != stored.shape[:2] or k.shape[3] != stored.shape[3]:
            raise ValueError(
                f"k must continue what is cached, (batch, kv_heads, _, d) = {(*stored.shape[:2], stored.shape[3])}, "
                f"got {tuple(k.shape)}; use one cache per layer and batch"
            )
        if valid is None:
            valid = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
        tokens = (2, 2, 1)  # axis of the tokens in each
        pairs = zip(self._buffers, (k, v, valid), tokens, strict=True)
        joined = [torch.cat([old, new], axis) for old, new, axis in pairs]
        for old, new, axis in zip(self._buffers, joined, tokens, strict=True):
            old.copy_(new.narrow(axis, k.shape[2], self.window - 1))
        self.seen += k.shape[2]
        return Cached(joined[0], joined[1], joined[2], self.window - 1)

    @torch.no_grad()
    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]``, in place; as many beams as before."""
        for buffer in self._buffers or ():
            buffer.copy_(buffer.index_select(0, beams))

    def _allocate(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        length = self.window - 1
        keys, values = (x.new_zeros(*x.shape[:2], length, x.shape[3]) for x in (k, v))
        return keys, values, torch.zeros(k.shape[0], length, dtype=torch.bool, device=k.device)
