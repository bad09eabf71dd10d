"""Keys and values of the last W tokens, for decoding in O(W) per token however long the sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Cached(NamedTuple):
    """What the new queries meet.

    Attributes:
        k: Keys still in reach and the new ones, oldest first: (batch, kv_heads, m, d).
        v: Their values (batch, kv_heads, m, d_v).
        valid: Boolean (batch, m), or ``None`` where no padding was ever given.
        offset: Position of the first new query among these keys.
    """

    k: Tensor
    v: Tensor
    valid: Tensor | None
    offset: int


class WindowCache:
    """A rolling window of keys and values, in order of time.

    Tokens are appended to a buffer of twice the window; when it is full, the part in reach moves to its front. So one
    token costs O(W) amortised, keys stay in order (the earlier key wins a tie, as in the full pass), and what is read
    is one slice. Without a window the buffer doubles when full. First tokens that stay are copied to the front of the
    slice as it moves, so that they stand at its places 0, 1, ...

    Attributes:
        window: W keys, the query's own counted; ``None`` keeps all.
        prefix_tokens: First tokens that stay beside the window.
        seen: Number of tokens ever appended: the position of the next one.
    """

    def __init__(self, window: int | None = None, prefix_tokens: int = 0) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window, self.prefix_tokens = window, prefix_tokens
        self.reset()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended yet."""
        return self.seen == 0

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0
        self._begin = self._end = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._valid: Tensor | None = None

    def update(self, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Cached:
        """Append new tokens and return all keys that they may hear.

        Args:
            k: (batch, kv_heads, n, d).
            v: (batch, kv_heads, n, d_v).
            valid: Boolean (batch, n), false where a token is padding.

        Returns:
            The old keys within reach of the first new token, followed by the new ones.

        Raises:
            ValueError: Batch, heads or dimension differ from what is stored.
        """
        count, old = k.shape[2], self._make_room(k, v)
        assert self._k is not None
        assert self._v is not None
        # Gradients do not reach back into what is cached.
        self._k.narrow(2, old, count).copy_(k.detach())
        self._v.narrow(2, old, count).copy_(v.detach())
        self._note(valid, old)
        length = self._end - self._begin
        return Cached(
            self._k.narrow(2, self._begin, length),
            self._v.narrow(2, self._begin, length),
            None if self._valid is None else self._valid.narrow(1, self._begin, length),
            old - self._begin,
        )

    def may_place(self, dtype: torch.dtype) -> bool:
        """Whether `place` serves tokens of a dtype: no padding is told apart, and the buffers are of that dtype."""
        return self._valid is None and (self._k is None or self._k.dtype == dtype)

    def place(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """Room for one new token that the caller writes: a kernel reads and writes where the tokens lie.

        Args:
            k: As in `update`, of which shape and dtype are read.
            v: Likewise.

        Returns:
            Buffers of keys and values (batch, kv_heads, capacity, d), the first place that the token hears, and its own
            place, the last one.

        Raises:
            ValueError: As `update`.
        """
        own = self._make_room(k, v)
        assert self._k is not None
        assert self._v is not None
        return self._k, self._v, self._begin, own

    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]`` (beam search).

        Args:
            beams: (new batch,) integers.
        """
        if self._k is None or self._v is None:
            return
        self._k, self._v = self._k.index_select(0, beams), self._v.index_select(0, beams)
        if self._valid is not None:
            self._valid = self._valid.index_select(0, beams)

    def _make_room(self, k: Tensor, v: Tensor) -> int:
        """Count new tokens, whose first place is returned."""
        if self._k is not None and (k.shape[:2] != self._k.shape[:2] or k.shape[3] != self._k.shape[3]):
            raise ValueError(
                f"k must continue what is cached, (batch, kv_heads, _, d) = "
                f"{(*self._k.shape[:2], self._k.shape[3])}, got {tuple(k.shape)}; use one cache per layer and batch"
            )
        count = k.shape[2]
        if self.window is not None:
            self._leave(self._end - (self.window - 1) - self.prefix_tokens)
        self._reserve(k, v, count)
        old, self._end = self._end, self._end + count
        self.seen += count
        return old

    def _leave(self, begin: int) -> None:
        """The slice begins at ``begin`` where it began earlier, with the first tokens in front."""
        if begin <= self._begin:
            return
        if self.prefix_tokens:
            for x, axis in ((self._k, 2), (self._v, 2), (self._valid, 1)):
                if x is not None:
                    first = x.narrow(axis, self._begin, self.prefix_tokens).clone()
                    x.narrow(axis, begin, self.prefix_tokens).copy_(first)
        self._begin = begin

    def _reserve(self, k: Tensor, v: Tensor, count: int) -> None:
        """Make room for new tokens, moving what is in reach to the front."""
        kept = self._end - self._begin
        needed = kept + count
        if self._k is not None and self._end + count <= self._k.shape[2]:
            return
        reach = slice(self._begin, self._end)
        capacity = 2 * max(needed, (self.window or 0) + self.prefix_tokens)
        if self._k is None or needed > self._k.shape[2] or self.window is None:
            self._k, self._v, self._valid = (
                self._grown(x, old, capacity, reach, axis)
                for x, old, axis in ((k, self._k, 2), (v, self._v, 2), (self._valid, self._valid, 1))
            )
        else:
            for x in (self._k, self._v):
                assert x is not None
                x[:, :, :kept] = x[:, :, reach].clone()
            if self._valid is not None:
                self._valid[:, :kept] = self._valid[:, reach].clone()
        self._begin, self._end = 0, kept

    @staticmethod
    def _grown(like: Tensor | None, old: Tensor | None, capacity: int, reach: slice, axis: int) -> Tensor | None:
        if like is None:
            return None
        shape = list(like.shape)
        shape[axis] = capacity
        fresh = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if old is not None:
            fresh.narrow(axis, 0, reach.stop - reach.start).copy_(
                old.narrow(axis, reach.start, reach.stop - reach.start)
            )
        return fresh

    def _note(self, valid: Tensor | None, old: int) -> None:
        assert self._k is not None
        if valid is None and self._valid is None:
            return
        if self._valid is None:
            self._valid = torch.ones(self._k.shape[0], self._k.shape[2], dtype=torch.bool, device=self._k.device)
        self._valid[:, old : self._end] = True if valid is None else valid
