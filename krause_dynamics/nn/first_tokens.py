"""First tokens that stay visible beside a window, counted from where each query's own sequence begins."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics._array import may_look
from krause_dynamics.interaction.reach import Reach


def beside_of(
    reach: Reach, sizes: tuple[int, int], offset: int, valid: Tensor | None, segments: Tensor | None
) -> Tensor | None:
    """What each query hears beside its window (`Call.beside`); ``None``: the first keys of all.

    Args:
        reach: Index rules.
        sizes: Numbers n of queries and m of keys.
        offset: Place of the first query among the keys.
        valid: Boolean (batch, m), false for padding: a row's sequence begins at its first true; or ``None``.
        segments: Cumulative lengths of packed sequences; or ``None``.
    """
    if not reach.first or (valid is None and segments is None):
        return None
    if segments is None and valid is not None and may_look(valid) and bool(valid[:, 0].all()):
        return None
    (n, m), device = sizes, (valid if segments is None else segments).device  # type: ignore[union-attr]
    place = torch.arange(n, device=device) + offset
    if segments is not None:
        owner = torch.searchsorted(segments, place.to(segments.dtype), right=True).clamp(1, len(segments) - 1)
        start, end = segments[owner - 1][None].long(), segments[owner][None].long()
    else:
        assert valid is not None
        start, end = valid.int().argmax(1, keepdim=True).expand(-1, n), torch.full((1, 1), m, device=device)
    if reach.right == 0:
        end = end.minimum(place + 1)
    return torch.stack([start, (start + reach.first).minimum(end)], 1)
