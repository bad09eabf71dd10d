"""Attention sinks, entropy and distances of one attention call of a trained model, from sums over its weights.

With A the row-stochastic weights of T queries (rows, i) over T keys (columns, k), both counted from 0:

* importance  alpha_k = 1/n_k sum_{i} A_ik,  n_k the number of queries that can see key k: T - k under a causal mask
  (Gu et al. 2024, arXiv:2410.10781, section 3; alpha_0 includes query 0 itself, hence 1/T <= alpha_0 <= 1),
  min(W, T - k) in a window of W, T where all see all;
* published importance  the same with the divisor of full attention, T - k or T, whatever the window: the formula as
  published, which in a window measures its width as well;
* even importance  what alpha_0 would be if every query heard all keys that it can see alike: H_T/T under a causal mask
  (H_T the harmonic number), H_W/W in a window of W, 1/T where all see all: no sink, however large;
* first-token score  s = mean_{i >= 1} A_i0  (published code of Krause Attention), so alpha_0 = (1 + (T-1) s)/T under a
  causal mask;
* first by quarter  mean of A_i0 over the queries of each quarter of the sequence that can see key 0;
* entropy  mean over rows of  -sum_k A_ik ln A_ik / ln(keys visible to i), rows with one visible key left out;
* strongest key  argmax_k alpha_k  among keys with at least ``min_queries`` queries, or in a narrower window as many as
  any key has; -1 where there is none;
* self weight  mean over rows of A_ii;
* distance profile  mean over rows of the weight on keys |i - k| = o away, summed for o in [0, 1), [1, 2), [2, 4), ...;
  mean distance  sum_o o of the same, in tokens;
* head distance  |A_h - A_g|_F / sqrt(2 S) of the S sampled rows (of all rows where the maps are held): 0 where two
  heads agree, 1 where no row of theirs overlaps and each is on one key; top keys  the keys with most weight in each
  sampled row;
* score spread  standard deviation of ln A_ik over the keys that query i hears (which is that of the scores), mean over
  the sampled rows that hear at least 8, NaN where a weight of softmax is too small for its dtype and its score is lost;
  participation  sum_k A_ik^2, mean over the same rows;
* learned sink  mean over rows of the share that goes to a learned logit without a key (gpt-oss), or to padding inside
  windows of a picture (SAM): A_ik are the shares of the keys, which then sum to less than 1; their entropy is that of
  the keys among themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_call import QUARTERS, AttentionCall, quarters
from krause_dynamics.checkpoints.sampled_rows import of_rows, sampled_rows

# Lower ends of the bins of distances; the last one holds all that is farther.
DISTANCES = (0, *(1 << power for power in range(18)))
PARTS = 16  # of a row that a GPU multiplies at once, where one after the other would leave it idle


class WeightSums(NamedTuple):
    """Sums over the weights of one block, b sequences of T tokens.

    Attributes:
        received: Mass of every key from the queries of each quarter, (b, heads, 4, T).
        entropy: Of every row in nats, (b, heads, T).
        own: Weight of every query on itself, (b, heads, T).
        distance_profile: Weight in the bins of `DISTANCES`, mean over rows, (b, heads, bins).
        mean_distance: sum_k A_ik |i - k|, mean over rows, (b, heads).
        sampled: Rows `sampled_rows` of the weights, (b, heads, S, T).
        learned_sink: Mean share of a learned logit, (b, heads).
        weights: A (b, heads, T, T) where it was asked for.
    """

    received: Tensor
    entropy: Tensor
    own: Tensor
    distance_profile: Tensor
    mean_distance: Tensor
    sampled: Tensor
    learned_sink: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class HeadStatistics:
    """Statistics of one block on a batch of sequences of one length T.

    Attributes:
        importance: alpha_k, shape (batch, heads, T).
        published_importance: Likewise, divided as for full attention.
        even_importance_first: Shape (batch, heads).
        first_token_score: Shape (batch, heads); NaN for T = 1.
        entropy: In units of ln(visible keys), shape (batch, heads); NaN when every row sees one key.
        strongest_key: Shape (batch, heads), whole numbers.
        learned_sink: Shape (batch, heads); 0 where the model has none.
        first_by_quarter: Shape (batch, heads, 4); NaN where no query of a quarter sees the first key.
        self_weight: Shape (batch, heads).
        mean_distance: In tokens, shape (batch, heads).
        distance_profile: Shape (batch, heads, bins), see `DISTANCES`; sums to 1.
        head_distance: Shape (batch, heads, heads), in [0, 1].
        top_keys: Keys of the sampled rows, most weight first, (batch, heads, S, 8); -1 beyond those that have any.
        score_spread: Shape (batch, heads); NaN where no sampled row hears 8 keys, or where weights underflow.
        participation: Shape (batch, heads); NaN where no sampled row hears 8 keys.
        weights: A itself (batch, heads, T, T) when it was asked for, else None.
    """

    importance: Tensor
    published_importance: Tensor
    even_importance_first: Tensor
    first_token_score: Tensor
    entropy: Tensor
    strongest_key: Tensor
    learned_sink: Tensor
    first_by_quarter: Tensor
    self_weight: Tensor
    mean_distance: Tensor
    distance_profile: Tensor
    head_distance: Tensor
    top_keys: Tensor
    score_spread: Tensor
    participation: Tensor
    weights: Tensor | None = None

    def nothing(self) -> HeadStatistics:
        """Of a block without attention, beside this one: NaN, -1 for the key."""
        blank: dict[str, Any] = {
            field.name: None if (x := getattr(self, field.name)) is None else torch.full_like(x, torch.nan)
            for field in fields(self)
            if field.name not in ("strongest_key", "top_keys")
        }
        keys = {name: torch.full_like(getattr(self, name), -1) for name in ("strongest_key", "top_keys")}
        return HeadStatistics(**blank, **keys)


def sink_rate(importance_of_key: Tensor, eps: Tensor) -> Tensor:
    """Sink_k^eps = 100 * mean over sequences of [alpha_k > eps], strictly, thresholded per sequence and then averaged.

    Args:
        importance_of_key: alpha_k of one key, shape (sequences, ...).
        eps: Thresholds, shape (e,).

    Returns:
        Per cent, shape (..., e). Averaging alpha over sequences before the threshold would be another, higher number.
    """
    return 100.0 * (importance_of_key[..., None] > eps).to(torch.float64).mean(dim=0)


def statistics_of(weights: Tensor, min_queries: int = 8, keep_weights: bool = False) -> HeadStatistics:
    """The same statistics of weights (batch, heads, T, T) that a model returned.

    A key counts as visible to a query when any head of any sequence gives it weight: in a single head a tiny weight may
    underflow to zero.
    """
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32))
    length, device = weights.shape[-1], weights.device
    call = AttentionCall.of((exact > 0).flatten(0, 1).any(dim=0)[None, None], None, length, device)
    members = torch.nn.functional.one_hot(quarters(length, device), QUARTERS).to(exact.dtype)
    profile = torch.stack([exact.diagonal(-o, -2, -1).sum(-1) for o in range(1 - length, length)], -1)
    bins, mean_distance = by_distance(profile, length)
    sums = WeightSums(
        received=members.mT @ exact,
        entropy=torch.special.entr(exact).sum(-1),
        own=exact.diagonal(dim1=-2, dim2=-1),
        distance_profile=bins,
        mean_distance=mean_distance,
        sampled=exact[..., sampled_rows(length, device), :],
        learned_sink=torch.zeros_like(exact[..., 0, 0]),
        weights=exact.float() if keep_weights else None,
    )
    return summary(call, sums, min_queries)


def summary(call: AttentionCall, sums: WeightSums, min_queries: int) -> HeadStatistics:
    """Sums over weights in the units of the module's head."""
    received = sums.received.sum(-2).float()
    length, queries = received.shape[-1], call.visible_queries
    importance = received / queries.clamp_min(1)
    # What is meant are the keys near the end, which few queries follow: in a narrow window no key has many.
    wanted = queries.amax(-1, keepdim=True).clamp_max(min_queries) if length >= min_queries else min_queries
    counted = importance.nan_to_num(-1.0).masked_fill(queries < wanted, -1.0)  # NaN: was not looked at
    strongest = counted.max(-1)
    rows = None if call.chosen else call.visible_keys[..., sampled_rows(length, queries.device)]
    keys, spread, participation = of_rows(sums.sampled, rows)
    return HeadStatistics(
        importance=importance,
        published_importance=received / call.full_queries,
        even_importance_first=call.even_first.float().expand(received.shape[:2]),
        # NaN where the first token is alone
        first_token_score=(received[..., 0] - sums.own[..., 0].float()) / (length - 1),
        entropy=(sums.entropy.float() * call.entropy_weights).sum(-1),
        strongest_key=torch.where(strongest.values >= 0, strongest.indices, -1),
        learned_sink=sums.learned_sink.float(),
        first_by_quarter=_first_by_quarter(sums.received, call.seeing_first),
        self_weight=sums.own.float().mean(-1),
        mean_distance=sums.mean_distance,
        distance_profile=sums.distance_profile,
        head_distance=_head_distance(sums.sampled if sums.weights is None else sums.weights),
        top_keys=keys,
        score_spread=spread,
        participation=participation,
        weights=sums.weights,
    )


