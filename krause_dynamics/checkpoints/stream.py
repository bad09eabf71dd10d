"""Forward passes of a trained model as a stream: each layer is handed on when its block ends, and held by nobody else.

A forward pass cannot be halted half-way, so whoever wants the layers is called (`Layers`) instead of asking for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics._arguments.meant import unknown
from krause_dynamics._progress import ProgressBar
from krause_dynamics.checkpoints import capture, own_module
from krause_dynamics.checkpoints.attention_path import (
    TIERS,
    check_one_per_block,
    check_unchanged,
    path_of,
    returned_weights,
    tier_of,
    without_attention,
)
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, statistics_of
from krause_dynamics.checkpoints.backbone import evaluating, of_transformers
from krause_dynamics.checkpoints.blocks import check_kind, device_of, find_blocks
from krause_dynamics.checkpoints.load import Checkpoint, load
from krause_dynamics.checkpoints.pictures import Pictures
from krause_dynamics.checkpoints.residual_stream import StreamRecorder
from krause_dynamics.checkpoints.sequences import Inputs, model_inputs
from krause_dynamics.checkpoints.tokens import check_company
from krause_dynamics.checkpoints.watch import Layers, Watch, hearing

# Arguments that load a model, those that cut inputs into sequences, and all that a function hands on to `Passes.of`.
LOADING = ("dtype", "part", "device", "trust_remote_code")
CUTTING = ("sequence_length", "max_sequences", "truncate", "pad_token")
OPTIONS = ("tokenizer", "blocks", "batch_size", "progress", *LOADING, *CUTTING)


@dataclass(frozen=True)
class Passes:
    """A model and its inputs, checked, before anything is computed.

    Attributes:
        checkpoint: The model.
        inputs: Sequences.
        blocks: Modules to watch.
        expected: Calls of blocks that one forward pass must make.
        path: How attention is read: ``"registry"``, ``"eager"``, ``"krause"`` (it is ours),
            ``"calls"`` (of a module of one's own), ``"windows"`` (of a picture) or ``"none"``.
        batch_size: Sequences per forward pass.
        min_queries: A key needs that many queries to be a strongest key.
        tier: How much of attention is looked at: ``"sink"``, ``"statistics"``, ``"full"`` (with the maps of a block) or
            ``"none"``.
        silent: Blocks (0, 1, ...) that by the configuration have no softmax attention.
        report: Told of (sequences done, all sequences), or None.
        order: How inputs and states of a module of one's own lie; None of a model of transformers.
    """

    checkpoint: Checkpoint
    inputs: Inputs
    blocks: list[nn.Module]
    expected: int
    path: str
    batch_size: int
    min_queries: int
    tier: str
    silent: tuple[int, ...]
    report: Callable[[int, int], Any] | None
    order: own_module.Order | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: Any,
        *,
        attention: str | None = "statistics",
        batch_size: int = 8,
        min_queries: int = 8,
        blocks: Sequence[nn.Module] | None = None,
        progress: bool | Callable[[int, int], None] = False,
        tokenizer: Any = None,
        **further: Any,
    ) -> Passes:
        """Load the model and prepare the inputs; arguments as in ``kd.analyze``.

        Args:
            model: What is loaded.
            inputs: What it is shown.
            attention: How much of attention is looked at.
            batch_size: Sequences per forward pass.
            min_queries: A key needs that many queries to be a strongest key.
            blocks: The blocks in order.
            progress: Whether, and whom, to tell.
            tokenizer: Instead of the checkpoint's own.
            **further: Of `LOADING` and `CUTTING`.

        Raises:
            ValueError: Bad arguments or inputs.
            UnsupportedModel: If the model cannot be recorded faithfully.
        """
        loading, cutting = ({name: further[name] for name in names if name in further} for names in (LOADING, CUTTING))
        if len(loading) + len(cutting) < len(further):
            raise unknown("a pass over a model", further, OPTIONS)
        checkpoint = load(model, tokenizer=tokenizer, **loading)
        prepared = model_inputs(checkpoint, inputs, tokenizer=tokenizer, blocks=blocks, **cutting)
        if attention not in (None, "auto", *TIERS, "weights", "eager"):
            raise ValueError(
                "attention must be 'auto', 'sink', 'statistics', 'full', 'weights', 'eager' or None, "
                f"received {attention!r}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, received {batch_size}")
        base = checkpoint.backbone
        check_kind(base, getattr(prepared, "argument", "input_ids"), counted=blocks is None)
        watched, expected = find_blocks(base, blocks)
        order = None if of_transformers(base) else own_module.tried(base, prepared, watched)
        prepared = prepared if order is None else order.inputs
        check_company(prepared.lengths, prepared.source)
        with capture.lock(base):  # nobody else's recording may be taken for the model's own attention
            path = path_of(base, attention, watched)
        silent = without_attention(getattr(base, "config", None), expected)
        report = ProgressBar("sequences") if progress is True else progress or None
        tier = tier_of(attention, base, min(batch_size, len(prepared)), int(prepared.lengths.max()))
        return cls(checkpoint, prepared, watched, expected, path, batch_size, min_queries, tier, silent, report, order)

    @cached_property
    def known(self) -> frozenset[int]:
        """Tokens that sequences have."""
        return frozenset(self.inputs.lengths.tolist())

    @property
    def time_major(self) -> bool:
        """Whether states of the blocks are (T, batch, d)."""
        if self.order is not None:
            return self.order.time_major
        return getattr(getattr(self.checkpoint.backbone, "config", None), "model_type", "") == "xlnet"

    @property
    def keep_weights(self) -> bool:
        """Whether statistics keep the weights of a block themselves."""
        return self.tier == "full"

    def batches(self) -> Iterator[tuple[list[int], Any]]:
        """(indices of the sequences, what the inputs hold of them), progress told after each."""
        finished = 0
        for members, batch in self.inputs.batches(self.batch_size):
            yield members, batch
            finished += len(members)
            if self.report is not None:
                self.report(finished, len(self.inputs))

    def stream(self, batch: Any, layers: Layers) -> Any:
        """One forward pass of a batch: ``layers`` is told of each, and the model's output is returned.

        Raises:
            UnsupportedModel: If a layer or its attention would be missing or mixed.
            ValueError: A state is not finite.
        """
        model = self.checkpoint.backbone
        with self.watching(layers) as watch:
            output = self.run(model, batch)
        watch.stream.check(self.expected)
        if self.path in ("registry", "krause", "calls", "windows"):
            check_one_per_block(watch.called, self.expected, self.silent)
            for block in self.silent:
                if watch.found is not None:
                    layers.attention(block + 1, watch.found.nothing())
        elif self.path == "eager":
            plain = self._arguments(model, batch[:1]) | {"output_attentions": False}
            check_unchanged(model, plain, output)
            for block, weights in enumerate(returned_weights(model, output, self.expected)):
                layers.attention(block + 1, statistics_of(weights, self.min_queries, self.keep_weights))
        return output

    @contextmanager
    def watching(self, layers: Layers, earliest: int = 0) -> Iterator[Watch]:
        """Tell ``layers`` of a forward pass inside: states from layer ``earliest`` on, and attention as it is computed.

        The caller's autocast is off meanwhile: what is measured is the model in its own dtype.
        """
        model = self.checkpoint.backbone
        at_end: list[Callable[[], None]] = []  # of a block: what is called before its state is told

        def state(layer: int, tokens: Tensor) -> None:
            for finish in at_end:
                finish()
            layers.state(layer, tokens)

        stream = StreamRecorder(
            self.blocks, state, time_major=self.time_major, earliest=earliest, lengths=self.known,
            maps=isinstance(self.inputs, Pictures),
        )  # fmt: skip
        watch = Watch(stream)

        def attention(block: int, found: HeadStatistics) -> None:
            watch.heard(block, found)
            layers.attention(block + 1, found)

        with ExitStack() as stack:
            stack.enter_context(capture.lock(model))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.autocast(device_of(model).type, enabled=False))
            stack.enter_context(evaluating(model))
            stack.enter_context(stream)
            heard = hearing(
                self.path, model, self.blocks, lambda: stream.block, attention, sink_only=self.tier == "sink",
                min_queries=self.min_queries, keep_weights=self.keep_weights,
            )  # fmt: skip
            at_end.extend(stack.enter_context(heard))
            yield watch
            for finish in at_end:  # calls outside of blocks, or of one whose state nobody is told of
                finish()

    def run(self, model: Any, batch: Any) -> Any:
        """One forward pass: arguments by name for a model of transformers, the inputs alone for another module."""
        arguments = self._arguments(model, batch)
        return model(**arguments) if self.order is None else self.order.run(model, next(iter(arguments.values())))

    def _arguments(self, model: Any, batch: Any) -> dict[str, Any]:
        arguments = self.inputs.arguments(batch, model)
        if "use_cache" in inspect.signature(model.forward).parameters:
            arguments["use_cache"] = False
        if self.path == "eager":
            arguments["output_attentions"] = True
        return arguments
