"""Attention within windows of a picture (Swin, SAM and their kin): the weights of every window, at its tokens' places.

A block cuts the map of its T tokens into windows, perhaps after shifting it, and a token hears its own window only (of
a shifted map, of a window that wraps around an edge, the part on its own side). What is told of it are the sums of
`attention_statistics` over the T x T weights that this is, which are never drawn: importance is the mean over the
queries that share a key's window, entropy in units of ln(tokens of the window), distances between places in the
sequence of all tokens. Scores that divide by the whole sequence (``published_importance``, ``first_token_score``) would
measure the size of a window; they are NaN unless one window holds all. Windows that reach beyond the map hold padding,
which tokens hear as they would a learned logit without a key: its share is ``learned_sink``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import capture, own_attention, torch_calls
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.window_places import Windows, attention_of, windows_of
from krause_dynamics.checkpoints.window_sums import statistics_of_windows
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call


def in_windows(blocks: list[nn.Module]) -> bool:
    """Whether blocks attend within windows: by the attributes of Swin and its kin, of SAM's, of KSwin's."""
    return all(any(map(_cuts, (block, *block.children()))) for block in blocks)


def _cuts(part: nn.Module) -> bool:
    by_size = hasattr(part, "window_size") and (hasattr(part, "shift_size") or hasattr(part, "window_partition"))
    return by_size or (hasattr(part, "side") and hasattr(part, "shift"))


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
    """During the block, attention within windows is told of: (block, statistics).

    Weights are those that attention returns where it is asked to compute eagerly, or else of the calls that it makes,
    of torch's attention or of ours.
    """
    seen = _Seen(running_block, told, min_queries, keep_weights)
    with ExitStack() as stack:
        stack.enter_context(capture.attention_implementation(model, "eager"))
        stack.enter_context(torch_calls.listening(running_block, seen.asked))
        stack.enter_context(own_attention.listening(running_block, seen.called))
        for block in blocks:
            attention = attention_of(block)
            stack.callback(block.register_forward_pre_hook(seen.before, with_kwargs=True).remove)
            stack.callback(attention.register_forward_pre_hook(_asking, with_kwargs=True).remove)
            stack.callback(attention.register_forward_hook(seen.after).remove)
        yield


class _Seen:
    """Is told of the windows of a block, then of its weights in whichever way they come."""

    def __init__(
        self,
        running_block: Callable[[], int | None],
        told: Callable[[int, HeadStatistics], None],
        min_queries: int,
        keep_weights: bool,
    ) -> None:
        self.running_block = running_block
        self.told = told
        self.options: Any = {"min_queries": min_queries, "keep_weights": keep_weights}
        self.windows: Windows | None = None

    def before(self, block: nn.Module, args: Any, kwargs: Any) -> None:
        """A block is about to run."""
        self.windows = None  # what its own code does with numbers in place of tokens is not told of
        self.windows = windows_of(block, args, kwargs)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Attention has answered."""
        number = self.running_block()
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if number is not None and isinstance(weights, Tensor):
            if weights.ndim == 3:  # SAM: (b * windows * heads, S, S)
                weights = weights.unflatten(0, (-1, module.num_attention_heads))
            self._tell(number, weights)

    def asked(self, block: int, call: dict[str, Any]) -> None:
        """Attention of torch was."""
        if self.windows is None:
            return
        with torch._C.DisableTorchFunction():
            if self.windows.whole:
                self.told(block, torch_calls.statistics_of_call(call, **self.options))
            else:
                self._tell(block, own_attention.weights_of_call(torch_calls.as_call(call)))

    def called(self, block: int, call: Call) -> None:
        """Attention of ours was."""
        if self.windows is None:
            return
        if self.windows.whole:
            self.told(block, own_attention.statistics_of_call(call, **self.options))
        else:
            self._tell(block, own_attention.weights_of_call(call))

    def _tell(self, block: int, weights: Tensor) -> None:
        """Of weights (b * windows, heads, S, S)."""
        assert self.windows is not None
        places = self.windows.places
        if weights.shape[-2:] != (places.shape[1],) * 2 or len(weights) % len(places):
            raise UnsupportedModel(
                f"block {block + 1} has weights of shape {tuple(weights.shape)}, which are not those of {len(places)} "
                f"windows of {places.shape[1]} places; pass attention=None for the hidden states alone"
            )
        apart = weights.unflatten(0, (-1, len(places)))
        self.told(block, statistics_of_windows(apart, self.windows, **self.options))


def _asking(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Ask for weights, where that is not what torch's own function cannot give; its calls are seen."""
    known = inspect.signature(module.forward).parameters
    if "output_attentions" not in known or "sdpa" in type(module).__name__.lower():
        return None
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.arguments["output_attentions"] = True
    return bound.args, bound.kwargs