def _first_by_quarter(received: Tensor, seeing: Tensor) -> Tensor:
    """Mean weight of key 0 over the queries of each quarter that see it, so many of each."""
    groups = received.shape[-2]  # fewer than four in a shorter sequence
    mean = received[..., 0].float() / seeing[..., :groups]  # 0/0 where nobody sees it
    return torch.nn.functional.pad(mean, (0, QUARTERS - groups), value=torch.nan)


def by_distance(profile: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Weight in the bins of `DISTANCES`, and its mean distance; both means over rows.

    Args:
        profile: Sums over pairs i - k = o, (b, heads, 2 T - 1) from o = -(T - 1) on.
        length: T.
    """
    away = (torch.arange(2 * length - 1, device=profile.device) - (length - 1)).abs()
    place = torch.bucketize(away, torch.tensor(DISTANCES, device=profile.device), right=True) - 1
    bins = profile.new_zeros(*profile.shape[:-1], len(DISTANCES)).index_add_(-1, place, profile)
    return bins.float() / length, ((profile.double() * away).sum(-1) / length).float()


def _head_distance(sampled: Tensor) -> Tensor:
    """(b, heads, heads); in float64, where the squares of equal heads cancel."""
    rows = sampled.transpose(1, 2).double()  # by row: a GPU multiplies many small matrices at once, and not a long one
    parts = math.gcd(rows.shape[-1], PARTS) if rows.device.type == "cuda" else 1
    rows = rows.unflatten(-1, (parts, -1)).transpose(-2, -3)
    gram = (rows @ rows.mT).sum((1, 2))
    norms = gram.diagonal(dim1=-2, dim2=-1)
    squared = norms[..., None] + norms[..., None, :] - 2 * gram
    distance = (squared.clamp_min(0) / (2 * sampled.shape[-2])).sqrt().float()
    distance.diagonal(dim1=-2, dim2=-1).zero_()
    return distance
