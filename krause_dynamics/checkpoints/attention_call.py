"""An attention call of a trained model as an interaction: its score, and its mask as a neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from krause_dynamics.interaction import Causal, Everyone, Interaction, Neighbourhood, Score, Window

QUARTERS = 4


def quarters(length: int, device: torch.device | None = None) -> Tensor:
    """The quarter of the sequence in which each token stands, (T,)."""
    return QUARTERS * torch.arange(length, device=device) // length


@dataclass(frozen=True)
class AttentionCall:
    """Who may be heard in one attention call of T tokens.

    Attributes:
        neighbourhood: The mask, where it is an index rule; else `Everyone`.
        pair_bias: What is added to the scores, -inf for a mask of another shape; or ``None``.
        visible_keys: How many keys each query sees, broadcasting against (batch, heads, T).
        visible_queries: How many queries see each key, likewise.
        causal: Whether no query sees a later key.
        sees_first: Whether each query sees the first key, likewise.
        chosen: Whether queries choose among the keys that they see (by rank, or within a radius), and hear fewer.
    """

    neighbourhood: Neighbourhood
    pair_bias: Tensor | None
    visible_keys: Tensor
    visible_queries: Tensor
    causal: bool
    sees_first: Tensor
    chosen: bool = False

    @classmethod
    def of(cls, mask: Tensor | None, bias: Tensor | None, length: int, device: torch.device) -> AttentionCall:
        """Read a mask and a bias, each broadcasting against (batch, heads, T, T).

        Raises:
            ValueError: A query that sees no key.
        """
        if mask is None:
            all_of_them = torch.full((length,), length, device=device)
            return cls(Everyone(), bias, all_of_them, all_of_them, length == 1, all_of_them > 0)
        visible, additive = split_mask(mask[..., :length])
        visible = visible.expand(*visible.shape[:-2], length, length)
        bias = additive if bias is None else bias if additive is None else bias + additive
        window = _window(visible)
        if window is not None:
            neighbourhood, visible_keys = window
            causal = length == 1 or not isinstance(neighbourhood, Everyone)
            sees_first = visible[..., 0].reshape(-1, length)[0]
            # The last queries see back as the first keys are seen ahead: one window, read from the other end.
            return cls(neighbourhood, bias, visible_keys, visible_keys.flip(-1), causal, sees_first)
        visible_keys = visible.sum(-1)
        if not bool((visible_keys > 0).all()):
            raise ValueError("a query sees no key at all; leave padding out of the sequences")
        bias = torch.zeros((), device=device) if bias is None else bias
        causal = not bool(visible.triu(1).any())
        bias = bias.masked_fill(~visible, -torch.inf)
        return cls(Everyone(), bias, visible_keys, visible.sum(-2), causal, visible[..., 0])

    @classmethod
    def of_window(cls, before: int | None, length: int, device: torch.device) -> AttentionCall:
        """The causal call in which each query sees itself and so many keys before it (None: all), without a mask."""
        place = torch.arange(length, device=device)
        far = length - 1 if before is None else before
        neighbourhood: Neighbourhood = Causal() if far >= length - 1 else Window(far + 1)
        visible = 1 + place.clamp(max=far)
        return cls(neighbourhood, None, visible, visible.flip(-1), True, place <= far)

    # What layers that are masked alike have in common is computed for the first of them.

    @cached_property
    def full_queries(self) -> Tensor:
        """Queries that could see each key if all attention were full, (T,)."""
        length, device = self.visible_queries.shape[-1], self.visible_queries.device
        return (
            length - torch.arange(length, device=device)
            if self.causal
            else torch.full((length,), length, device=device)
        )

    @cached_property
    def entropy_weights(self) -> Tensor:
        """Factors of the entropy of each query in their mean in units of ln(visible keys): 0 of those that see one."""
        several = self.visible_keys > 1
        return several / torch.log(self.visible_keys.clamp_min(2).float()) / several.sum(-1, keepdim=True)

    @cached_property
    def even_first(self) -> Tensor:
        """Mean weight of the first key over the queries that see it, if each heard all keys it sees alike, (...)."""
        return (self.sees_first / self.visible_keys).sum(-1) / self.sees_first.sum(-1)

    @cached_property
    def seeing_first(self) -> Tensor:
        """Queries of each quarter that see the first key, (..., 4)."""
        length, device = self.sees_first.shape[-1], self.sees_first.device
        members = quarters(length, device) == torch.arange(QUARTERS, device=device)[:, None]
        return (members & self.sees_first[..., None, :]).sum(-1)

    def rule(self, score: Score) -> Interaction:
        """The interaction that the call is."""
        return Interaction(score, self.neighbourhood, pair_bias=self.pair_bias)


class Remembered:
    """Reads masks as `AttentionCall.of` does, each once: the layers of a model are given the same tensor."""

    def __init__(self) -> None:
        self._read: list[tuple[Tensor, int, AttentionCall]] = []

    def __call__(self, mask: Tensor | None, bias: Tensor | None, length: int, device: torch.device) -> AttentionCall:
        if mask is None or bias is not None:
            return AttentionCall.of(mask, bias, length, device)
        for known, version, call in self._read:
            if known is mask and version == mask._version and call.visible_queries.shape[-1] == length:
                return call
        call = AttentionCall.of(mask, bias, length, device)
        self.add(mask, call)
        return call

    def add(self, mask: Tensor, call: AttentionCall) -> None:
        """Remember what a mask is, without reading it."""
        self._read = [*self._read[-1:], (mask, mask._version, call)]  # of windows and of global layers


def _window(visible: Tensor) -> tuple[Neighbourhood, Tensor] | None:
    """The causal or whole window that a mask (..., T, T) is, and the keys that each query sees; ``None`` if another."""
    length = visible.shape[-1]
    seen = visible[..., -1, :].reshape(-1, length)[0].nonzero()
    before = length - 1 - int(seen.min()) if len(seen) else 0
    place = torch.arange(length, device=visible.device)
    if before == length - 1 and bool(visible.all()):
        return Everyone(), torch.full_like(place, length)
    inside = place[:, None] >= place
    if before < length - 1:
        inside &= place[:, None] - before <= place
    if not bool((visible == inside).all()):
        return None
    return Causal() if before == length - 1 else Window(before + 1), 1 + place.clamp(max=before)


def split_mask(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """(admitted, finite part to add or None) of a mask of booleans or of numbers to add."""
    if mask.dtype == torch.bool:
        return mask, None
    admitted = mask > torch.finfo(mask.dtype).min / 2
    finite = torch.where(admitted, mask, torch.zeros((), dtype=mask.dtype, device=mask.device)).to(torch.float32)
    return admitted, finite if bool(finite.any()) else None
