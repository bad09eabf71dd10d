"""Forward passes of a trained model as a stream: each layer is handed on when its block ends, and held by nobody else.

A forward pass cannot be halted half-way, so whoever wants the layers is called (`Layers`) instead of asking for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics._progress import ProgressBar
from krause_dynamics.checkpoints import capture, own_attention
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, statistics_of
from krause_dynamics.checkpoints.blocks import StreamRecorder, check_kind, context_length, device_of, find_blocks
from krause_dynamics.checkpoints.inputs import prepare
from krause_dynamics.checkpoints.load import Checkpoint, load
from krause_dynamics.checkpoints.pictures import Pictures, shows_pictures, takes_pictures
from krause_dynamics.checkpoints.vectors import Vectors
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.runs.fingerprints import fingerprint

TIERS = ("sink", "statistics", "full")
MAPS = 1 << 28  # bytes that the attention maps of one block may take under attention="auto"


@runtime_checkable
class Inputs(Protocol):
    """What a model is shown: sequences of some kind, which know their batches and the model's arguments."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, shape (sequences,)."""

    @property
    def source(self) -> str:
        """What they came as, in words."""

    @property
    def left_out(self) -> int:
        """Tokens that are not shown."""

    def __len__(self) -> int:
        """Number of sequences."""

    def batches(self, size: int) -> Iterator[tuple[list[int], Any]]:
        """Batches of equal length: (indices of the sequences, what `arguments` takes)."""

    def arguments(self, batch: Any, model: Any) -> dict[str, Any]:
        """What the model's ``forward`` is called with for a batch."""

    def described(self) -> dict[str, np.ndarray]:
        """The sequences themselves, as arrays that a recorded run keeps."""


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


