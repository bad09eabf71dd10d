"""One block of a model run by the model's own forward pass, and its weights held while it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints.finite import NotFinite
from krause_dynamics.checkpoints.residual_stream import state_name
from krause_dynamics.errors import UnsupportedModel


class Left(Exception):
    """The block that was asked for has been passed."""


class Calls:
    """Counts calls of blocks: those before ``block`` hand on, that one is run, and the next one ends the pass."""

    def __init__(self, block: int, state: Tensor | None, shapes: list[int]) -> None:
        self.block = block
        self.state = state
        self.shapes = shapes
        self.count = 0
        self.thread = threading.get_ident()

    @contextmanager
    def replacing(self, blocks: list[nn.Module]) -> Iterator[None]:
        """The forward functions of the blocks are replaced meanwhile."""
        with ExitStack() as stack:
            for module in {id(block): block for block in blocks}.values():
                stack.callback(_restore, module, module.__dict__.get("forward"))
                module.forward = self._answering(module.forward)
            yield

    def _answering(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self.thread:  # a forward pass of another thread through the same blocks
                return forward(*args, **kwargs)
            number = self.count
            self.count += 1
            if number > self.block:
                raise Left
            if number < self.block:
                return self._handed_on(number, args[0] if args else kwargs[state_name(kwargs)])
            output = forward(*args, **kwargs)
            if len(self.shapes) == self.block:
                self.shapes.append(_shape(output, self.block))
            return output

        return answer

    def _handed_on(self, number: int, entering: Tensor) -> Any:
        last = number == self.block - 1 and self.state is not None
        state = self.state.to(entering.device) if last and self.state is not None else entering
        length = self.shapes[number]
        return (state, *[None] * (length - 1)) if length else state


def _shape(output: Any, block: int) -> int:
    if isinstance(output, Tensor):
        return 0
    if any(isinstance(x, Tensor) for x in output[1:]):
        raise UnsupportedModel(
            f"block {block + 1} hands on more than its state, so that blocks cannot be run one by one; leave memory= "
            "and checkpoint= out"
        )
    return len(output)


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = own


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Weights that accelerate reads from disk at every call are read once, and dropped in the end."""
    with ExitStack() as stack:
        for part in module.modules():
            hook: Any = getattr(part, "_hf_hook", None)
            for one in getattr(hook, "hooks", (hook,)):
                if getattr(one, "offload", False):
                    one.pre_forward(part)
                    one.offload = False
                    stack.callback(_drop, part, one)
        yield


def _drop(part: nn.Module, hook: Any) -> None:
    hook.offload = True
    hook.post_forward(part, None)


def check_weights(module: nn.Module, block: int) -> None:
    """Raise `NotFinite` for a weight that holds NaN or infinity: every state after it would."""
    for name, weight in module.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise NotFinite(
                f"block {block + 1}: weight {name} holds NaN or infinity in {weight.dtype}: the file is damaged, or "
                "its numbers are too large for that type (then dtype='float32' helps)",
                block + 1,
            )
