"""The blocks of a trained model: which modules the residual stream passes, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.errors import UnsupportedModel


def check_kind(model: Any) -> None:
    """Refuse models which are not a stack of blocks over token ids.

    Raises:
        UnsupportedModel: With the reason and, where there is one, the way out.
    """
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"{name} is an encoder-decoder, two stacks; pass one of them, such as model.get_encoder()"
        )
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise UnsupportedModel(f"{name} takes {model.main_input_name}; only models over token ids are analysed")
    if getattr(model.config, "num_hidden_layers", None) is None:
        raise UnsupportedModel(f"{name}: its configuration does not say how many layers there are (num_hidden_layers)")


def find_blocks(model: Any, blocks: Sequence[nn.Module] | None = None) -> tuple[list[nn.Module], int]:
    """(modules to watch, number of calls that one forward pass must make).

    One module may be called many times: in ALBERT the layers of a group are called again and again.

    Args:
        model: The base model, without its head.
        blocks: The blocks in order, where the search cannot find them.

    Raises:
        UnsupportedModel: If no list of modules has the number of layers that the configuration states.
    """
    layers = int(model.config.num_hidden_layers)
    if blocks is not None:
        return list(blocks), len(blocks)
    if model.config.model_type == "albert":
        shared = [layer for group in model.encoder.albert_layer_groups for layer in group.albert_layers]
        return shared, layers * int(model.config.inner_group_num)
    lists: dict[str, nn.ModuleList] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers and not name.startswith(inside):
            lists[name] = module
            inside = (*inside, f"{name}.")
    if len(lists) > 1:  # adapters or embeddings may be lists of the same length: keep those that hold attention
        lists = {name: found for name, found in lists.items() if all(map(_attends, found))}
    if len(lists) != 1:
        raise UnsupportedModel(
            f"{type(model).__name__}: expected one list of {layers} blocks (num_hidden_layers), found "
            f"{sorted(lists) or 'none'}; pass the modules themselves as blocks="
        )
    return list(next(iter(lists.values()))), layers


def _attends(block: nn.Module) -> bool:
    return any("attention" in type(part).__name__.lower() for part in block.modules())


def context_length(model: Any) -> int | None:
    """Longest sequence that the model takes, None when its configuration gives no limit."""
    length = getattr(model.config, "max_position_embeddings", None)
    if length is None:
        return None
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from padding_idx + 1 on, inside the same table.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(length) - int(module.padding_idx) - 1
    return int(length)


class StreamRecorder:
    """Hooks on the blocks that hand on the residual stream before the first block and after each call.

    Attributes:
        told: Called with (0, embedding) and (i, state after call i), each (batch, T, d), float32, where the block runs.
        block: Number of the call that is running, None outside the blocks.
    """

    def __init__(self, blocks: Sequence[nn.Module], told: Callable[[int, Tensor], None]) -> None:
        self.blocks = blocks
        self.told = told
        self.block: int | None = None
        self.calls = 0
        self._last: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> StreamRecorder:
        # A module listed twice gets one pair of hooks: calls are counted, not modules.
        for module in {id(block): block for block in self.blocks}.values():
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering = args[0] if args else kwargs.get("hidden_states")
        if not isinstance(entering, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} takes no hidden states as its first argument")
        if self._last is None:
            self.told(0, _copied(entering))
        elif entering is not self._last and not torch.equal(entering, self._last):
            raise UnsupportedModel(
                f"the model changes the residual stream between blocks {self.calls} and {self.calls + 1}: what enters "
                "the next block is not what left the last one, so states after blocks would leave a step out"
            )
        self.block = self.calls

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        leaving = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(leaving, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} returns {type(leaving).__name__}, not hidden states")
        self._last = leaving
        self.calls += 1
        self.told(self.calls, _copied(leaving))
        self.block = None

    def check(self, expected: int) -> None:
        """Raise UnsupportedModel unless every layer of the configuration was seen."""
        if self.calls != expected:
            raise UnsupportedModel(
                f"{self.calls} calls of blocks were seen where the configuration says {expected} layers; "
                "a layer was skipped or replaced. Pass the modules themselves as blocks="
            )


def _copied(state: Tensor) -> Tensor:
    """A copy that later in-place operations of the model cannot reach."""
    return state.detach().to(dtype=torch.float32, copy=True)
