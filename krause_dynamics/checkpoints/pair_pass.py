"""One forward pass of an encoder-decoder, told of block by block: both stacks, and attention from one to the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import capture, cross_attention
from krause_dynamics.checkpoints import measures as table
from krause_dynamics.checkpoints.attention_path import check_one_per_block
from krause_dynamics.checkpoints.backbone import evaluating, resolved
from krause_dynamics.checkpoints.blocks import device_of, find_blocks
from krause_dynamics.checkpoints.load import Checkpoint
from krause_dynamics.checkpoints.residual_stream import StreamRecorder
from krause_dynamics.nn.huggingface import options as options_of_attention

# By these arguments an attention module is given what it hears across.
_ACROSS = ("key_value_states", "encoder_hidden_states")
_SERVED = frozenset({"dropout", "is_causal", "output_attentions", "position_bias", "scaling"})


@dataclass(frozen=True)
class Stack:
    """One of both.

    Attributes:
        name: Which.
        blocks: Modules to watch.
        expected: Calls of blocks that a pass must make.
    """

    name: str
    blocks: list[nn.Module]
    expected: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str) -> Stack:
        """The stack of that name of a model."""
        return cls(name, *find_blocks(resolved(checkpoint.backbone, name)))


class _Recorder(capture.AttentionRecorder):
    """Tells apart attention within a stack and attention across, by what the module was given."""

    def __init__(self, crossing: dict[nn.Module, bool], across: Callable[[Any], None], *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.crossing = crossing
        self.across = across

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module, with its statistics handed on."""
        if not self.crossing.get(module, False):
            return super().attention(module, query, key, value, mask, **options)
        options_of_attention.check(module, options, _SERVED, "use kd.analyze(model, part=...) for each stack")
        output, found = cross_attention.attend_across(
            query, key, value, mask, options.get("scaling"), options.get("position_bias")
        )
        self.across(found)
        return output.transpose(1, 2).contiguous(), None


@contextmanager
def watching(
    model: Any, stacks: list[Stack], layers: dict[str, table.Measuring], min_queries: int
) -> Iterator[dict[str, int]]:
    """Tell ``layers`` of a pass inside; yields what will be the number of tokens by name."""
    streams = {stack.name: StreamRecorder(stack.blocks, layers[stack.name].state) for stack in stacks}
    called: dict[str, list[int]] = {name: [] for name in layers}
    tokens: dict[str, int] = {}

    def running() -> tuple[str, int] | None:
        return next(((name, stream.block) for name, stream in streams.items() if stream.block is not None), None)

    def within(place: tuple[str, int], found: Any) -> None:
        called[place[0]].append(place[1])
        layers[place[0]].attention(place[1] + 1, found)

    def across(found: Any) -> None:
        place = running()
        if place is not None:
            called["cross"].append(place[1])
            layers["cross"].attention(place[1] + 1, found)

    with ExitStack() as stack:
        stack.enter_context(capture.lock(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device_of(model).type, enabled=False))
        stack.enter_context(evaluating(model))
        crossing = stack.enter_context(_crossing(model))
        for stream in streams.values():
            stack.enter_context(stream)
        recorder = _Recorder(crossing, across, running, within, min_queries=min_queries)
        stack.enter_context(capture.recording(model, recorder))
        yield tokens
    for one in stacks:
        streams[one.name].check(one.expected)
        check_one_per_block(called[one.name], one.expected, ())
        shape = streams[one.name].shape
        assert shape is not None
        tokens[one.name] = int(shape[1])
    check_one_per_block(called["cross"], stacks[1].expected, ())
    tokens["cross"] = tokens["decoder"]


@contextmanager
def _crossing(model: nn.Module) -> Iterator[dict[nn.Module, bool]]:
    """Modules that are given another sequence to hear, and whether their call that runs was given one."""
    given: dict[nn.Module, bool] = {}
    with ExitStack() as stack:
        for module in model.modules():
            parameters = inspect.signature(module.forward).parameters
            name = next((name for name in _ACROSS if name in parameters), None)
            if name is not None and not any(isinstance(below, nn.ModuleList) for below in module.modules()):
                place = list(parameters).index(name)

                def before(module: nn.Module, args: Any, kwargs: Any, name: str = name, place: int = place) -> None:
                    given[module] = (args[place] if len(args) > place else kwargs.get(name)) is not None

                stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield given
