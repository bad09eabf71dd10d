"""Attention sinks and entropy of one attention call of a trained model, from the rule that the call is.

A call is an interaction: its score is ``scaling <q, k>`` (or soft-capped), its mask a neighbourhood (or, of another
shape, a pair bias). Its weights come from the package's one definition in blocks of rows: never a list of maps.

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

from krause_dynamics.aggregate import RowSums, blocks
from krause_dynamics.checkpoints.attention_call import AttentionCall, SoftCapped
from krause_dynamics.interaction import DotProduct, Request


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
    exact = torch.promote_types(query.dtype, torch.float32)
    heads_a_key = query.shape[1] // key.shape[1]
    if heads_a_key > 1:
        key, value = key.repeat_interleave(heads_a_key, dim=1), value.repeat_interleave(heads_a_key, dim=1)
    request = Request.of(query.to(exact), key.to(exact))
    beta = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = AttentionCall.of(mask, bias, query.shape[2], query.device)
    rule = call.rule(DotProduct(beta) if softcap is None else SoftCapped(beta, softcap))
    sums = RowSums(request, distances=0)
    output = value.new_zeros((*query.shape[:-1], value.shape[-1]))
    weights = query.new_zeros((*query.shape[:-1], query.shape[2]), dtype=torch.float32) if keep_weights else None
    with torch.no_grad():
        for block in blocks(rule, request):
            sums.add(block)
            for columns, part in block.pieces():
                output[:, :, block.rows] += part.to(value.dtype) @ value[:, :, columns]
                if weights is not None:
                    weights[:, :, block.rows, columns] = part
        found = sums.finish()
    own = found.own[..., 0]
    return output, _summary(found.received, found.entropy, own, call.visible_keys, call.causal, min_queries, weights)


def statistics_of(weights: Tensor, min_queries: int = 8, keep_weights: bool = False) -> HeadStatistics:
    """The same statistics of weights (batch, heads, T, T) that a model returned.

    A key counts as visible to a query when any head of any sequence gives it weight: in a single head a tiny weight may
    underflow to zero.
    """
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32))
    call = AttentionCall.of((exact > 0).flatten(0, 1).any(dim=0)[None, None], None, weights.shape[-1], weights.device)
    received, entropy = exact.sum(-2), torch.special.entr(exact).sum(-1)
    kept = exact.float() if keep_weights else None
    return _summary(received, entropy, exact[..., 0, 0], call.visible_keys, call.causal, min_queries, kept)


def _summary(
    received: Tensor,
    entropy: Tensor,
    first_own: Tensor,
    visible_keys: Tensor,
    causal: bool,
    min_queries: int,
    weights: Tensor | None,
) -> HeadStatistics:
    """Sums over weights in the units of the module's head."""
    length = received.shape[-1]
    queries = torch.full((length,), length, device=received.device)
    if causal:
        queries = length - torch.arange(length, device=received.device)
    importance = received.float() / queries
    counted = importance.masked_fill(queries < min_queries, -1.0)
    strongest = torch.where(counted.amax(-1) >= 0, counted.argmax(-1), -1)
    others = received[..., 0].float() - first_own.float()
    first = others / (length - 1) if length > 1 else torch.full_like(others, torch.nan)
    several = visible_keys > 1
    scaled = entropy.float() / torch.log(visible_keys.clamp_min(2).float())
    mean_entropy = (scaled * several).sum(-1) / several.sum(-1)
    return HeadStatistics(importance, first, mean_entropy, strongest, weights)
