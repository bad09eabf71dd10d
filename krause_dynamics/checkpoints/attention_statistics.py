"""Attention sinks and entropy of one attention call of a trained model, from the rule that the call is.

A call is an interaction: its score is ``scaling <q, k>`` (or soft-capped), its mask a neighbourhood (or, of another
shape, a pair bias). Its weights come from the package's one definition in blocks of rows: never a list of maps.

With A the row-stochastic weights of T queries (rows, i) over T keys (columns, k), both counted from 0:

* importance  alpha_k = 1/n_k sum_{i} A_ik,  n_k the number of queries that can see key k: T - k under a causal mask
  (Gu et al. 2024, arXiv:2410.10781, section 3; alpha_0 includes query 0 itself, hence 1/T <= alpha_0 <= 1),
  min(W, T - k) in a window of W, T where all see all;
* published importance  the same with the divisor of full attention, T - k or T, whatever the window: the formula as
  published, which in a window measures its width as well;
* first-token score  s = mean_{i >= 1} A_i0  (published code of Krause Attention), so alpha_0 = (1 + (T-1) s)/T under a
  causal mask;
* entropy  mean over rows of  -sum_k A_ik ln A_ik / ln(keys visible to i), rows with one visible key left out;
* strongest key  argmax_k alpha_k  among keys with at least ``min_queries`` queries, or in a narrower window as many as
  any key has; -1 where there is none;
* learned sink  mean over rows of the share that goes to a learned logit without a key (gpt-oss): A_ik are the shares of
  the keys, which then sum to less than 1; their entropy is that of the keys among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.aggregate import Block, RowSums, blocks
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.interaction import DotProduct, Request
from krause_dynamics.nn.huggingface.softcap import SoftCapped


@dataclass(frozen=True)
class HeadStatistics:
    """Statistics of one block on a batch of sequences of one length T.

    Attributes:
        importance: alpha_k, shape (batch, heads, T).
        published_importance: Likewise, divided as for full attention.
        first_token_score: Shape (batch, heads); NaN for T = 1.
        entropy: In units of ln(visible keys), shape (batch, heads); NaN when every row sees one key.
        strongest_key: Shape (batch, heads), whole numbers.
        learned_sink: Shape (batch, heads); 0 where the model has none.
        weights: A itself (batch, heads, T, T) when it was asked for, else None.
    """

    importance: Tensor
    published_importance: Tensor
    first_token_score: Tensor
    entropy: Tensor
    strongest_key: Tensor
    learned_sink: Tensor
    weights: Tensor | None = None

    def nothing(self) -> HeadStatistics:
        """Of a block without attention, beside this one: NaN, -1 for the key."""
        blank: dict[str, Any] = {
            field.name: None if (x := getattr(self, field.name)) is None else torch.full_like(x, torch.nan)
            for field in fields(self)
            if field.name != "strongest_key"
        }
        return HeadStatistics(strongest_key=torch.full_like(self.strongest_key, -1), **blank)


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
    sink: Tensor | None = None,
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
        sink: Learned logits (heads,), each a term exp(sink) of the denominator without a key.
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
    rule = call.rule(DotProduct(beta) if softcap is None else SoftCapped(DotProduct(beta), softcap))
    sums = RowSums(request, distances=0)
    lost = query.new_zeros(query.shape[:2], dtype=exact)
    output = value.new_zeros((*query.shape[:-1], value.shape[-1]))
    weights = query.new_zeros((*query.shape[:-1], query.shape[2]), dtype=torch.float32) if keep_weights else None
    with torch.no_grad():
        for block in blocks(rule, request):
            if sink is not None:
                block, share = _beside_sink(block, sink)
                lost += share.sum(-1)
            sums.add(block)
            for columns, part in block.pieces():
                output[:, :, block.rows] += part.to(value.dtype) @ value[:, :, columns]
                if weights is not None:
                    weights[:, :, block.rows, columns] = part
        found = sums.finish()
    return output, summary(
        call, found.received, found.entropy, found.own[..., 0], lost / query.shape[2], min_queries, weights
    )


def _beside_sink(block: Block, sink: Tensor) -> tuple[Block, Tensor]:
    """Rows of weights that leave their share to a learned logit, and that share (batch, heads, rows)."""
    share = torch.sigmoid(sink.to(block.weights.dtype)[:, None] - block.log_partition)
    return block._replace(weights=block.weights * (1.0 - share)[..., None]), share


def statistics_of(weights: Tensor, min_queries: int = 8, keep_weights: bool = False) -> HeadStatistics:
    """The same statistics of weights (batch, heads, T, T) that a model returned.

    A key counts as visible to a query when any head of any sequence gives it weight: in a single head a tiny weight may
    underflow to zero.
    """
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32))
    call = AttentionCall.of((exact > 0).flatten(0, 1).any(dim=0)[None, None], None, weights.shape[-1], weights.device)
    received, entropy = exact.sum(-2), torch.special.entr(exact).sum(-1)
    kept = exact.float() if keep_weights else None
    nothing = torch.zeros_like(exact[..., 0, 0])
    return summary(call, received, entropy, exact[..., 0, 0], nothing, min_queries, kept)


def summary(
    call: AttentionCall,
    received: Tensor,
    entropy: Tensor,
    first_own: Tensor,
    learned_sink: Tensor,
    min_queries: int,
    weights: Tensor | None,
) -> HeadStatistics:
    """Sums over weights in the units of the module's head."""
    length, visible_keys = received.shape[-1], call.visible_keys
    full = torch.full((length,), length, device=received.device)
    if call.causal:
        full = length - torch.arange(length, device=received.device)
    queries = call.visible_queries
    importance = received.float() / queries.clamp_min(1)
    # What is meant are the keys near the end, which few queries follow: in a narrow window no key has many.
    wanted = queries.amax(-1, keepdim=True).clamp_max(min_queries) if length >= min_queries else min_queries
    counted = importance.masked_fill(queries < wanted, -1.0)
    strongest = torch.where(counted.amax(-1) >= 0, counted.argmax(-1), -1)
    others = received[..., 0].float() - first_own.float()
    first = others / (length - 1)  # NaN where the first token is alone
    several = visible_keys > 1
    scaled = entropy.float() / torch.log(visible_keys.clamp_min(2).float())
    mean_entropy = (scaled * several).sum(-1) / several.sum(-1)
    return HeadStatistics(
        importance, received.float() / full, first, mean_entropy, strongest, learned_sink.float(), weights
    )
