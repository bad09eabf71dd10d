"""Sums over the weights of several branches of one block at once, and over whom each of them can reach."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from krause_dynamics.aggregate import Block
from krause_dynamics.checkpoints import own_attention
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_pass import Kept, Summing
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, summary
from krause_dynamics.interaction import Everyone, Interaction, Request

PAIRS = 1 << 22  # weights of one branch that are held at once


class Seen(NamedTuple):
    """One call of attention: its rule, its arrays, whether it is causal, and whether its score is a distance."""

    rule: Interaction
    request: Request
    causal: bool
    distance: bool


def statistics_of_block(
    calls: list[Seen], share: Tensor | None, names: list[str], min_queries: int
) -> dict[str, tuple[HeadStatistics, dict[str, Tensor]]]:
    """Statistics by branch and of all together, each with what even attention would give and with the gate.

    Args:
        calls: Of one block, one for each name.
        share: Of the gate, (b, T, branches), or None where there is one branch.
        names: Of the branches.
        min_queries: A key needs that many queries to be a strongest key.
    """
    request = calls[0].request
    (b, h, n, _), device = request.queries.shape, request.queries.device
    shares = torch.ones(b, n, 1, device=device) if share is None else share.to(device)
    sums = {name: _Sums(request, call.causal) for name, call in zip(names, calls, strict=True)}
    if len(names) > 1:
        sums["mixed"] = _Sums(request, all(call.causal for call in calls))
    size = max(1, PAIRS // (b * h * n))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        together: list[Tensor] = []
        for i, name in enumerate(names):
            g = shares[:, rows, i].to(request.queries.dtype)
            weights, even = (_rows(rule, r, rows) for rule, r in _both(calls[i]))
            sums[name].add(rows, weights, even, (even > 0).to(g.dtype), g)
            weighed = [g[:, None, :, None] * x for x in (weights, even, even > 0)]
            together = weighed if not together else [one + x for one, x in zip(together, weighed, strict=True)]
        if len(names) > 1:
            sums["mixed"].add(rows, together[0], together[1], together[2], shares[:, rows].sum(-1))
    return {name: found.finish(min_queries) for name, found in sums.items()}


def _both(call: Seen) -> tuple[tuple[Interaction, Request], tuple[Interaction, Request]]:
    """A call, and the one that hears evenly whom it can reach."""
    return (call.rule, call.request), own_attention.by_index(call.rule, call.request)


def _rows(rule: Interaction, request: Request, rows: slice) -> Tensor:
    """Rows of the weights, dense (b, h, rows, T); 0 where nobody is heard."""
    return own_attention.log_rows(rule, request, rows).softmax(-1).nan_to_num(0.0)


class _Sums:
    """Sums over rows of weights, and over who may be heard in them."""

    def __init__(self, request: Request, causal: bool) -> None:
        self.causal = causal
        self.sums = Summing(request, Kept(request.queries, keep_weights=False))
        self.keys: list[Tensor] = []
        self.first: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.queries = torch.zeros(
            request.queries.shape[:-1], dtype=request.queries.dtype, device=request.queries.device
        )

    def add(self, rows: slice, weights: Tensor, even: Tensor, seen: Tensor, share: Tensor) -> None:
        """Rows of weights and even weights (b, h, rows, T), how much of a query sees a key, and shares (b, rows)."""
        entropy = torch.special.entr(weights).sum(-1)
        block = Block(rows, (slice(0, weights.shape[-1]),), weights, entropy, torch.zeros_like(entropy))
        self.sums.add(block)
        self.keys.append((even > 0).sum(-1))
        self.first.append(even[..., 0])
        self.queries += seen.sum(-2)
        self.shares.append(share)

    def finish(self, min_queries: int) -> tuple[HeadStatistics, dict[str, Tensor]]:
        """Statistics; what even attention would give, and the gate."""
        first, share = torch.cat(self.first, -1), torch.cat(self.shares, -1)
        call = AttentionCall(Everyone(), None, torch.cat(self.keys, -1), self.queries, self.causal, first > 0)
        more = {
            "even_importance_first": first.sum(-1) / self.queries[..., 0],
            "even_first_token_score": first[..., 1:].mean(-1),
            "gate": share.mean(-1),
            "gate_spread": share.std(-1, correction=0),
        }
        return summary(call, self.sums.finish(), min_queries), more
