"""Recording attention that is ours: every call of a Krause rule, from a layer, a function or transformers' registry.

Such a call says itself which interaction it is, so nothing stands in for it: it is seen as it is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from krause_dynamics.aggregate import blocks
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_pass import Kept, summed
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, summary
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.lifting import lift
from krause_dynamics.interaction import (
    DotProduct,
    Everyone,
    Interaction,
    Neighbourhood,
    Request,
    TopK,
    Within,
    reference,
)
from krause_dynamics.nn import KrauseAttention
from krause_dynamics.nn.attention import WATCHERS


def is_ours(model: nn.Module) -> bool:
    """Whether a model's attention is ours: layers of it, or a function that transformers finds under a name."""
    for module in model.modules():
        if isinstance(module, KrauseAttention):
            return True
    name = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if name is None:
        return False
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function = ALL_ATTENTION_FUNCTIONS.get(name)
    return getattr(function, "__module__", "").startswith("krause_dynamics.nn.")


@contextmanager
def watching(
    running_block: Callable[[], int | None],
    told: Callable[[int, HeadStatistics], None],
    *,
    min_queries: int = 8,
    keep_weights: bool = False,
) -> Iterator[None]:
    """During the block, calls of this thread inside a model's blocks are told of: (block, statistics)."""
    with listening(running_block, lambda block, call: told(block, statistics_of_call(call, min_queries, keep_weights))):
        yield


@contextmanager
def listening(running_block: Callable[[], int | None], told: Callable[[int, Call], None]) -> Iterator[None]:
    """During the block, calls of this thread inside a model's blocks are told of as they are made: (block, call)."""
    thread = threading.get_ident()

    def seen(call: Call) -> None:
        block = running_block() if threading.get_ident() == thread else None
        if block is not None:
            told(block, call)

    WATCHERS.append(seen)
    try:
        yield
    finally:
        WATCHERS.remove(seen)


def lifted(call: Call) -> tuple[Interaction, Request]:
    """The interaction that a call is, and its arrays in float32 or better.

    Raises:
        UnsupportedModel: A sink takes its share after the call, or queries and keys differ in number.
    """
    if not call.mean_only:
        raise UnsupportedModel(
            "a call of Krause attention asks for its log-partition, as a learned sink does, and what becomes of the "
            "weights then is not seen; pass attention=None for the hidden states alone"
        )
    n, m = call.q.shape[2], call.k.shape[2]
    if n != m or call.offset:
        raise UnsupportedModel(f"attention from {n} queries to {m} keys: only attention of whole sequences is recorded")
    exact = torch.promote_types(call.q.dtype, torch.float32)
    return lift(call._replace(q=call.q.to(exact), k=call.k.to(exact), v=call.v.to(exact)))


def statistics_of_call(call: Call, min_queries: int, keep_weights: bool) -> HeadStatistics:
    """Statistics of one call of a rule; who is visible is a matter of index rules and masks, not of ranks.

    Raises:
        UnsupportedModel: As `lifted`.
    """
    with torch.no_grad():
        rule, request = lifted(call)
        sums = summed(rule, request, Kept(call.q, keep_weights))
        causal = call.reach.right == 0 or call.q.shape[2] == 1
        return summary(visible(rule, request, causal), sums, min_queries)


def mean_of_call(call: Call, values: Tensor) -> Tensor:
    """What a call would answer of other values (b, h, n, d), in blocks of rows; raises as `lifted`."""
    with torch.no_grad():
        rule, request = lifted(call)
        exact = values.to(request.queries.dtype)
        answer = exact.new_zeros(*request.queries.shape[:-1], exact.shape[-1])
        for block in blocks(rule, request):
            for columns, part in block.pieces():
                answer[:, :, block.rows] += part @ exact[:, :, columns]
        return answer


def weights_of_call(call: Call) -> Tensor:
    """The weights of one call (b, h, S, S), in float32 or better, 0 where a key is not heard; of windows: small.

    Raises:
        UnsupportedModel: As `lifted`.
    """
    with torch.no_grad():
        rule, request = lifted(call)
        return log_rows(rule, request, slice(0, request.queries.shape[-2])).softmax(-1).nan_to_num(0.0)


def visible(rule: Interaction, request: Request, causal: bool) -> AttentionCall:
    """Who may be heard by the index rules and masks of an interaction, whatever its score and its ranks."""
    keys: list[Tensor] = []
    first: list[Tensor] = []
    queries = torch.zeros(request.queries.shape[:-1], dtype=torch.long, device=request.queries.device)
    for block in blocks(*by_index(rule, request)):
        heard = block.weights > 0
        keys.append(heard.sum(-1))
        first.append(heard[..., 0] if block.columns[0].start == 0 else torch.zeros_like(heard[..., 0]))
        for columns, part in block.pieces():
            queries[..., columns] += (part > 0).sum(-2)
    return AttentionCall(Everyone(), None, torch.cat(keys, -1), queries, causal, torch.cat(first, -1), chosen=True)


def by_index(rule: Interaction, request: Request) -> tuple[Interaction, Request]:
    """The rule that hears evenly all who stand within its index rules and masks: no score, no rank, no radius."""
    heard: Neighbourhood = Everyone()
    for part in rule.parts:
        if not isinstance(part, TopK | Within):
            heard = heard & part
    alike = torch.zeros_like(request.queries[..., :1]), torch.zeros_like(request.sources[..., :1])
    mass, pair = (_absent(x) for x in (request.log_mass, rule.pair_bias))
    even = replace(request, queries=alike[0], sources=alike[1], values=alike[1], log_mass=mass)
    return Interaction(DotProduct(1.0), heard, pair_bias=pair), even


def _absent(logs: Tensor | None) -> Tensor | None:
    """-inf where log weights are, else 0."""
    return None if logs is None else torch.where(logs > -torch.inf, 0.0, -torch.inf).to(logs.dtype)


def log_rows(rule: Interaction, request: Request, rows: slice) -> Tensor:
    """Rows of log weights, dense (b, h, rows, T) and not normalised; -inf where a key is not heard."""
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    if rule.pair_bias is not None:
        bias = torch.as_tensor(rule.pair_bias, device=request.queries.device)
        rule = replace(rule, pair_bias=bias.expand(*bias.shape[:-2], n, m)[..., rows, :])
    found: Tensor = reference.log_weights(rule, request.rows(rows.start, rows.stop))
    return found
