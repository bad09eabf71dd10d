"""Attention of a decoder to what its encoder read: sinks, entropy, mass and place of the sources.

With A the row-stochastic weights of T queries (tokens of the decoder, rows, i) over S sources (tokens of the encoder,
columns, k), all of which every query sees:

* importance  alpha_k = 1/T sum_i A_ik,  which sums to 1 over the sources; 1/S where attention is even;
* entropy  mean over rows of  -sum_k A_ik ln A_ik / ln S;  participation  mean over rows of  sum_k A_ik^2;
* place by quarter  mean of  sum_k k A_ik / (S - 1)  over the queries of each quarter of the decoder's tokens: 0 looks
  at the first source, 1 at the last; a decoder that reads along, as of speech, climbs from 0 to 1;
* top sources  those with most weight in each sampled row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.aggregate import blocks
from krause_dynamics.checkpoints.attention_call import QUARTERS, quarters, split_mask
from krause_dynamics.checkpoints.attention_statistics import sink_rate
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.sampled_rows import largest_keys, sampled_rows
from krause_dynamics.interaction import DotProduct, Everyone, Interaction, Request

WHICH = ("first", "last", "strongest")  # sources whose sink rates are told


@dataclass(frozen=True)
class CrossStatistics:
    """Of one block, b pairs of one length each.

    Attributes:
        importance: alpha_k, (b, heads, S).
        entropy: In units of ln S, (b, heads); NaN where S = 1.
        participation: (b, heads).
        place_by_quarter: (b, heads, 4), in [0, 1]; NaN where S = 1 or a quarter holds no query.
        top_sources: Sources of the sampled rows, most weight first, (b, heads, R, 8); -1 beyond those that have any.
    """

    importance: Tensor
    entropy: Tensor
    participation: Tensor
    place_by_quarter: Tensor
    top_sources: Tensor


def attend_across(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, bias: Tensor | None
) -> tuple[Tensor, CrossStatistics]:
    """Softmax attention of T queries to S sources with its statistics; memory O(T + S) beside a block of rows.

    Args:
        query: (b, heads, T, d).
        key: (b, key heads, S, d), key heads dividing heads.
        value: (b, key heads, S, dv).
        mask: As of `attention_pass.attend`; every source of the pairs is heard.
        scaling: Multiplies the scores; None = d^(-1/2).
        bias: Added to the scores, broadcasting against (b, heads, T, S).

    Raises:
        ValueError: A source that is masked: padding, which has no place among the pairs.
    """
    exact, group = torch.promote_types(query.dtype, torch.float32), query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    if mask is not None:
        admitted, additive = split_mask(mask[..., : key.shape[2]])
        if not bool(admitted.all()):
            raise ValueError("a query does not see all that the encoder read; leave padding out of the sequences")
        bias = additive if bias is None else bias if additive is None else bias + additive
    beta = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Interaction(DotProduct(beta), Everyone(), pair_bias=None if bias is None else bias.to(exact))
    request = Request.of(query.to(exact), key.to(exact))
    output, sums = value.new_zeros((*query.shape[:-1], value.shape[-1])), _Sums(query, key)
    with torch.no_grad():
        for block in blocks(rule, request):
            output[:, :, block.rows] = block.weights.to(value.dtype) @ value
            sums.add(block.rows, block.weights, block.entropy)
        return output, sums.finish()


class _Sums:
    """Over rows of weights."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        (b, h, self.queries, _), self.sources = query.shape, key.shape[2]
        zeros = partial(torch.zeros, dtype=torch.float64, device=query.device)
        self.received, self.entropy = zeros(b, h, self.sources), zeros(b, h)
        self.squares, self.places = zeros(b, h), zeros(b, h, self.queries)
        self.wanted = sampled_rows(self.queries, query.device)
        self.sampled = zeros(b, h, len(self.wanted), self.sources)

    def add(self, rows: slice, weights: Tensor, entropy: Tensor) -> None:
        """Weights (b, h, rows, S) and their entropies."""
        self.received += weights.sum(-2)
        self.entropy += entropy.sum(-1)
        self.squares += weights.square().sum(-1).sum(-1)
        where = torch.arange(self.sources, device=weights.device, dtype=weights.dtype)
        self.places[..., rows] = (weights @ where).to(self.places.dtype)
        inside = (self.wanted >= rows.start) & (self.wanted < rows.stop)
        self.sampled[:, :, inside] = weights[:, :, self.wanted[inside] - rows.start].to(self.sampled.dtype)

    def finish(self) -> CrossStatistics:
        """The means."""
        several = self.sources > 1
        members = torch.nn.functional.one_hot(quarters(self.queries, self.places.device), QUARTERS).to(self.places)
        place = self.places @ members / members.sum(0) / (self.sources - 1 if several else torch.nan)
        entropy = self.entropy / self.queries / (np.log(self.sources) if several else torch.nan)
        return CrossStatistics(
            importance=(self.received / self.queries).float(),
            entropy=entropy.float(),
            participation=(self.squares / self.queries).float(),
            place_by_quarter=place.float(),
            top_sources=largest_keys(self.sampled),
        )


def rates(importance: np.ndarray, lengths: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Per cent of pairs in which the first, the last and the strongest source receive more than eps.

    Args:
        importance: (pairs, blocks, heads, longest), NaN beyond the sources of a pair.
        lengths: Sources of each pair.
        eps: Thresholds.

    Returns:
        (3, blocks, heads, eps).
    """
    last = np.take_along_axis(importance, (lengths - 1)[:, None, None, None], -1)[..., 0]
    chosen = (importance[..., 0], last, np.nanmax(importance, -1))
    return np.stack([sink_rate(torch.from_numpy(x.astype(np.float64)), torch.from_numpy(eps)).numpy() for x in chosen])


def _of(name: str, long_name: str, formula: Any, *further: str) -> Measure:
    return Measure(name, ("sequence", "block", "head", *further), long_name, "attention", formula)


MEASURES = (
    _of("importance", "attention that a source receives (alpha_k)", lambda found: found.importance, "source"),
    _of("importance_first", "attention that the first source receives", lambda found: found.importance[..., 0]),
    _of("importance_last", "attention that the last source receives", lambda found: found.importance[..., -1]),
    _of("strongest_source", "source that receives most attention", lambda found: found.importance.argmax(-1)),
    _of("strongest_importance", "attention that it receives", lambda found: found.importance.amax(-1)),
    _of("entropy", "entropy of attention in units of ln(sources)", lambda found: found.entropy),
    _of("participation", "sum of the squared weights of a row", lambda found: found.participation),
    _of(
        "place_by_quarter",
        "mean place of what is heard, 0 (first source) to 1 (last), by quarter of the decoder's tokens",
        lambda found: found.place_by_quarter,
        "quarter",
    ),
    _of(
        "top_sources",
        "sources with most weight in sampled rows (-1 = none)",
        lambda found: found.top_sources,
        "row",
        "place",
    ),
)
