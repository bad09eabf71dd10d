"""What a module of somebody's own makes of its inputs, seen on one sequence: how many tokens, in which order of axes.

Blocks of torch may run over (T, batch, d) instead of (batch, T, d) (``batch_first=False``). Whether the module turns
its inputs for them, or wants them turned, no attribute says; on one sequence of T tokens the shapes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from krause_dynamics.checkpoints import torch_calls
from krause_dynamics.checkpoints.backbone import evaluating
from krause_dynamics.checkpoints.pictures import Pictures
from krause_dynamics.checkpoints.residual_stream import entering_state
from krause_dynamics.checkpoints.sequences import Inputs
from krause_dynamics.checkpoints.vectors import Vectors
from krause_dynamics.errors import UnsupportedModel


@dataclass(frozen=True)
class Order:
    """How states and inputs of a module lie.

    Attributes:
        inputs: The inputs, of the tokens that the module makes of them.
        time_major: Whether the blocks' states are (T, batch, d).
        turned: Whether the module is to be given (T, batch, ...).
    """

    inputs: Inputs
    time_major: bool
    turned: bool

    def run(self, model: nn.Module, value: torch.Tensor) -> Any:
        """One forward pass of a batch."""
        try:
            return model(value.transpose(0, 1) if self.turned else value)
        except IndexError as error:
            raise ValueError(
                f"inputs: {type(model).__name__} does not take {value.dtype} of shape {tuple(value.shape)} (an id "
                f"beyond its vocabulary, perhaps): {str(error).splitlines()[0]}"
            ) from error


def tried(model: nn.Module, inputs: Inputs, blocks: list[nn.Module]) -> Order:
    """How the longest of the sequences goes through a module.

    Raises:
        UnsupportedModel: Its forward takes more than one argument, runs no block, or adds tokens to ids.
        ValueError: It does not take such inputs.
    """
    *_, (members, batch) = inputs.batches(1)  # of ids the longest come last
    with evaluating(model):
        value = next(iter(inputs.arguments(batch, model).values()))
        tokens, time_major, turned = _seen(model, value, blocks)
    if tokens == int(inputs.lengths[members[0]]):
        return Order(inputs, time_major, turned)
    if not isinstance(inputs, Vectors | Pictures):
        raise UnsupportedModel(
            f"{type(model).__name__} makes {tokens} tokens of {inputs.lengths[members[0]]} ids; pass what enters its "
            "blocks instead, as vectors (sequences, T, d), to the part of it that takes them"
        )
    return Order(replace(inputs, tokens=tokens), time_major, turned)


class _Enough(Exception):
    """The first block has been passed."""


@contextmanager
def _in_words(who: str, value: torch.Tensor) -> Iterator[None]:
    """What a module of that name says of a value that it does not take."""
    try:
        yield
    except TypeError as error:
        raise UnsupportedModel(
            f"{who} cannot be called with its inputs alone ({str(error).splitlines()[0]}); wrap it in a module "
            "whose forward takes them and gives the rest"
        ) from error
    except (RuntimeError, IndexError, ValueError) as error:
        raise ValueError(
            f"inputs: {who} does not take {value.dtype} of shape {tuple(value.shape)}: {str(error).splitlines()[0]}"
        ) from error


def _seen(model: nn.Module, value: torch.Tensor, blocks: list[nn.Module]) -> tuple[int, bool, bool]:
    """(tokens that enter the first block, whether states are time-major, whether inputs are to be turned)."""
    entered: list[torch.Size] = []
    attended: list[tuple[int, int]] = []  # sequences and tokens of attention in the first block

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(entering_state(module, args, kwargs).shape)

    def after(*_: Any) -> None:
        raise _Enough

    def heard(block: int, call: dict[str, Any]) -> None:
        attended.append((call["query"].shape[0], call["query"].shape[-2]))

    who = type(model).__name__
    first = {id(block): block for block in blocks}.values()
    with ExitStack() as stack:
        for block in first:
            stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(after).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch_calls.listening(lambda: len(entered) or None, heard))
        with suppress(_Enough), _in_words(who, value):
            model(value)
    if not entered:
        raise UnsupportedModel(f"{who} never runs its blocks; pass those that it runs as blocks=")
    if len(entered[0]) != 3:
        raise UnsupportedModel(
            f"{who}: {tuple(entered[0])} enters its first block, where states (batch, tokens, d) are expected; pass "
            "other modules as blocks="
        )
    rows, columns = entered[0][:2]
    # One sequence as several of one token: by the states themselves, or by the attention that reads them.
    turned = rows == 1 and columns > 1 and bool(attended) and attended[0] == (columns, 1)
    return int(max(rows, columns)), rows > 1 or turned, turned
