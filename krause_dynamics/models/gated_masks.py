"""The mask of a model as its Krause branch hears it: as padding where it is no more than that, else as pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask

from krause_dynamics._array import is_captured, may_wait


def heard_of(mask: Any, q: Tensor, k: Tensor, seen: int, window: int) -> dict[str, Tensor]:
    """The model's mask for the branch's keys, which are the last ones, as options of `krause_attention`.

    Args:
        mask: ``None``, booleans or log weights (batch, 1, n, keys), a `BlockMask`, or padding (batch, keys).
        q: Queries (batch, heads, n, d).
        k: Keys of the branch (batch, kv_heads, m, d): the last m up to now.
        seen: Number of tokens up to now; a static cache has columns for later ones.
        window: W keys, of which the branch hears none outside: only there the mask matters.
    """
    if mask is None:
        return {}
    n, m = q.shape[2], k.shape[2]
    key = (n, m, seen, window, is_captured(), _version(mask))
    known = getattr(mask, "_krause_heard", None)
    if known is not None and known[0] == key:
        return dict(known[1])
    heard = _heard(mask, q, (n, m, seen, window))
    if not torch.compiler.is_compiling():
        mask._krause_heard = key, heard  # one mask serves all layers: it is looked at once a pass
    return heard


def packed_of(attention: str | None, mask: Any, told: dict[str, Any], x: Tensor) -> Tensor | None:
    """Cumulative lengths of the sequences that a row packs, where flash attention cuts it and no mask says so.

    Its kernels get ``None`` for a mask and are told by ``cu_seq_lens_q``, or see it in positions that begin anew.

    Args:
        attention: Name of the base's attention.
        mask: That of the layer.
        told: What stands beside it.
        x: Tokens (batch, n, width).

    Raises:
        ValueError: Lengths for several rows at once.
    """
    ends, places = told.get("cu_seq_lens_q"), told.get("position_ids")
    if mask is not None or "flash" not in str(attention):
        return None
    if ends is not None:
        if x.shape[0] != 1:
            raise ValueError(
                f"cu_seq_lens_q cut one row of tokens, got {x.shape[0]} rows; lay them one behind the other"
            )
        cut: Tensor = ends
        return cut
    if places is None or places.shape != x.shape[:2] or x.shape[0] != 1 or x.shape[1] == 1:
        return None
    known = getattr(places, "_krause_packed", None)
    if known is not None and known[0] == _version(places):
        return known[1]  # type: ignore[no-any-return]
    packed = _cut(places[0])
    if not torch.compiler.is_compiling():
        places._krause_packed = _version(places), packed  # one look a pass, as at a mask
    return packed


def _cut(places: Tensor) -> Tensor | None:
    """Cumulative lengths (n + 1,) of rising stretches, empty ones behind; cut short where values may be looked at."""
    n, first = places.shape[0], nn.functional.pad(places.diff() != 1, (1, 0), value=True)
    starts = torch.where(first, torch.arange(n, device=places.device), n).sort().values
    cumulative = nn.functional.pad(starts, (0, 1), value=n)
    if not may_wait(places):
        return cumulative
    count = int(first.sum())
    return None if count == 1 else cumulative[: count + 1]


def _version(mask: Any) -> int:
    """How often a mask was written to; inference tensors do not count that."""
    return 0 if not isinstance(mask, Tensor) or torch.compiler.is_compiling() or mask.is_inference() else mask._version


def _heard(mask: Any, q: Tensor, sizes: tuple[int, int, int, int]) -> dict[str, Tensor]:
    n, m, seen, window = sizes
    if isinstance(mask, BlockMask):
        mask = create_mask(mask.mask_mod, mask.shape[0], 1, *mask.seq_lengths, device=q.device)
    visible = mask if mask.dtype == torch.bool else (mask >= 0 if mask.is_floating_point() else mask != 0)
    end = min(seen, visible.shape[-1])
    visible = visible[..., max(end - m, 0) : end]
    # A model whose own window is narrower than the branch's hides what lies before it.
    visible = nn.functional.pad(visible, (m - visible.shape[-1], 0))
    if visible.ndim == 2:
        return {"key_valid": visible.expand(q.shape[0], m)}
    visible = visible[:, :, -n:]
    valid = visible[:, 0, -1].expand(q.shape[0], m)
    if n == 1:
        return {"key_valid": valid}
    if may_wait(visible):
        padding, everyone = torch.stack([_is_padding(visible, valid, window), valid.all()]).tolist()
        if padding:
            return {} if everyone else {"key_valid": valid}
    nothing = torch.zeros((), dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    return {"pair_bias": torch.where(visible, nothing, -torch.inf)}


def _is_padding(visible: Tensor, valid: Tensor, window: int) -> Tensor:
    """Whether within the window all queries see the keys that the last one sees, and none later: O(n W).

    Args:
        visible: (batch, 1, n, m), for queries that are the last n of the m.
        valid: (batch, m), the row of the last query.
        window: W.
    """
    n, m = visible.shape[2:]
    place = torch.arange(m - n, m, device=visible.device)[:, None] + torch.arange(1 - window, 1, device=visible.device)
    inside, place = place >= 0, place.clamp(min=0)
    seen = visible[:, 0].gather(-1, place.expand(visible.shape[0], -1, -1))
    return ((seen == valid[: visible.shape[0], place]) | ~inside).all()
