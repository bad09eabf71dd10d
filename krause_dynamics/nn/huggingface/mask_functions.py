"""Functions by which transformers describes who may hear whom, read as rules in whole numbers.

Eagerly what they hold is read. A compiler cannot look into functions and is told by their names, and by what stands
beside them, which is enough for causal and sliding masks: `told_reach`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


def read_rule(function: Function, place: Place) -> IndexRule | None:
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
        rule = read_rule(function, place)
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
    return read_rule(held["mask_function"], place)


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


def told_reach(function: Function, beside: dict[str, Any]) -> Reach | None:
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
