"""Recording attention through the registry of ``transformers``, whatever attention the model was loaded with.

An attention function of our own, registered **with** a mask function, stands in for the model's softmax attention in
one forward pass: without a mask function transformers would hand over no mask, and a decoder would silently become
bidirectional. The configuration is restored in any case, because transformers shares and mutates it.

A model may serve other threads meanwhile. Whoever records holds the model's lock; a forward pass of a thread that does
not record goes through the same function and gets the attention it would have had.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_call import AttentionCall, Remembered
from krause_dynamics.checkpoints.attention_pass import attend_later
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn.huggingface import options as table
from krause_dynamics.nn.huggingface.attend import attend as softmax_attend
from krause_dynamics.nn.huggingface.rules import LayerRule

NAME = "krause_dynamics_record"
ADDITIVE = f"{NAME}_additive"  # of models whose own attention is eager: masks are numbers to add
# Implementations that compute plain softmax attention, so that ours may stand in for them.
_SOFTMAX = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
# What `attend` of the recorder computes; the table of all options is that of nn.huggingface.
_SERVED = frozenset({"dropout", "is_causal", "output_attentions", "position_bias", "s_aux", "scaling", "softcap"})


class AttentionRecorder:
    """Hands on the statistics of attention calls, with the block they were made in: (block, found).

    As they are made, or with ``later`` when `finish` is called.
    """

    def __init__(
        self,
        running_block: Callable[[], int | None],
        told: Callable[[int, HeadStatistics], None],
        *,
        min_queries: int = 8,
        keep_weights: bool = False,
        sink_only: bool = False,
        later: bool = False,
    ) -> None:
        self.running_block = running_block
        self.told = told
        self.min_queries = min_queries
        self.keep_weights = keep_weights
        self.sink_only = sink_only
        self.later = later
        self.masks = Remembered()
        self._waiting: list[tuple[int, Callable[[], HeadStatistics]]] = []

    def attention(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module of the model, with its statistics handed on."""
        check_options(module, query, key, mask, options)
        output, statistics = attend_later(
            query,
            key,
            value,
            mask,
            options.get("scaling"),
            softcap=options.get("softcap"),
            bias=options.get("position_bias"),
            sink=options.get("s_aux"),
            min_queries=self.min_queries,
            keep_weights=self.keep_weights,
            sink_only=self.sink_only,
            read=self.masks,
        )
        block = self.running_block()
        if block is not None:
            self._waiting.append((block, statistics))
        if not self.later:
            self.finish()
        return output.transpose(1, 2).contiguous(), None

    def finish(self) -> None:
        """Hand on the statistics of the calls that wait for it, each once: at the end of a block."""
        waiting, self._waiting = self._waiting, []
        for block, statistics in waiting:
            self.told(block, statistics())


_active: ContextVar[AttentionRecorder | None] = ContextVar("active", default=None)


def check_options(
    module: torch.nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> None:
    """Refuse what would change the weights unseen.

    Raises:
        UnsupportedModel: If no mask came although attention may be causal, queries and keys differ in number, or the
            model passes an option with a meaning of its own.
    """
    who = type(module).__name__
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if mask is None and causal and query.shape[2] > 1:
        raise UnsupportedModel(
            f"{who} passed no attention mask although its attention is causal: the mask would be lost. Load the model "
            "with attn_implementation='eager' and pass attention='eager'"
        )
    if query.shape[2] != key.shape[2]:
        raise UnsupportedModel(
            f"{who} attends from {query.shape[2]} queries to {key.shape[2]} keys: only self-attention "
            "of a whole sequence is recorded"
        )
    if mask is not None and mask.shape[-2] not in (1, query.shape[2]):
        raise UnsupportedModel(
            f"{who} attends within windows of a picture: what is recorded is attention of whole sequences; pass "
            "attention=None for the hidden states alone"
        )
    table.check(module, options, _SERVED, "pass attention=None for the hidden states alone")


def _recording_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    recorder = _active.get()
    if recorder is None:  # a pass of another thread goes on as if nobody recorded
        out, _ = softmax_attend(LayerRule(), module, query, key, value, attention_mask, options)
        return out, None
    return recorder.attention(module, query, key, value, attention_mask, **options)


def _whole_mask(**arguments: Any) -> Tensor | None:
    """The mask as booleans (batch, 1, T, T), always written out.

    Where transformers would leave it out, because it is plainly causal and nothing is padding, that is remembered, so
    that nobody need read T^2 entries.
    """
    from transformers.masking_utils import sdpa_mask

    arguments["allow_is_bidirectional_skip"] = False
    mask = sdpa_mask(**arguments)
    if mask is not None:
        return mask
    mask = sdpa_mask(**{**arguments, "allow_is_causal_skip": False, "attention_mask": None})
    recorder = _active.get()
    if recorder is not None and mask is not None and mask.shape[-2] == mask.shape[-1]:
        recorder.masks.add(mask, AttentionCall.of_window(None, mask.shape[-1], mask.device))
    return mask


def _additive_mask(**arguments: Any) -> Tensor | None:
    """The same as numbers to add, as eager attention is given it: 0, or the least number where a key is not heard.

    A model may read its mask for more than attention (experts that leave padding out), and True is no 0.
    """
    admitted = _whole_mask(**arguments)
    if admitted is None:
        return None
    dtype = arguments.get("dtype", torch.float32)
    mask = torch.zeros(admitted.shape, dtype=dtype, device=admitted.device)
    return mask.masked_fill_(~admitted, torch.finfo(dtype).min)


def refusal(model: Any) -> str | None:
    """None if attention can be recorded through the registry, otherwise the reason why it cannot."""
    for part in _parts(model):
        name = part.config._attn_implementation
        if name is not None and name not in _SOFTMAX:
            return f"{type(part).__name__} runs the attention {name!r}, which is not plain softmax attention"
        if not part._can_set_attn_implementation():
            return (
                f"{type(part).__name__} has attention code of its own, outside the attention registry of transformers"
            )
    return None


_locks: WeakKeyDictionary[torch.nn.Module, threading.RLock] = WeakKeyDictionary()
_all_locks = threading.Lock()


def lock(model: torch.nn.Module) -> threading.RLock:
    """The lock of whoever records a model; one at a time."""
    with _all_locks:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def recording(model: Any, recorder: AttentionRecorder) -> Iterator[None]:
    """During the block, attention of ``model`` goes through ``recorder``; afterwards everything is as before."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, mask in ((NAME, _whole_mask), (ADDITIVE, _additive_mask)):
        AttentionInterface.register(name, _recording_attention)
        AttentionMaskInterface.register(name, mask)
    token = _active.set(recorder)
    try:
        with attention_implementation(model, NAME, eager=ADDITIVE):
            yield
    finally:
        _active.reset(token)


@contextmanager
def attention_implementation(model: Any, name: str, *, eager: str | None = None) -> Iterator[None]:
    """Set the attention implementation of a model and all its parts, and restore every configuration afterwards.

    Args:
        model: The model.
        name: The implementation.
        eager: That of parts whose own one is eager; None: the same.
    """
    # Also the configurations that attention modules alone hold, where a model's own was replaced after it was built.
    configs: dict[int, Any] = {}
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            configs[id(config)] = config
    before = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        for config, own in before:
            config._attn_implementation_internal = eager if eager is not None and own == "eager" else name
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _parts(model: Any) -> list[Any]:
    from transformers import PreTrainedModel as Base

    return [part for part in model.modules() if isinstance(part, Base)]
