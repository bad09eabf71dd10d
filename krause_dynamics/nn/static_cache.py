"""The cache of a decoding step that is captured once and replayed, as a CUDA graph or as compiled code."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.forms.attention import ring as rings
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.slots import Ring
from krause_dynamics.nn.cache import Cached
from krause_dynamics.nn.checks import check_valid

TOKENS = (2, 2, 1)  # axis of the tokens among keys, values, validity


class StaticWindowCache:
    """Keys and values of the last W tokens in a ring, always in the same memory: a token is written in one place.

    What counts is on the device, so that a step can be captured. On a GPU one kernel reads the ring where it lies
    (`from_ring`); elsewhere, and for several new tokens at once, what they hear is put in order in a copy (`update`).

    First tokens that stay have places of their own, in front of the ring.

    Attributes:
        window: W keys, the query's own counted.
        prefix_tokens: First tokens that stay beside the window.
    """

    def __init__(self, window: int, prefix_tokens: int = 0) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window, self.prefix_tokens = window, prefix_tokens
        # First tokens that there are at least, as far as the host knows; it stops there, or compiled steps, which are
        # compiled for a number of the host, would be compiled for every token.
        self._fewest = 0
        self._ring: Ring | None = None

    @property
    def seen(self) -> Tensor | int:
        """Number of tokens ever appended, a tensor of one integer; 0 before the first."""
        return 0 if self._ring is None else self._ring.seen

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended yet, of a cache that keeps first tokens; the host does not count others."""
        return self._fewest == 0

    def reset(self) -> None:
        """Forget everything, in place: a captured step goes on to work."""
        if self._ring is not None:
            self._ring.seen.zero_()
            self._ring.valid.zero_()
            self._fewest = 0

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Cached:
        """Append new tokens and return all keys that they may hear, in order; see `WindowCache.update`.

        The first call allocates, so that it must come before a capture.

        Raises:
            ValueError: Batch, heads or dimension differ from what is stored; or as many new tokens as the window holds
                follow fewer than the first ones that stay, which a query could not tell apart then.
        """
        ring, count, first = self._continued(k, v), k.shape[2], self.prefix_tokens
        if valid is None:
            valid = torch.ones(k.shape[0], count, dtype=torch.bool, device=k.device)
        if first and count >= self.window and 0 < self._fewest < first:
            raise ValueError(
                f"new tokens must be fewer than the window of {self.window} until {first} first ones are there, got "
                f"{count} after {self._fewest}; give the first {first} in one call"
            )
        if first and count >= self.window and self._fewest == 0:  # the new tokens are all that there is
            found = Cached(k, v, valid, 0)
        else:
            found = _in_order(ring, k, v, valid)
        _write(ring, k, v, valid)
        self._count(count)
        return found

    @torch.no_grad()
    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]``, in place; as many beams as before."""
        for buffer in () if self._ring is None else self._ring[:3]:
            buffer.copy_(buffer.index_select(0, beams))

    def _continued(self, k: Tensor, v: Tensor) -> Ring:
        """The ring that new tokens continue, allocated for the first.

        Raises:
            ValueError: They do not.
        """
        if self._ring is None:
            length = self.prefix_tokens + self.window
            keys, values = (x.new_zeros(*x.shape[:2], length, x.shape[3]) for x in (k, v))
            valid = torch.zeros(k.shape[0], length, dtype=torch.bool, device=k.device)
            seen = torch.zeros(1, dtype=torch.int64, device=k.device)
            self._ring = Ring(keys, values, valid, seen, self.prefix_tokens)
        stored = self._ring.k
        if k.shape[:2] != stored.shape[:2] or k.shape[3] != stored.shape[3]:
            raise ValueError(
                f"k must continue what is cached, (batch, kv_heads, _, d) = {(*stored.shape[:2], stored.shape[3])}, "
                f"got {tuple(k.shape)}; use one cache per layer and batch"
            )
        return self._ring

    def _count(self, tokens: int) -> None:
        assert self._ring is not None
        self._ring.seen.add_(tokens)
        self._fewest = min(self._fewest + tokens, self.prefix_tokens)


@torch.no_grad()
def from_ring(
    cache: StaticWindowCache, call: Call, norm: Tensor | None = None, valid: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Append one new token and attend, in one kernel; ``None``, and nothing appended, where there is none for it.

    Args:
        cache: Of a layer and batch.
        call: The token as query, key and value (batch, heads or kv_heads, 1, d).
        norm: Coefficients (1, heads) of the keys' squared norms beside a dot product; or ``None``.
        valid: Boolean (batch, 1), false for padding; or ``None``.

    Returns:
        Output (batch, heads, 1, d) and log-partition (batch, heads, 1).

    Raises:
        TypeError, ValueError: As `StaticWindowCache.update`, or a mask that does not fit.
    """
    ring = cache._continued(call.k, call.v)
    if valid is not None:
        check_valid(valid, call.k.shape[0], 1)
    if rings.refusal(call, ring) is not None:
        return None
    found = rings.attend(call, ring, norm, valid)
    cache._count(1)
    return found


def _in_order(ring: Ring, k: Tensor, v: Tensor, valid: Tensor) -> Cached:
    """First tokens, the last W - 1 ones, oldest first, and the new ones; false where there was no token yet."""
    back = torch.arange(1 - ring.window, 0, device=k.device) + ring.seen
    slots = torch.cat([torch.arange(ring.first, device=k.device), ring.slots(back.clamp_min(0))])
    there = torch.cat([back.new_ones(ring.first, dtype=torch.bool), back >= ring.first])
    joined = [
        torch.cat([old.index_select(axis, slots), new], axis)
        for old, new, axis in zip(ring[:3], (k, v, valid), TOKENS, strict=True)
    ]
    joined[2][:, : len(slots)] &= there
    return Cached(joined[0], joined[1], joined[2], len(slots))


def _write(ring: Ring, k: Tensor, v: Tensor, valid: Tensor) -> None:
    """Write new tokens to their slots; those that leave the window at once, only where they are among the first."""
    count = k.shape[2]
    before = max(0, count - ring.window)
    slots = ring.slots(torch.arange(before, count, device=k.device) + ring.seen)
    for buffer, new, axis in zip(ring[:3], (k, v, valid), TOKENS, strict=True):
        new = new.to(buffer.dtype)
        buffer.index_copy_(axis, slots, new.narrow(axis, before, count - before))
        if ring.first and before:
            _keep_first(buffer.narrow(axis, 0, ring.first), new.narrow(axis, 0, before), axis, ring.seen)


def _keep_first(kept: Tensor, new: Tensor, axis: int, seen: Tensor) -> None:
    """Write those of the new tokens to their places that are among the first of all."""
    place = torch.arange(kept.shape[axis], device=kept.device) - seen
    fresh = ((place >= 0) & (place < new.shape[axis])).view([-1 if a == axis else 1 for a in range(kept.ndim)])
    kept.copy_(torch.where(fresh, new.index_select(axis, place.clamp(0, new.shape[axis] - 1)), kept))
