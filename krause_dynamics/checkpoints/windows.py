"""Attention within windows of a picture (Swin and its kin): the weights of every window, and where its tokens stand.

A block cuts the map of its T tokens into windows, every other block after shifting it, and a token hears its own window
only (of a shifted map, of a window that wraps around an edge, the part on its own side). What is told of it are the
sums of `attention_statistics` over the T x T weights that this is, which are never drawn: importance is the mean over
the queries that share a key's window, entropy in units of ln(tokens of the window), distances between places in the
sequence of all tokens. Scores that divide by the whole sequence (``published_importance``, ``first_token_score``) would
measure the size of a window; they are NaN unless one window holds all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import capture
from krause_dynamics.checkpoints.attention_call import QUARTERS, AttentionCall, quarters
from krause_dynamics.checkpoints.attention_statistics import (
    DISTANCES,
    HeadStatistics,
    WeightSums,
    sampled_rows,
    summary,
)
from krause_dynamics.checkpoints.residual_stream import entering_state, state_name
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import Everyone

DIGIT = 128  # numbers up to it are exact in every half type


class Windows(NamedTuple):
    """The windows of one block.

    Attributes:
        places: Which token stands at each place, (windows, S).
        seen: Who hears whom, (windows, S, S).
    """

    places: Tensor
    seen: Tensor


def in_windows(blocks: list[nn.Module]) -> bool:
    """Whether blocks attend within windows, by the attributes that Swin and its kin have."""
    return all(hasattr(block, "window_size") and hasattr(block, "shift_size") for block in blocks)


@contextmanager
def watching(
    model: Any,
    blocks: list[nn.Module],
    running_block: Callable[[], int | None],
    told: Callable[[int, HeadStatistics], None],
    *,
    min_queries: int = 8,
    keep_weights: bool = False,
) -> Iterator[None]:
    """During the block, attention within windows is told of: (block, statistics); the model computes it eagerly."""
    entered: dict[nn.Module, Windows] = {}

    def before(block: nn.Module, args: Any, kwargs: Any) -> None:
        entered[_attention(block)] = windows_of(block, args, kwargs)

    def asked(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if "output_attentions" not in inspect.signature(module.forward).parameters:
            return None
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        bound.arguments["output_attentions"] = True
        return bound.args, bound.kwargs

    def after(module: nn.Module, args: Any, output: Any) -> None:
        number = running_block()
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if number is None or weights is None:
            return
        windows = entered[module]
        apart = weights.unflatten(0, (-1, len(windows.places)))
        told(number, statistics_of_windows(apart, windows, min_queries, keep_weights))

    with ExitStack() as stack:
        stack.enter_context(capture.attention_implementation(model, "eager"))
        for block in blocks:
            stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(_attention(block).register_forward_pre_hook(asked, with_kwargs=True).remove)
            stack.callback(_attention(block).register_forward_hook(after).remove)
        yield


def _attention(block: nn.Module) -> nn.Module:
    for part in block.modules():
        if "attention" in type(part).__name__.lower():
            return part
    raise UnsupportedModel(f"{type(block).__name__} holds no attention; pass attention=None for its states alone")


class _Reached(Exception):
    """The attention of a block is about to run."""


def windows_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Windows:
    """The windows that a block makes, by its own code: tokens bear their numbers, and attention is given them.

    Args:
        block: About to run.
        args: What it is given: its state (b, T, d) and more.
        kwargs: Likewise, by name.

    Raises:
        UnsupportedModel: Windows that reach beyond the map, where tokens hear padding.
    """
    state = entering_state(block, args, kwargs)
    number = torch.arange(1, state.shape[1] + 1, device=state.device)
    marked = torch.zeros_like(state[:1])
    for digit in range(3):
        marked[0, :, digit] = number // DIGIT**digit % DIGIT
    given: list[Any] = []

    def reached(module: nn.Module, args: Any, kwargs: Any) -> None:
        bound = list(inspect.signature(module.forward).bind(*args, **kwargs).arguments.values())
        given.extend(bound[:2])
        raise _Reached

    with ExitStack() as stack:
        stack.callback(_attention(block).register_forward_pre_hook(reached, with_kwargs=True, prepend=True).remove)
        for norm in (part for part in block.modules() if isinstance(part, nn.LayerNorm)):
            stack.callback(norm.register_forward_hook(lambda module, entering, output: entering[0]).remove)
        with torch.no_grad():
            try:
                positional = (marked, *args[1:]) if args else ()
                named = kwargs if args else kwargs | {state_name(kwargs): marked}
                type(block).forward(block, *positional, **named)
            except _Reached:
                pass
    tokens, mask = given
    numbers = sum(tokens[..., digit].round().long() * DIGIT**digit for digit in range(3))
    if bool((numbers == 0).any()):
        raise UnsupportedModel(
            f"windows of {type(block).__name__} reach beyond the {state.shape[1]} tokens of its map, so that tokens "
            "hear padding, which is no token; pass pictures of which each stage's map is a multiple of window_size, or "
            "attention=None for the hidden states alone"
        )
    size = numbers.shape[-1]
    seen = torch.ones(len(numbers), size, size, dtype=torch.bool, device=numbers.device)
    if isinstance(mask, Tensor):
        seen = mask.expand(len(numbers), size, size) == 0
    return Windows(numbers - 1, seen)


def statistics_of_windows(
    weights: Tensor, windows: Windows, min_queries: int = 8, keep_weights: bool = False
) -> HeadStatistics:
    """Statistics of the T x T weights that windows are.

    Args:
        weights: (b, windows, heads, S, S), rows sum to 1.
        windows: Where their tokens stand.
        min_queries: A key needs that many queries to be a strongest key, or as many as a window has.
        keep_weights: Also draw them, (b, heads, T, T).
    """
    places, seen = windows.places, windows.seen
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32)).transpose(1, 2)  # (b, heads, windows, S, S)
    exact = torch.where(seen, exact, 0.0)  # who is told apart by -100 keeps e^-100
    length, (b, h) = places.numel(), exact.shape[:2]

    def put(values: Tensor, to: Tensor) -> Tensor:
        """Values (..., windows, S) at the places of tokens, (..., T)."""
        return values.new_zeros((*values.shape[:-2], length)).index_add_(-1, to.flatten(), values.flatten(-2))

    members = torch.nn.functional.one_hot(quarters(length, exact.device)[places], QUARTERS).to(exact.dtype)
    by_quarter = torch.einsum("wiq,bhwik->bhqwk", members, exact)
    away = (places[:, :, None] - places[:, None, :]).abs()
    bins = torch.bucketize(away, torch.tensor(DISTANCES, device=away.device), right=True) - 1
    profile = exact.new_zeros((b, h, len(DISTANCES))).index_add_(-1, bins.flatten(), exact.flatten(2))
    whole = _drawn(exact, places) if keep_weights else None
    rows = sampled_rows(length).to(exact.device)
    sums = WeightSums(
        received=put(by_quarter, places),
        entropy=put(torch.special.entr(exact).sum(-1), places),
        own=put(exact.diagonal(dim1=-2, dim2=-1), places),
        distance_profile=profile.float() / length,
        mean_distance=((exact.double() * away).sum((2, 3, 4)) / length).float(),
        sampled=_drawn(exact, places, rows),
        learned_sink=torch.zeros_like(exact[..., 0, 0, 0]),
        weights=None if whole is None else whole.float(),
    )
    keys, queries = put(seen.sum(-1), places), put(seen.sum(-2), places)
    first = put(((places == 0)[:, None, :] & seen).any(-1).long(), places) > 0
    found = summary(AttentionCall(Everyone(), None, keys, queries, False, first), sums, min_queries)
    if len(places) == 1:
        return found
    whole_picture = ("published_importance", "first_token_score")
    return replace(found, **{name: torch.full_like(getattr(found, name), torch.nan) for name in whole_picture})


def _drawn(exact: Tensor, places: Tensor, rows: Tensor | None = None) -> Tensor:
    """Rows (all, or some) of the T x T weights, (b, heads, rows, T)."""
    length = places.numel()
    place = torch.empty(length, dtype=torch.long, device=places.device)
    place[places.flatten()] = torch.arange(length, device=places.device)
    chosen = place if rows is None else place[rows]
    window = chosen // places.shape[1]
    lines = exact.flatten(2, 3)[:, :, chosen]  # (b, heads, rows, S)
    target = places[window].expand(*lines.shape[:2], -1, -1)
    return exact.new_zeros((*lines.shape[:3], length)).scatter_(-1, target, lines)
