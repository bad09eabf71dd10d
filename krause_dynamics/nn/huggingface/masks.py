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

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from krause_dynamics._array import may_wait
from krause_dynamics.interaction.reach import Reach

Function = Callable[..., Any]


class Place(NamedTuple):
    """Where the queries stand: numbers of queries and keys, and the places of the first of each."""

    queries: int
    keys: int
    first_query: int
    first_key: int

    @property
    def is_square(self) -> bool:
        """Whether queries are the keys."""
        return self.queries == self.keys and self.first_query == self.first_key


class IndexRule(NamedTuple):
    """A mask in whole numbers.

    Attributes:
        reach: Who is heard by index.
        segments: Cumulative lengths of packed sequences, or ``None``.
        key_valid: (batch, m) booleans, false for padding, or ``None``.
        offset: Place of the first query among the keys; ``None``: the queries are the last of them.
        chunked: Whether the segments are pieces of one sequence, not sequences.
        rows: How many rows of the batch the segments cover, one behind the other; 1: they are those of each row.
    """

    reach: Reach = Reach()
    segments: Tensor | None = None
    key_valid: Tensor | None = None
    offset: int | None = None
    chunked: bool = False
    rows: int = 1


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
        told = None if isinstance(q_offset, Tensor) else _told(mask_function, rest)
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
    found = _read(mask_function, place)
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


def _told(function: Function, beside: dict[str, Any]) -> Reach | None:
    """The rule of a function of transformers by its name and by what was passed beside it; ``None``: not one of them.

    Sliding windows and chunks bear one name; a mask that was changed further (packed rows, functions of the caller) may
    not be skipped.
    """
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    if function is causal_mask_function:
        return Reach(right=0)
    if function is bidirectional_mask_function:
        return Reach()
    size, config = beside.get("local_size"), beside.get("config")
    chunked = getattr(config, "attention_chunk_size", None) is not None
    if size is None or chunked or beside.get("use_vmap") or function.__name__ != "and_mask":
        return None
    if beside.get("allow_is_causal_skip"):
        return Reach(left=size - 1, right=0)
    return Reach(size, size) if beside.get("allow_is_bidirectional_skip") else None


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


def _read(function: Function, place: Place) -> IndexRule | None:
    """The rule that a function of transformers describes; ``None`` if it is not one of `_READERS`."""
    name = getattr(function, "__qualname__", "").split(".")[0]
    reader = _READERS.get(name) if getattr(function, "__module__", "") == "transformers.masking_utils" else None
    if reader is None:
        return None
    held = inspect.getclosurevars(function).nonlocals
    try:
        return reader(held, place)
    except KeyError:  # another version of transformers holds other things
        return None


def _joined(held: Any, place: Place) -> IndexRule | None:
    joined = IndexRule()
    for function in held["mask_functions"]:
        rule = _read(function, place)
        if rule is None or (rule.segments is not None and joined.segments is not None):
            return None
        segments = joined.segments if rule.segments is None else rule.segments
        chunked, rows = joined.chunked or rule.chunked, max(joined.rows, rule.rows)
        joined = IndexRule(joined.reach.joined(rule.reach), segments, chunked=chunked, rows=rows)
    return joined


def _chunks(held: Any, place: Place) -> IndexRule | None:
    """Chunks of equal length, counted from the first place; padding on the left moves them."""
    size, moved = held["chunk_size"], held["left_padding"]
    last = place.first_key + place.keys - 1
    moves = not may_wait(moved) or bool((moved != 0).any())
    if moves and (place.first_key or last >= size):  # within the first chunk it moves nobody out of it
        return None
    if place.first_key // size == last // size:
        return IndexRule()
    if place.queries == 1:
        return IndexRule(Reach(left=place.first_query % size, right=size - 1 - place.first_query % size))
    if not place.is_square or place.first_key:
        return None
    return IndexRule(segments=torch.tensor([*range(0, place.keys, size), place.keys]), chunked=True)


def _packed(held: Any, place: Place) -> IndexRule | None:
    """Sequences of one row, numbered in order; those of rows that are packed differently one row behind the other."""
    number = held["packed_sequence_mask"]
    if not place.is_square or not may_wait(number):
        return None
    alike = not bool((number != number[:1]).any())
    rows, packed = (1, number[:1]) if alike else (len(number), number)
    first = torch.ones_like(packed, dtype=torch.bool)
    first[:, 1:] = packed.diff(dim=-1) != 0
    starts = first.flatten().nonzero()[:, 0]
    return IndexRule(segments=torch.cat([starts, starts.new_tensor([packed.numel()])]), rows=rows)


def _within_rows(held: Any, place: Place) -> IndexRule | None:
    """Places that restart with each sequence: differences are the same within one."""
    return _read(held["mask_function"], place)


def _window(held: Any, _: Place) -> IndexRule:
    return IndexRule(Reach(left=held["sliding_window"] - 1))


def _two_sided(held: Any, _: Place) -> IndexRule:
    return IndexRule(Reach(held["sliding_window"], held["sliding_window"]))


_READERS: dict[str, Callable[[Any, Place], IndexRule | None]] = {
    "and_masks": _joined,
    "bidirectional_mask_function": lambda *_: IndexRule(),
    "causal_mask_function": lambda *_: IndexRule(Reach(right=0)),
    "chunked_overlay": _chunks,
    "packed_sequence_mask_function": _packed,
    "remap_positions_for_packed_sequence": _within_rows,
    "sliding_window_bidirectional_overlay": _two_sided,
    "sliding_window_overlay": _window,
}
