"""Recording attention that a module of somebody's own asks torch for, as it is asked.

Every ``scaled_dot_product_attention`` says itself which interaction it is: scale, mask, causality. So does
``nn.MultiheadAttention``, which projects first and then calls it, or, asked for weights, does the same by hand; then it
is asked once more without them, so that its own projections are seen, and the answer stays its own.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_pass import attend
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction.reach import Reach

SDPA, PROJECTED = functional.scaled_dot_product_attention, functional.multi_head_attention_forward
_PROJECTED = inspect.signature(PROJECTED)


class _Listener(TorchFunctionMode):
    """Is asked for every function of torch of this thread, tells of attention, and answers as torch does."""

    def __init__(self, seen: Callable[..., None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is SDPA:
            self.seen(*args, **kwargs)
        if func is not PROJECTED:
            return func(*args, **kwargs)
        asked = _PROJECTED.bind(*args, **kwargs).arguments
        weights = asked.get("need_weights", True)
        # Asked for weights, torch takes the mask as it is; else a hint of causality goes before the mask.
        shown = asked | {"need_weights": False} | ({"is_causal": False} if weights else {})
        with _asking(self.seen):
            answer = func(**shown)
        return func(*args, **kwargs) if weights else answer


@contextmanager
def _asking(seen: Callable[..., None]) -> Iterator[None]:
    """Inside, what torch's own functions ask of each other in this thread is told of."""
    thread = threading.get_ident()

    def asked(*args: Any, **kwargs: Any) -> Tensor:
        if threading.get_ident() == thread:
            seen(*args, **kwargs)
        answer: Tensor = SDPA(*args, **kwargs)
        return answer

    functional.scaled_dot_product_attention = asked  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = SDPA


def _arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    """The arguments of torch's function, which is compiled and has no signature of its own."""
    return locals()


@contextmanager
def listening(running_block: Callable[[], int | None], told: Callable[[int, dict[str, Any]], None]) -> Iterator[None]:
    """During the block, attention of torch inside a model's blocks is told of: (block, its arguments)."""

    def seen(*args: Any, **kwargs: Any) -> None:
        block = running_block()
        if block is not None:
            told(block, _arguments(*args, **kwargs))

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # there whole blocks are one function, in which nothing is seen
    try:
        with _Listener(seen):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def watching(
    running_block: Callable[[], int | None],
    told: Callable[[int, HeadStatistics], None],
    *,
    min_queries: int = 8,
    keep_weights: bool = False,
) -> Iterator[None]:
    """During the block, calls of attention of torch are told of: (block, statistics)."""

    def seen(block: int, call: dict[str, Any]) -> None:
        with torch._C.DisableTorchFunction():
            told(block, statistics_of_call(call, min_queries, keep_weights))

    with listening(running_block, seen):
        yield


def statistics_of_call(call: dict[str, Any], min_queries: int, keep_weights: bool) -> HeadStatistics:
    """Statistics of one call of ``scaled_dot_product_attention``, by its arguments.

    Raises:
        UnsupportedModel: Queries and keys that differ in number, or dropout, under which no two passes agree.
    """
    value = four_axes(call["value"])
    return _attended(call, value, min_queries=min_queries, keep_weights=keep_weights)[1]


def mean_of_call(call: dict[str, Any], values: Tensor) -> Tensor:
    """What a call would answer of other values (batch, heads, T, d); raises as `statistics_of_call`."""
    return _attended(call, values)[0]


def _attended(call: dict[str, Any], value: Tensor, **options: Any) -> tuple[Tensor, HeadStatistics]:
    query, key = four_axes(call["query"]), four_axes(call["key"])
    n, m = query.shape[2], key.shape[2]
    if n != m:
        raise UnsupportedModel(
            f"attention from {n} queries to {m} keys: only attention of a whole sequence to itself is recorded; pass "
            "attention=None for the hidden states alone"
        )
    if call["dropout_p"] > 0:
        raise UnsupportedModel(
            f"attention with dropout_p={call['dropout_p']} where the model is evaluated, so that its weights are "
            "random; pass dropout_p=self.p if self.training else 0.0"
        )
    if not call["enable_gqa"]:
        key, value = key.expand(*query.shape[:2], -1, -1), value.expand(*query.shape[:2], -1, -1)
    elif value.shape[1] != key.shape[1]:  # those of every head
        key = key.repeat_interleave(value.shape[1] // key.shape[1], 1)
    mask, read = call["attn_mask"], AttentionCall.of
    if call["is_causal"]:
        mask, read = None, partial(_causal, n)
    elif mask is not None and mask.ndim == 3 and call["query"].ndim == 3:
        mask = mask[:, None]
    with torch.no_grad():
        return attend(query, key, value, mask, call["scale"], read=read, **options)


def as_call(call: dict[str, Any]) -> Call:
    """A call within windows (batch, heads, S, d) as one of ours, whose weights are the definition's.

    Raises:
        UnsupportedModel: A call that is causal, of grouped keys or with dropout, as attention within windows is not.
    """
    query, key, value, mask = (*(four_axes(call[name]) for name in ("query", "key", "value")), call["attn_mask"])
    if call["is_causal"] or call["enable_gqa"] or call["dropout_p"] > 0:
        raise UnsupportedModel(
            "attention within windows that is causal, of grouped keys or with dropout is not recorded; pass "
            "attention=None for the hidden states alone"
        )
    scale = query.shape[-1] ** -0.5 if call["scale"] is None else call["scale"]
    if mask is not None:
        exact = torch.promote_types(query.dtype, torch.float32)
        admitted = mask.dtype == torch.bool
        mask = mask.new_zeros(mask.shape, dtype=exact).masked_fill(~mask, -torch.inf) if admitted else mask.to(exact)
    return Call(query, key, value, scale, False, Reach(), pair_bias=mask, mean_only=True)


def _causal(length: int, mask: Any, bias: Any, tokens: int, device: torch.device) -> AttentionCall:
    return AttentionCall.of_window(None, length, device)


def four_axes(x: Tensor) -> Tensor:
    """(batch, heads, T, d); of three axes one head."""
    if x.ndim not in (3, 4):
        raise UnsupportedModel(f"attention over arrays of shape {tuple(x.shape)}, not (batch, heads, T, d)")
    return x if x.ndim == 4 else x[:, None]
