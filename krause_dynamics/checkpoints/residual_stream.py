"""The residual stream of a model: hooks that hand on its states, each checked for what would get lost silently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints.finite import FiniteStates
from krause_dynamics.errors import UnsupportedModel


def state_name(kwargs: dict[str, Any]) -> str:
    """The name under which a block is given its state: that of transformers, or the first that there is."""
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs), "hidden_states")


def entering_state(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The state that a block is given.

    Raises:
        UnsupportedModel: Its first argument is none.
    """
    entering = args[0] if args else kwargs.get(state_name(kwargs))
    if not isinstance(entering, Tensor):
        raise UnsupportedModel(f"{type(module).__name__} takes no hidden states as its first argument")
    return entering


def as_tokens(state: Tensor, *, time_major: bool = False) -> Tensor:
    """A state as (batch, T, d), in float32 and a copy that later in-place operations of the model cannot reach.

    Numbers lie in the order of the axes, so that what is measured does not depend on how a model lays its states out.

    Args:
        state: (batch, T, d), or a map (batch, rows, columns, d), whose rows are put one after the other.
        time_major: Whether it is (T, batch, d).
    """
    state = state.transpose(0, 1) if time_major else state.flatten(1, -2)
    return state.detach().to(dtype=torch.float32, copy=True, memory_format=torch.contiguous_format)


def is_map(module: nn.Module, state: Tensor) -> bool:
    """Whether a state of four axes is (batch, rows, columns, d), by a norm of its block that is over the last axis."""
    norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    width = state.shape[-1]
    return state.ndim == 4 and bool(norms) and norms[0].normalized_shape == (width,) and state.shape[1] != width


class StreamRecorder:
    """Hooks on the blocks that hand on the residual stream before the first block and after each call.

    Attributes:
        time_major: Whether the blocks' states are (T, batch, d), as XLNet's.
        told: Called with (0, embedding) and (i, state after call i), each (batch, T, d), float32, where the block runs.
        earliest: Layers before it are not told of.
        lengths: How many tokens sequences may have; None: any.
        maps: Whether states may be maps (batch, rows, columns, d), as those of pictures.
        block: Number of the call that is running, None outside the blocks.
        shape: (batch, T) of the states seen so far.
        calls: Number of calls that have ended.
        last: What the last of them left, as the model has it.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        told: Callable[[int, Tensor], None],
        *,
        time_major: bool = False,
        earliest: int = 0,
        lengths: frozenset[int] | None = None,
        maps: bool = False,
    ) -> None:
        self.blocks = blocks
        self.told = told
        self.time_major = time_major
        self.earliest = earliest
        self.lengths = lengths
        self.maps = maps
        self.thread = threading.get_ident()
        self.block: int | None = None
        self.calls = 0
        self.shape: torch.Size | None = None
        self.last: Tensor | None = None
        self._handles: list[Any] = []
        self._finite = FiniteStates()

    def __enter__(self) -> StreamRecorder:
        # A module listed twice gets one pair of hooks: calls are counted, not modules.
        for module in {id(block): block for block in self.blocks}.values():
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for handle in self._handles:
            handle.remove()
        if error is None or isinstance(error, Exception):  # whoever was told may have failed because of a NaN
            self._finite.check()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self.thread:  # a forward pass of another thread through the same blocks
            return
        entering = entering_state(module, args, kwargs)
        if self.last is None:
            self._tell(0, entering, module)
        elif entering is not self.last and not torch.equal(entering, self.last):
            raise UnsupportedModel(
                f"the model changes the residual stream between blocks {self.calls} and {self.calls + 1}: what enters "
                "the next block is not what left the last one, so states after blocks would leave a step out"
            )
        self.block = self.calls

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if threading.get_ident() != self.thread:
            return
        leaving = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(leaving, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} returns {type(leaving).__name__}, not hidden states")
        self.last = leaving
        self.calls += 1
        self._tell(self.calls, leaving, module)
        self.block = None

    def _tell(self, layer: int, state: Tensor, module: nn.Module) -> None:
        """Hand on a state, checked: what follows would name neither layer nor model."""
        if layer < self.earliest:
            return
        if state.ndim != 3 and not (self.maps and is_map(module, state)):
            raise UnsupportedModel(
                f"layer {layer} has states of shape {tuple(state.shape)} where (batch, tokens, d) is expected, or of a "
                "picture (batch, rows, columns, d) in blocks with a LayerNorm over d: a model of several streams, or "
                "of channels first, is not analysed"
            )
        copy = as_tokens(state, time_major=self.time_major)
        self._finite.add(layer, state, copy)
        if self.shape is not None and copy.shape[:2] != self.shape:
            raise UnsupportedModel(
                f"block {layer} turns {tuple(self.shape)} tokens into {tuple(copy.shape[:2])}: what is analysed keeps "
                "its tokens from block to block"
            )
        self.shape = copy.shape[:2]
        if self.lengths is not None and self.shape[1] not in self.lengths:
            raise UnsupportedModel(
                f"{self.shape[1]} tokens pass the blocks, and sequences have {sorted(self.lengths)[:3]}: a model that "
                "puts tokens of its own beside them is not analysed, as what is told would be of those too; where it "
                "pads them to a multiple of a window, pass sequence_length= such a multiple; where it lays the "
                "pictures of a batch side by side in one row, batch_size=1"
            )
        self.told(layer, copy)

    def check(self, expected: int) -> None:
        """Raise UnsupportedModel unless every layer of the configuration was seen."""
        if self.calls != expected:
            raise UnsupportedModel(
                f"{self.calls} calls of blocks were seen where the configuration says {expected} layers; "
                "a layer was skipped or replaced. Pass the modules themselves as blocks="
            )
