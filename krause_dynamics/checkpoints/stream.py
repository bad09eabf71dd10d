"""Forward passes of a trained model as a stream: each layer is handed on when its block ends, and held by nobody else.

A forward pass cannot be halted half-way, so whoever wants the layers is called (`Layers`) instead of asking for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from krause_dynamics._progress import ProgressBar
from krause_dynamics.checkpoints import capture, finite, own_attention, own_module, torch_calls, windows
from krause_dynamics.checkpoints.attention_path import (
    TIERS,
    check_one_per_block,
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
from krause_dynamics.errors import UnsupportedModel

Running = Callable[[], int | None]  # the block that is running
Told = Callable[[int, HeadStatistics], None]  # of the attention of a block


class Layers(Protocol):
    """Who is told of the layers of one batch of b sequences of equal length T."""

    def state(self, layer: int, tokens: Tensor) -> None:
        """Residual stream (b, T, d) in float32, where the block runs; 0 = embedding, i = after block i."""

    def attention(self, block: int, found: HeadStatistics) -> None:
        """Statistics of the attention of block 1, 2, ...; before the state after that block, or after all states."""


@dataclass
class Watch:
    """What is seen of one forward pass.

    Attributes:
        stream: Hooks on the blocks.
        called: Blocks (0, 1, ...) whose attention was told, in order.
        found: Statistics of the first of them.
    """

    stream: StreamRecorder
    called: list[int] = field(default_factory=list)
    found: HeadStatistics | None = None

    def heard(self, block: int, found: HeadStatistics) -> None:
        """Note statistics of a block.

        Raises:
            UnsupportedModel: They are among other tokens than the states, or of other heads than before.
        """
        among, states = found.importance[:, 0].shape, self.stream.shape
        if states is not None and among != states:
            raise UnsupportedModel(
                f"block {block + 1} attends among {tuple(among)} tokens where states are {tuple(states)}: in windows "
                "of a picture, perhaps; pass attention=None for the hidden states alone"
            )
        self.called.append(block)
        self.found = self.found or found
        if found.entropy.shape != self.found.entropy.shape:
            raise UnsupportedModel(
                f"block {block + 1} has {found.entropy.shape[1]} heads where block {self.called[0] + 1} has "
                f"{self.found.entropy.shape[1]}: blocks of one analysis have the same; pass attention=None for the "
                "hidden states alone, or blocks= of one kind"
            )


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
        tokenizer: Any,
        attention: str | None,
        batch_size: int,
        min_queries: int,
        device: str | torch.device | None,
        trust_remote_code: bool,
        progress: bool | Callable[[int, int], None],
        dtype: str | torch.dtype | None = None,
        part: str | None = None,
        blocks: Sequence[nn.Module] | None = None,
        **cutting: Any,
    ) -> Passes:
        """Load the model and prepare the inputs; arguments as in ``record``, ``cutting`` as in ``prepare``.

        Raises:
            ValueError: Bad arguments or inputs.
            UnsupportedModel: If the model cannot be recorded faithfully.
        """
        checkpoint = load(
            model, tokenizer=tokenizer, dtype=dtype, device=device, part=part, trust_remote_code=trust_remote_code
        )
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
            self._check_unchanged(model, batch, output)
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
            at_end.extend(self._hear(lambda: stream.block, attention, stack))
            yield watch
            for finish in at_end:  # calls outside of blocks, or of one whose state nobody is told of
                finish()

    def _hear(self, running: Running, told: Told, stack: ExitStack) -> list[Callable[[], None]]:
        """Until the stack ends, attention is told of, by the path of the model; returns what a block's end calls."""
        model = self.checkpoint.backbone
        options: Any = {"min_queries": self.min_queries, "keep_weights": self.keep_weights}
        if self.path == "registry":
            only = self.tier == "sink"
            later = device_of(model).type != finite.HOST  # a CPU would gain nothing, and hold more meanwhile
            recorder = capture.AttentionRecorder(running, told, sink_only=only, later=later, **options)
            stack.enter_context(capture.recording(model, recorder))
            return [recorder.finish]
        if self.path in ("krause", "calls"):
            stack.enter_context(own_attention.watching(running, told, **options))
        if self.path == "calls":
            stack.enter_context(torch_calls.watching(running, told, **options))
        if self.path == "windows":
            stack.enter_context(windows.watching(model, self.blocks, running, told, **options))
        return []

    def _check_unchanged(self, model: Any, batch: Any, output: Any) -> None:
        """Asking a model for its weights must not change what it computes: seen on the first sequence of a batch."""
        arguments = self._arguments(model, batch[:1]) | {"output_attentions": False}
        with torch.no_grad(), evaluating(model), torch.autocast(model.device.type, enabled=False):
            plain = model(**arguments).last_hidden_state.float()
        asked = output.last_hidden_state[:1].float()
        change = float((asked - plain).norm() / plain.norm().clamp_min(1e-30))
        if not change < (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.05):
            raise UnsupportedModel(
                f"{type(model).__name__} computes other states when asked for its attention weights ({change:.0%} "
                f"off; loaded with attn_implementation={model.config._attn_implementation!r}), so these are not its "
                "weights; load it with attn_implementation='eager', or pass attention=None for the hidden states alone"
            )

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
