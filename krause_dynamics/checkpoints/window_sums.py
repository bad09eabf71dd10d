"""Statistics of the T x T weights that windows of a picture are, without drawing them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_call import QUARTERS, AttentionCall, quarters
from krause_dynamics.checkpoints.attention_statistics import DISTANCES, HeadStatistics, WeightSums, summary
from krause_dynamics.checkpoints.sampled_rows import sampled_rows
from krause_dynamics.checkpoints.window_places import Windows
from krause_dynamics.interaction import Everyone


def statistics_of_windows(
    weights: Tensor, windows: Windows, min_queries: int = 8, keep_weights: bool = False
) -> HeadStatistics:
    """Statistics of the T x T weights that windows are.

    Args:
        weights: (b, windows, heads, S, S), rows sum to 1.
        windows: Where their tokens stand.
        min_queries: A key needs that many queries to be a strongest key, or as many as a window has.
        keep_weights: Also draw them, (b, heads, T, T).
    """
    places, seen, length = windows
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32)).transpose(1, 2)  # (b, heads, windows, S, S)
    padding = (places == length)[:, None, :] & (places < length)[:, :, None]  # heard by tokens, as a learned logit is
    lost = torch.where(padding, exact, 0.0).sum(-1)
    exact = torch.where(seen, exact, 0.0)  # who is told apart by -100 keeps e^-100
    b, h = exact.shape[:2]

    def put(values: Tensor) -> Tensor:
        """Values (..., windows, S) at the places of tokens, (..., T)."""
        at = values.new_zeros((*values.shape[:-2], length + 1))
        return at.index_add_(-1, places.flatten(), values.flatten(-2))[..., :length]

    inside = places.clamp(max=length - 1)  # padding has no weight
    members = torch.nn.functional.one_hot(quarters(length, exact.device)[inside], QUARTERS).to(exact.dtype)
    by_quarter = torch.einsum("wiq,bhwik->bhqwk", members, exact)
    away = (inside[:, :, None] - inside[:, None, :]).abs()
    bins = torch.bucketize(away, torch.tensor(DISTANCES, device=away.device), right=True) - 1
    profile = exact.new_zeros((b, h, len(DISTANCES))).index_add_(-1, bins.flatten(), exact.flatten(2))
    among = exact / exact.sum(-1, keepdim=True).clamp_min(torch.finfo(exact.dtype).tiny)  # keys among themselves
    whole = drawn(exact, windows) if keep_weights else None
    sums = WeightSums(
        received=put(by_quarter),
        entropy=put(torch.special.entr(among).sum(-1)),
        own=put(exact.diagonal(dim1=-2, dim2=-1)),
        distance_profile=profile.float() / length,
        mean_distance=((exact.double() * away).sum((2, 3, 4)) / length).float(),
        sampled=drawn(exact, windows, sampled_rows(length).to(exact.device)),
        learned_sink=put(lost).sum(-1) / length,
        weights=None if whole is None else whole.float(),
    )
    keys, queries = put(seen.sum(-1)), put(seen.sum(-2))
    first = put(((places == 0)[:, None, :] & seen).any(-1).long()) > 0
    found = summary(AttentionCall(Everyone(), None, keys, queries, False, first), sums, min_queries)
    if len(places) == 1:
        return found
    whole_picture = ("published_importance", "first_token_score")
    return replace(found, **{name: torch.full_like(getattr(found, name), torch.nan) for name in whole_picture})


def drawn(exact: Tensor, windows: Windows, rows: Tensor | None = None) -> Tensor:
    """Rows (all, or some) of the T x T weights, (b, heads, rows, T)."""
    places, _, length = windows
    place = torch.empty(length + 1, dtype=torch.long, device=places.device)
    place[places.flatten()] = torch.arange(places.numel(), device=places.device)
    chosen = place[:length] if rows is None else place[rows]
    window = chosen // places.shape[1]
    lines = exact.flatten(2, 3)[:, :, chosen]  # (b, heads, rows, S)
    target = places[window].expand(*lines.shape[:2], -1, -1)
    return exact.new_zeros((*lines.shape[:3], length + 1)).scatter_(-1, target, lines)[..., :length]
