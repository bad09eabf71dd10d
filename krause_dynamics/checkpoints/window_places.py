"""Where the tokens of a picture stand in the windows that a block cuts its map into, by the block's own code."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints.residual_stream import entering_state, state_name
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn import KrauseAttention

DIGIT = 128  # numbers up to it are exact in every half type
APART = 50.0  # below the best of a row: a weight of e^-50, which is none in any type (Swin tells apart by -100)


class Windows(NamedTuple):
    """The windows of one block.

    Attributes:
        places: Which token stands at each place, (windows, S); ``tokens`` where padding does.
        seen: Who hears whom, (windows, S, S); padding nobody, nobody padding.
        tokens: Of the map.
    """

    places: Tensor
    seen: Tensor
    tokens: int

    @property
    def whole(self) -> bool:
        """Whether there is one, which holds the map as it is, and where all hear all."""
        number = torch.arange(self.tokens, device=self.places.device)
        return len(self.places) == 1 and torch.equal(self.places[0], number) and bool(self.seen.all())


def attention_of(block: nn.Module) -> nn.Module:
    """The module of a block that is given windows: ours where there is one, which another may cut them for.

    Raises:
        UnsupportedModel: None, by the names of classes.
    """
    ours = [part for part in block.modules() if isinstance(part, KrauseAttention)]
    for part in (*ours, *block.modules()):
        if "attention" in type(part).__name__.lower():
            return part
    raise UnsupportedModel(f"{type(block).__name__} holds no attention; pass attention=None for its states alone")


class _Reached(Exception):
    """The attention of a block is about to run."""


def windows_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Windows:
    """The windows that a block makes: tokens bear their numbers, and attention is given them.

    Args:
        block: About to run.
        args: What it is given: its state, (b, T, d) or a map (b, rows, columns, d), and more.
        kwargs: Likewise, by name.
    """
    state = entering_state(block, args, kwargs)
    length = state[0, ..., 0].numel()
    number = torch.arange(1, length + 1, device=state.device).reshape(state.shape[1:-1])
    marked = torch.zeros_like(state[:1])
    for digit in range(3):
        marked[0, ..., digit] = number // DIGIT**digit % DIGIT
    given = _given(block, marked, args, kwargs)
    tokens = next(iter(given.values())).flatten(1, -2)  # of a map of each window the places in a row
    numbers = sum(tokens[..., digit].round().long() * DIGIT**digit for digit in range(3))
    size = numbers.shape[-1]
    seen = torch.ones(len(numbers), size, size, dtype=torch.bool, device=numbers.device)
    mask = given.get("attention_mask", given.get("pair_bias"))
    if isinstance(mask, Tensor):
        heard = mask > mask.amax(-1, keepdim=True) - APART
        seen = heard.reshape(-1, *mask.shape[-3:]).any(1) if mask.ndim > 3 else heard
        seen = seen.expand(len(numbers), size, size)
    real = numbers > 0
    seen = seen & real[:, None, :] & real[:, :, None]
    return Windows(torch.where(real, numbers - 1, length), seen, length)


def _given(block: nn.Module, marked: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What attention would be given if a block were given ``marked`` tokens, and its norms did nothing."""
    given: dict[str, Any] = {}

    def reached(module: nn.Module, args: Any, kwargs: Any) -> None:
        given.update(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
        raise _Reached

    with ExitStack() as stack:
        stack.callback(attention_of(block).register_forward_pre_hook(reached, with_kwargs=True, prepend=True).remove)
        for norm in (part for part in block.modules() if isinstance(part, nn.LayerNorm)):
            stack.callback(norm.register_forward_hook(lambda module, entering, output: entering[0]).remove)
        with torch.no_grad():
            try:
                positional = (marked, *args[1:]) if args else ()
                named = kwargs if args else kwargs | {state_name(kwargs): marked}
                type(block).forward(block, *positional, **named)
            except _Reached:
                pass
    return given
