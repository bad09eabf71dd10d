"""The mask of a model of transformers as an index rule: read, not replaced, and not written out where it need not be.

transformers describes a mask by functions of (batch, head, query, key) and lets the mask function of the attention
implementation write it out. Ours keeps the description: a causal or sliding window is a `Reach`, packed rows and chunks
are cumulative lengths, padding is one row of booleans, and the place of the first query among the keys is known even
where a static cache is longer than what it holds. What has no such form is written out, in O(N^2).

A compiler cannot look into functions. It is told by their names and by what stands beside them, which is enough for
causal and sliding masks with padding; chunks, packed rows and queries at places that a tensor tells are written out.
Where a CUDA graph is captured functions are read as ever, values are not: padding stays padding even if there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from krause_dynamics._array import may_wait
from krause_dynamics.nn.huggingface.mask_functions import Function, IndexRule, Place, read_rule, told_reach


class PairMask(Tensor):
    """Boolean (batch, 1, n, m) mask that is held as an `IndexRule`, and written out for whoever computes with it."""

    rule: IndexRule
    write: Callable[[], Tensor]

    @staticmethod
    def of(shape: tuple[int, ...], device: Any, rule: IndexRule, write: Callable[[], Tensor]) -> PairMask:
        """A mask of this shape that means the rule; ``write`` writes it out."""
        mask: PairMask = Tensor._make_wrapper_subclass(PairMask, shape, dtype=torch.bool, device=device)
        mask.rule, mask.write = rule, write
        return mask

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return PairMask.of(tuple(args[0].shape), args[0].device, args[0].rule, args[0].write)
        args, kwargs = tree_map_only(PairMask, lambda mask: mask.write(), (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PairMask({tuple(self.shape)}, {self.rule})"


def pair_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Function | None = None,
    attention_mask: Tensor | None = None,
    device: Any = "cpu",
    **rest: Any,
) -> Tensor | IndexRule:
    """Mask function of transformers, for `AttentionMaskInterface`: the model's own mask, as an index rule if it is one.

    Args:
        batch_size: Number of sequences.
        q_length: Number of queries.
        kv_length: Number of keys that the cache will hand over, unused places of a static one included.
        q_offset: Place of the first query.
        kv_offset: Place of the first key.
        mask_function: Who may hear whom; causal if missing.
        attention_mask: (batch, tokens seen) booleans, false for padding.
        device: Of the mask.
        **rest: What other implementations need.

    Returns:
        Boolean (batch, 1, n, m), true for pairs that count, as a `PairMask` if it is a rule; while compiling, the
        `IndexRule` itself, which models hand on as they do a `BlockMask`.
    """
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    mask_function = causal_mask_function if mask_function is None else mask_function
    write = partial(
        sdpa_mask, batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
        kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask, device=device,
        **{**rest, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False},
    )  # fmt: skip
    if torch.compiler.is_compiling():
        told = None if isinstance(q_offset, Tensor) else told_reach(mask_function, rest)
        if told is None:
            return _written(write)
        place = Place(q_length, kv_length, q_offset, kv_offset)
        return IndexRule(told, key_valid=_within(attention_mask, place), offset=q_offset - kv_offset)
    if (
        _is_recorded(attention_mask)
        or _is_recorded(q_offset)
        or (isinstance(q_offset, Tensor) and not may_wait(q_offset))
    ):
        return _written(write)
    place = Place(q_length, kv_length, int(q_offset), int(kv_offset))
    found = read_rule(mask_function, place)
    if found is None:
        return _written(write)
    rule = found._replace(key_valid=_valid(attention_mask, place), offset=place.first_query - place.first_key)
    return PairMask.of((batch_size, 1, q_length, kv_length), device, rule, partial(_written, write))


def say_everyone(mask: Tensor) -> Tensor:
    """A mask (batch, tokens) of ones, marked as such for whoever may not look at its values."""
    if not torch.compiler.is_compiling():
        mask._krause_everyone = True  # type: ignore[attr-defined]
    return mask


def _is_recorded(x: Any) -> bool:
    """Whether operations on x are recorded to be run again by others; a CUDA graph runs the same kernels again."""
    from transformers.utils.import_utils import is_fake_tensor, is_jit_tracing, is_torch_fx_proxy

    return bool(is_jit_tracing() or is_torch_fx_proxy(x) or is_fake_tensor(x))


def _written(write: Callable[[], Tensor | None]) -> Tensor:
    mask = write()
    assert mask is not None
    return mask


def _valid(attention_mask: Tensor | None, place: Place) -> Tensor | None:
    """Which keys are no padding, (batch, m); ``None``: all."""
    if getattr(attention_mask, "_krause_everyone", False):
        return None
    valid = _within(attention_mask, place)
    return None if valid is None or (may_wait(valid) and bool(valid.all())) else valid


def _within(attention_mask: Tensor | None, place: Place) -> Tensor | None:
    """A mask of all tokens as one of the keys, (batch, m)."""
    if attention_mask is None:
        return None
    valid = attention_mask[:, place.first_key : place.first_key + place.keys].to(torch.bool)
    return torch.nn.functional.pad(valid, (0, place.keys - valid.shape[1]))
