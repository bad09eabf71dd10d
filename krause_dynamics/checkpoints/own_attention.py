"""Recording attention that is ours: every call of a Krause rule, from a layer, a function or transformers' registry.

Such a call says itself which interaction it is, so nothing stands in for it: it is seen as it is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from krause_dynamics.aggregate import Block
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_pass import Kept, summed
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, summary
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.lowering import lift
from krause_dynamics.interaction import Everyone
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
    thread = threading.get_ident()

    def seen(call: Call) -> None:
        block = running_block() if threading.get_ident() == thread else None
        if block is not None:
            told(block, statistics_of_call(call, min_queries, keep_weights))

    WATCHERS.append(seen)
    try:
        yield
    finally:
        WATCHERS.remove(seen)


def statistics_of_call(call: Call, min_queries: int, keep_weights: bool) -> HeadStatistics:
    """Statistics of one call of a rule; a key is visible to a query that gives it weight.

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
    rule, request = lift(call._replace(q=call.q.to(exact), k=call.k.to(exact), v=call.v.to(exact)))
    visible_keys: list[Tensor] = []
    sees_first: list[Tensor] = []
    visible_queries = torch.zeros((*call.q.shape[:2], n), dtype=torch.long, device=call.q.device)

    def seen(block: Block) -> Block:
        heard = block.weights > 0
        visible_keys.append(heard.sum(-1))
        sees_first.append(heard[..., 0] if block.columns[0].start == 0 else torch.zeros_like(heard[..., 0]))
        for columns, part in block.pieces():
            visible_queries[..., columns] += (part > 0).sum(-2)
        return block

    with torch.no_grad():
        sums = summed(rule, request, Kept(call.q, keep_weights), seen)
        causal = call.reach.right == 0 or n == 1
        visible = torch.cat(visible_keys, -1), visible_queries, causal, torch.cat(sees_first, -1)
        return summary(AttentionCall(Everyone(), None, *visible), sums, min_queries)
