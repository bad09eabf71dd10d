"""Attention sinks and entropy of one attention call, reduced while the rows are computed: never a list of maps.

With A the row-stochastic weights of T queries (rows, i) over T keys (columns, k), both counted from 0:

* importance  alpha_k = 1/n_k sum_{i} A_ik,  n_k = T - k under a causal mask, n_k = T without one (Gu et al. 2024,
  arXiv:2410.10781, section 3; alpha_0 includes query 0 itself, hence 1/T <= alpha_0 <= 1);
* first-token score  s = mean_{i >= 1} A_i0  (published code of Krause Attention), so alpha_0 = (1 + (T-1) s)/T under a
  causal mask;
* entropy  mean over rows of  -sum_k A_ik ln A_ik / ln(keys visible to i), rows with one visible key left out;
* strongest key  argmax_k alpha_k  among keys with at least ``min_queries`` queries, -1 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of scores held at one time: (batch, heads, 256, T) in float32.
ROWS = 256


@dataclass(frozen=True)
class HeadStatistics:
    """Statistics of one block on a batch of sequences of one length T.

    Attributes:
        importance: alpha_k, shape (batch, heads, T).
        first_token_score: Shape (batch, heads); NaN for T = 1.
        entropy: In units of ln(visible keys), shape (batch, heads); NaN when every row sees one key.
        strongest_key: Shape (batch, heads), whole numbers.
        weights: A itself (batch, heads, T, T) when it was asked for, else None.
    """

    importance: Tensor
    first_token_score: Tensor
    entropy: Tensor
    strongest_key: Tensor
    weights: Tensor | None = None


def sink_rate(importance_of_key: Tensor, eps: Tensor) -> Tensor:
    """Sink_k^eps = 100 * mean over sequences of [alpha_k > eps], strictly, thresholded per sequence and then averaged.

    Args:
        importance_of_key: alpha_k of one key, shape (sequences, ...).
        eps: Thresholds, shape (e,).

    Returns:
        Per cent, shape (..., e). Averaging alpha over sequences before the threshold would be another, higher number.
    """
    return 100.0 * (importance_of_key[..., None] > eps).to(torch.float64).mean(dim=0)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    *,
    softcap: float | None = None,
    bias: Tensor | None = None,
    min_queries: int = 8,
    keep_weights: bool = False,
) -> tuple[Tensor, HeadStatistics]:
    """Softmax attention in blocks of rows, with its statistics; scores and softmax in float32 or better.

    Args:
        query: (batch, heads, T, d).
        key: (batch, key heads, T, d), key heads dividing heads.
        value: (batch, key heads, T, dv).
        mask: True (or 0) where a key is admitted, False (or a hugely negative number) where it is not, broadcasting
            against (batch, heads, T, T); None admits every key.
        scaling: Multiplies the scores; None = d^(-1/2).
        softcap: c in  c tanh(score / c).
        bias: Added to the scores, broadcasting against (batch, heads, T, T).
        min_queries: Keys with fewer queries are left out of ``strongest_key``.
        keep_weights: Also return A, which costs O(T^2) memory.

    Returns:
        Output (batch, heads, T, dv) in the dtype of ``value``, and the statistics.
    """
    batch, heads, length, width = query.shape
    exact = torch.promote_types(query.dtype, torch.float32)
    groups = heads // key.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (key, value))
    keys, scale = keys.to(exact).transpose(-1, -2), width**-0.5 if scaling is None else scaling
    visible, additive = split_mask(mask, length, query.device)
    total = _Accumulator(batch, heads, length, visible, keep_weights, query.device)
    outputs = []
    for start in range(0, length, ROWS):
        rows = slice(start, min(start + ROWS, length))
        # Under a causal mask the keys after the last row of the block are never admitted: skip them.
        seen = rows.stop if total.causal else length
        scores = (query[:, :, rows].to(exact) @ keys[..., :seen]) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        for extra in (bias, additive):
            if extra is not None:
                scores = scores + _rows(extra, rows)[..., :seen]
        scores = scores.masked_fill(~_rows(visible, rows)[..., :seen], torch.finfo(exact).min)
        # With t = s - max s and z = sum exp t, the entropy is ln z - sum A t. A masked score is finite and its weight
        # exactly 0, so its product is 0, not NaN.
        scores -= scores.amax(-1, keepdim=True)
        weights = scores.exp()
        partition = weights.sum(-1, keepdim=True)
        weights /= partition
        entropy = partition.squeeze(-1).log() - (weights * scores).sum(-1)
        total.add(weights, entropy, rows)
        outputs.append(weights.to(value.dtype) @ values[:, :, :seen])
    return torch.cat(outputs, dim=2), total.finish(min_queries)


def statistics_of(weights: Tensor, min_queries: int = 8, keep_weights: bool = False) -> HeadStatistics:
    """The same statistics of weights (batch, heads, T, T) that a model returned.

    A key counts as visible to a query when any head of any sequence gives it weight: in a single head a tiny weight may
    underflow to zero.
    """
    batch, heads, length, _ = weights.shape
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32))
    visible = (exact > 0).flatten(0, 1).any(dim=0)[None, None]
    total = _Accumulator(batch, heads, length, visible, keep_weights, weights.device)
    total.add(exact, torch.special.entr(exact).sum(-1), slice(0, length))
    return total.finish(min_queries)


def split_mask(mask: Tensor | None, length: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """(admitted, finite part to add or None), each broadcasting against (batch, heads, T, T)."""
    if mask is None:
        return torch.ones((1, 1, length, length), dtype=torch.bool, device=device), None
    mask = mask[..., :length]
    if mask.dtype == torch.bool:
        return mask, None
    admitted = mask > torch.finfo(mask.dtype).min / 2
    finite = torch.where(admitted, mask, torch.zeros((), dtype=mask.dtype, device=mask.device)).to(torch.float32)
    return admitted, finite if bool(finite.any()) else None


def _rows(array: Tensor, rows: slice) -> Tensor:
    return array if array.shape[-2] == 1 else array[..., rows, :]


class _Accumulator:
    """Sums over query rows; memory O(heads T), plus the weights when they are kept."""

    def __init__(
        self, batch: int, heads: int, length: int, visible: Tensor, keep_weights: bool, device: torch.device
    ) -> None:
        self.length = length
        full = visible.expand(visible.shape[0], visible.shape[1], length, length)
        self.causal = not bool(full.triu(1).any())
        self.visible_keys = full.sum(-1)
        if not bool((self.visible_keys > 0).all()):
            raise ValueError("a query sees no key at all; leave padding out of the sequences")
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.float32, device=device)  # noqa: E731
        self.mass = zeros(batch, heads, length)
        self.entropy = zeros(batch, heads, length)
        self.weights = zeros(batch, heads, length, length) if keep_weights else None
        self.own = zeros(batch, heads)

    def add(self, weights: Tensor, entropy: Tensor, rows: slice) -> None:
        self.mass[..., : weights.shape[-1]] += weights.sum(-2)
        self.entropy[..., rows] = entropy.float()
        if rows.start == 0:
            self.own = weights[..., 0, 0].float()
        if self.weights is not None:
            self.weights[..., rows, : weights.shape[-1]] = weights.float()

    def finish(self, min_queries: int) -> HeadStatistics:
        length, device = self.length, self.mass.device
        queries = torch.full((length,), length, device=device)
        if self.causal:
            queries = length - torch.arange(length, device=device)
        importance = self.mass / queries
        counted = importance.masked_fill(queries < min_queries, -1.0)
        strongest = torch.where(counted.amax(-1) >= 0, counted.argmax(-1), -1)
        first = (self.mass[..., 0] - self.own) / (length - 1) if length > 1 else torch.full_like(self.own, torch.nan)
        several = self.visible_keys > 1
        scaled = self.entropy.clamp_min(0.0) / torch.log(self.visible_keys.clamp_min(2).float())
        entropy = (scaled * several).sum(-1) / several.sum(-1)
        return HeadStatistics(importance, first, entropy, strongest, self.weights)
