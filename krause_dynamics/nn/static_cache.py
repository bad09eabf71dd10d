"""The cache of a decoding step that is captured once and replayed, as a CUDA graph or as compiled code."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.nn.cache import Cached

TOKENS = (2, 2, 1)  # axis of the tokens among keys, values, validity


class StaticWindowCache:
    """Keys and values of the last W - 1 tokens, always in the same memory, oldest first.

    New tokens are appended to a copy and the last W - 1 move back: 2 W d numbers a head and token, on the device alone,
    with shapes that depend on the number of new tokens only. `WindowCache` moves less, but counts on the host.

    First tokens that stay have places of their own in front: they are read there, and no more among the last W - 1.

    Attributes:
        window: W keys, the query's own counted.
        prefix_tokens: First tokens that stay beside the window.
        seen: Number of tokens ever appended, a tensor of one integer; 0 before the first.
    """

    def __init__(self, window: int, prefix_tokens: int = 0) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window, self.prefix_tokens = window, prefix_tokens
        self._fewest = 0  # tokens that there are at least, as far as the host knows
        self.seen: Tensor | int = 0
        self._buffers: tuple[Tensor, Tensor, Tensor] | None = None

    def reset(self) -> None:
        """Forget everything, in place: a captured step goes on to work."""
        if self._buffers is not None:
            assert isinstance(self.seen, Tensor)
            self.seen.zero_()
            self._buffers[2].zero_()
            self._fewest = 0

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Cached:
        """Append new tokens and return all keys that they may hear; see `WindowCache.update`.

        The first call allocates, so that it must come before a capture.

        Raises:
            ValueError: Batch, heads or dimension differ from what is stored; or more new tokens than the window holds
                follow fewer than the first ones that stay, which a query could not tell apart then.
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
        count, first = k.shape[2], self.prefix_tokens
        if first and 0 < self._fewest < first and count >= self.window:
            raise ValueError(
                f"new tokens must be fewer than the window of {self.window} until {first} first ones are there, got "
                f"{count} after {self._fewest}; give the first {first} in one call"
            )
        pairs = zip(self._buffers, (k, v, valid), TOKENS, strict=True)
        joined = [torch.cat([old, new], axis) for old, new, axis in pairs]
        found = Cached(joined[0], joined[1], self._heard(joined[2]), first + self.window - 1)
        if first and self._fewest == 0:  # nothing is cached: the new tokens are all that there is
            found = Cached(k, v, valid, 0)
        for old, new, axis in zip(self._buffers, joined, TOKENS, strict=True):
            if first:
                self._keep_first(old.narrow(axis, 0, first), new.narrow(axis, first + self.window - 1, count), axis)
            old.narrow(axis, first, self.window - 1).copy_(new.narrow(axis, first + count, self.window - 1))
        self.seen += count
        self._fewest += count
        return found

    def _heard(self, valid: Tensor) -> Tensor:
        """Which keys are read: a first token that has its own place, there alone."""
        if not self.prefix_tokens:
            return valid
        first, length = self.prefix_tokens, valid.shape[1]
        position = torch.arange(length, device=valid.device) - first - (self.window - 1) + self.seen
        twice = (position < first) & (position < self.seen)
        return torch.cat([valid[:, :first], valid[:, first:] & ~twice[first:]], 1)

    def _keep_first(self, kept: Tensor, new: Tensor, axis: int) -> None:
        """Write those of the new tokens to their places that are among the first of all."""
        place = torch.arange(kept.shape[axis], device=kept.device) - self.seen
        fresh = ((place >= 0) & (place < new.shape[axis])).view([-1 if a == axis else 1 for a in range(kept.ndim)])
        kept.copy_(torch.where(fresh, new.index_select(axis, place.clamp(0, new.shape[axis] - 1)), kept))

    @torch.no_grad()
    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]``, in place; as many beams as before."""
        for buffer in self._buffers or ():
            buffer.copy_(buffer.index_select(0, beams))

    def _allocate(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        length = self.prefix_tokens + self.window - 1
        keys, values = (x.new_zeros(*x.shape[:2], length, x.shape[3]) for x in (k, v))
        return keys, values, torch.zeros(k.shape[0], length, dtype=torch.bool, device=k.device)
