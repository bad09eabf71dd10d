"""Forward passes of a trained model with its residual stream and attention recorded, batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import capture
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, statistics_of
from krause_dynamics.checkpoints.blocks import StreamRecorder, check_kind, context_length, find_blocks
from krause_dynamics.checkpoints.inputs import Tokens, prepare
from krause_dynamics.checkpoints.load import Checkpoint
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.runs.progress import ProgressBar


@dataclass(frozen=True)
class Batch:
    """What one forward pass of sequences of equal length T gave.

    Attributes:
        sequences: Indices of the sequences.
        states: Residual stream, (L + 1, b, T, d); 0 = embedding, i = after block i, before any final norm.
        final_norm: What the model makes of the last state (its final norm), (b, T, d); None if it leaves it alone.
        attention: Statistics of every block, empty when not asked for.
        path: How attention was read: ``"registry"``, ``"eager"`` or ``"none"``.
    """

    sequences: list[int]
    states: np.ndarray
    final_norm: np.ndarray | None
    attention: list[HeadStatistics]
    path: str


def model_tokens(checkpoint: Checkpoint, inputs: Any, *, tokenizer: Any = None, **options: Any) -> Tokens:
    """Inputs as token ids that this model takes; see :func:`~krause_dynamics.checkpoints.prepare`."""
    if isinstance(inputs, Tokens):
        return inputs
    base = checkpoint.model.base_model
    check_kind(base)
    vocabulary = getattr(base.config, "vocab_size", None)
    chosen = checkpoint.tokenizer if tokenizer is None else tokenizer
    return prepare(inputs, chosen, context=context_length(base), vocabulary=vocabulary, **options)


def forward_passes(
    checkpoint: Checkpoint,
    tokens: Tokens,
    *,
    attention: str | None = "statistics",
    batch_size: int = 8,
    min_queries: int = 8,
    blocks: Sequence[nn.Module] | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Iterator[Batch]:
    """One :class:`Batch` after the other, so that a corpus costs the memory of one; arguments as in ``record``."""
    if attention not in (None, "statistics", "weights", "eager"):
        raise ValueError(f"attention must be 'statistics', 'weights', 'eager' or None, received {attention!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, received {batch_size}")
    base = checkpoint.model.base_model
    check_kind(base)
    watched, expected = find_blocks(base, blocks)
    path = _attention_path(base, attention)
    report = ProgressBar("sequences") if progress is True else progress or None
    finished = 0
    for members, ids in tokens.batches(batch_size):
        result = _run(base, ids, watched, expected, path, min_queries, attention == "weights")
        yield Batch(members, *result, path)
        finished += len(members)
        if report is not None:
            report(finished, len(tokens))


def _attention_path(model: Any, attention: str | None) -> str:
    """``registry`` if the model's attention can be replaced for the pass, else what the model itself returns."""
    if attention is None:
        return "none"
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


def _run(
    model: Any, ids: np.ndarray, blocks: list[nn.Module], expected: int, path: str, min_queries: int, keep: bool
) -> tuple[np.ndarray, np.ndarray | None, list[HeadStatistics]]:
    stream = StreamRecorder(blocks)
    recorder = capture.AttentionRecorder(lambda: stream.block, min_queries=min_queries, keep_weights=keep)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(model))
        stack.enter_context(stream)
        if path == "registry":
            stack.enter_context(capture.recording(model, recorder))
        output = model(**_arguments(model, ids, path))
    stream.check(expected)
    statistics: list[HeadStatistics] = []
    if path == "registry":
        statistics = _one_per_block(recorder.calls, expected)
    elif path == "eager":
        statistics = _returned(model, output, expected, min_queries, keep)
    final = _final_norm(output, stream.states[-1])
    return torch.stack(stream.states).numpy(), final, statistics


def _arguments(model: Any, ids: np.ndarray, path: str) -> dict[str, Any]:
    device = model.get_input_embeddings().weight.device
    tensor = torch.as_tensor(ids, device=device if device.type != "meta" else model.device)
    arguments: dict[str, Any] = {"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}
    accepted = inspect.signature(model.forward).parameters
    if "use_cache" in accepted:
        arguments["use_cache"] = False
    if path == "eager":
        arguments["output_attentions"] = True
    return arguments


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


def _one_per_block(calls: list[tuple[int, HeadStatistics]], expected: int) -> list[HeadStatistics]:
    blocks = [block for block, _ in calls]
    if blocks != list(range(expected)):
        counts = [blocks.count(block) for block in range(expected)]
        wrong = next(i for i, count in enumerate(counts) if count != 1)
        raise UnsupportedModel(
            f"block {wrong + 1} made {counts[wrong]} calls of softmax attention where one is expected, so its "
            "statistics would be missing or mixed; pass attention=None for the hidden states alone"
        )
    return [statistics for _, statistics in calls]


def _returned(model: Any, output: Any, expected: int, min_queries: int, keep: bool) -> list[HeadStatistics]:
    """Statistics of the weights that the model itself returned, checked for what gets lost silently."""
    maps = getattr(output, "attentions", None)
    name = type(model).__name__
    if not maps or len(maps) != expected or any(weights is None for weights in maps):
        raise UnsupportedModel(
            f"{name} returned attention weights of {len(maps or ())} of {expected} blocks, loaded with "
            f"attn_implementation={model.config._attn_implementation!r}; load it with attn_implementation='eager', or "
            "pass attention=None for the hidden states alone"
        )
    for i, weights in enumerate(maps):
        sums = weights.float().sum(-1)
        if weights.ndim != 4 or not torch.allclose(sums, torch.ones_like(sums), atol=2e-2):
            raise UnsupportedModel(
                f"{name}: rows of the attention of block {i + 1} do not sum to 1, {tuple(weights.shape)}"
            )
    return [statistics_of(weights, min_queries, keep) for weights in maps]


def _final_norm(output: Any, last: Tensor) -> np.ndarray | None:
    after = output.last_hidden_state.detach().to(device="cpu", dtype=torch.float32)
    return None if torch.equal(after, last) else after.numpy()