@dataclass(frozen=True)
class Passes:
    """A model and its inputs, checked, before anything is computed.

    Attributes:
        checkpoint: The model.
        inputs: Sequences.
        blocks: Modules to watch.
        expected: Calls of blocks that one forward pass must make.
        path: How attention is read: ``"registry"``, ``"eager"``, ``"krause"`` (it is ours) or ``"none"``.
        batch_size: Sequences per forward pass.
        min_queries: A key needs that many queries to be a strongest key.
        tier: How much of attention is looked at: ``"sink"``, ``"statistics"``, ``"full"`` (with the maps of a block) or
            ``"none"``.
        silent: Blocks (0, 1, ...) that by the configuration have no softmax attention.
        report: Told of (sequences done, all sequences), or None.
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
        if blocks is not None and isinstance(model, nn.Module) and not hasattr(model, "config"):
            checkpoint = Checkpoint(model, tokenizer, type(model).__name__, {"source": "loaded module"}, part)
        else:
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
        check_kind(base, getattr(prepared, "argument", "input_ids"))
        watched, expected = find_blocks(base, blocks)
        with capture.lock(base):  # nobody else's recording may be taken for the model's own attention
            path = _attention_path(base, attention)
        silent = _without_attention(getattr(base, "config", None), expected)
        report = ProgressBar("sequences") if progress is True else progress or None
        tier = _tier(attention, base, min(batch_size, len(prepared)), int(prepared.lengths.max()))
        return cls(checkpoint, prepared, watched, expected, path, batch_size, min_queries, tier, silent, report)

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
        if self.path in ("registry", "krause"):
            check_one_per_block(watch.called, self.expected, self.silent)
            for block in self.silent:
                if watch.found is not None:
                    layers.attention(block + 1, watch.found.nothing())
        elif self.path == "eager":
            self._check_unchanged(model, batch, output)
            for block, weights in enumerate(_returned(model, output, self.expected)):
                layers.attention(block + 1, statistics_of(weights, self.min_queries, self.keep_weights))
        return output

    @contextmanager
    def watching(self, layers: Layers, earliest: int = 0) -> Iterator[Watch]:
        """Tell ``layers`` of a forward pass inside: states from layer ``earliest`` on, and attention as it is computed.

        The caller's autocast is off meanwhile: what is measured is the model in its own dtype.
        """
        model = self.checkpoint.backbone
        time_major = getattr(getattr(model, "config", None), "model_type", "") == "xlnet"
        stream = StreamRecorder(self.blocks, layers.state, time_major=time_major, earliest=earliest)
        watch = Watch(stream)

        def attention(block: int, found: HeadStatistics) -> None:
            among = found.importance[:, 0].shape
            if stream.shape is not None and among != stream.shape:
                raise UnsupportedModel(
                    f"block {block + 1} attends among {tuple(among)} tokens where states are {tuple(stream.shape)}: in "
                    "windows of a picture, perhaps; pass attention=None for the hidden states alone"
                )
            watch.called.append(block)
            watch.found = watch.found or found
            layers.attention(block + 1, found)

        options: Any = {"min_queries": self.min_queries, "keep_weights": self.keep_weights}
        with ExitStack() as stack:
            stack.enter_context(capture.lock(model))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.autocast(device_of(model).type, enabled=False))
            stack.enter_context(evaluating(model))
            stack.enter_context(stream)
            if self.path == "registry":
                only = self.tier == "sink"
                recorder = capture.AttentionRecorder(lambda: stream.block, attention, sink_only=only, **options)
                stack.enter_context(capture.recording(model, recorder))
            elif self.path == "krause":
                stack.enter_context(own_attention.watching(lambda: stream.block, attention, **options))
            yield watch

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
        return model(**arguments) if hasattr(model, "config") else model(next(iter(arguments.values())))

    def _arguments(self, model: Any, batch: Any) -> dict[str, Any]:
        arguments = self.inputs.arguments(batch, model)
        if "use_cache" in inspect.signature(model.forward).parameters:
            arguments["use_cache"] = False
        if self.path == "eager":
            arguments["output_attentions"] = True
        return arguments


def model_inputs(
    checkpoint: Checkpoint,
    inputs: Any,
    *,
    tokenizer: Any = None,
    blocks: Sequence[nn.Module] | None = None,
    **cutting: Any,
) -> Inputs:
    """Inputs that this model takes; see :func:`~krause_dynamics.checkpoints.prepare`."""
    if isinstance(inputs, Inputs):
        return inputs
    base = checkpoint.backbone
    vectors = None if hasattr(base, "config") else Vectors.of(inputs)
    if vectors is not None:
        return vectors
    if takes_pictures(base, inputs):
        source, most = str(checkpoint.meta.get("source", "")), cutting.get("max_sequences")
        return Pictures.of(inputs, base, processor=tokenizer, folder=source, most=most, blocks=blocks)
    check_kind(base, "pixel_values" if shows_pictures(inputs) else "input_ids")
    vocabulary = getattr(getattr(base, "config", None), "vocab_size", None)
    chosen = checkpoint.tokenizer if tokenizer is None else tokenizer
    return prepare(inputs, chosen, context=context_length(base), vocabulary=vocabulary, **cutting)


def marks_of(inputs: Inputs) -> list[str]:
    """What tells inputs from others: a short hash of each length of sequences, whatever they are."""
    return [str(fingerprint(batch)) for _, batch in inputs.batches(len(inputs))]


def _tier(attention: str | None, model: Any, batch: int, tokens: int) -> str:
    """How much is looked at; ``"auto"``: the maps of a block where they are small."""
    if attention == "auto":
        heads = getattr(getattr(model, "config", None), "num_attention_heads", None) or 1
        return "full" if 4 * batch * heads * tokens**2 <= MAPS else "statistics"
    return {None: "none", "weights": "full", "eager": "statistics"}.get(attention, str(attention))


def _attention_path(model: Any, attention: str | None) -> str:
    """``registry`` if the model's attention can be replaced for the pass, else what the model itself returns."""
    if attention is None:
        return "none"
    if own_attention.is_ours(model):
        if attention == "eager":
            raise ValueError("attention='eager' is for models that return their weights; ours need not")
        return "krause"
    if not hasattr(model, "config"):
        raise UnsupportedModel(
            f"{type(model).__name__} has no attention of ours (kd.nn.KrauseAttention) and is no model of transformers; "
            "pass attention=None for the hidden states alone"
        )
    if attention == "eager":
        return "eager"
    reason = capture.refusal(model)
    if reason is None:
        return "registry"
    implementation = model.config._attn_implementation
    if implementation not in (None, "eager", "sdpa"):
        raise UnsupportedModel(
            f"attention cannot be recorded: {reason}. Pass attention=None for the hidden states alone"
        )
    return "eager"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, and every module's own mode restored afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _without_attention(config: Any, expected: int) -> tuple[int, ...]:
    """Blocks that a hybrid's configuration gives another mixer: convolutions, state spaces, linear attention."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    if len(kinds) != expected:
        return ()
    return tuple(i for i, kind in enumerate(kinds) if "attention" not in kind or "linear" in kind)


def check_one_per_block(called: list[int], expected: int, silent: tuple[int, ...]) -> None:
    """Refuse calls of attention that are not one a block.

    Args:
        called: Blocks (0, 1, ...) in the order of calls.
        expected: Number of blocks.
        silent: Blocks that have none.

    Raises:
        UnsupportedModel: Naming the first block that made another number of calls.
    """
    if len(silent) == expected:
        raise UnsupportedModel("no block has softmax attention; pass attention=None for the hidden states alone")
    wanted = [block for block in range(expected) if block not in silent]
    if called != wanted:
        counts = [called.count(block) for block in range(expected)]
        wrong = next(i for i, count in enumerate(counts) if count != (i not in silent))
        raise UnsupportedModel(
            f"block {wrong + 1} made {counts[wrong]} calls of softmax attention where one is expected, so its "
            "statistics would be missing or mixed; pass attention=None for the hidden states alone (a gated model: "
            "kd.models.branch_statistics has each branch)"
        )


def _returned(model: Any, output: Any, expected: int) -> Sequence[Tensor]:
    """The weights that the model itself returned, checked for what gets lost silently."""
    maps: Sequence[Tensor] | None = getattr(output, "attentions", None)
    name = type(model).__name__
    if not maps or len(maps) != expected or any(weights is None for weights in maps):
        raise UnsupportedModel(
            f"{name} returned attention weights of {len(maps or ())} of {expected} blocks, loaded with "
            f"attn_implementation={model.config._attn_implementation!r}; load it with attn_implementation='eager', or "
            "pass attention=None for the hidden states alone"
        )
    for i, weights in enumerate(maps):
        sums = weights.float().sum(-1)
        if weights.ndim != 4 or weights.shape[-2] != weights.shape[-1]:
            raise UnsupportedModel(
                f"{name}: the attention of block {i + 1} has shape {tuple(weights.shape)}, not one weight for each "
                "query and key (a window, perhaps); pass attention=None for the hidden states alone"
            )
        if not torch.allclose(sums, torch.ones_like(sums), atol=2e-2):
            raise UnsupportedModel(
                f"{name}: rows of the attention of block {i + 1} do not sum to 1, {tuple(weights.shape)}"
            )
    return maps
