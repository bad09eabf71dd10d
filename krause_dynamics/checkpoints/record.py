"""A forward pass of a trained model as a Trajectory: depth is time, hidden states are positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics.checkpoints import allocator
from krause_dynamics.checkpoints.attention_statistics import SAMPLED, HeadStatistics
from krause_dynamics.checkpoints.sequences import marks_of
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.trajectory import Trajectory

STATISTICS = tuple(field.name for field in fields(HeadStatistics) if field.name != "weights")
# Those over the keys of a sequence, which are as many as it has tokens.
OVER_TOKENS = ("importance", "published_importance", "weights")


@reads(sequence_length=Maybe(COUNT), max_sequences=Maybe(COUNT), batch_size=COUNT, min_queries=COUNT)
def record(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    attention: str | None = "statistics",
    batch_size: int = 8,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    truncate: bool = False,
    pad_token: int | None = None,
    min_queries: int = 8,
    blocks: Sequence[nn.Module] | None = None,
    dtype: str | torch.dtype | None = None,
    part: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool | Callable[[int, int], None] = False,
) -> Trajectory:
    """Run a trained model and keep its tokens' positions after every block.

    Args:
        model: What :func:`~krause_dynamics.checkpoints.load` takes, also any torch module of blocks.
        inputs: What :func:`~krause_dynamics.checkpoints.prepare` takes; for a module of one's own also a floating array
            (sequences, T, d), which its forward is given alone; for a vision model pixels (n, channels, height, width)
            or image files, as :func:`analyze` takes them. Padding is cut off and sequences of equal length are run
            together, so that padding on the left, on the right or none give the same numbers.
        tokenizer: Instead of the checkpoint's own; for pictures an image processor.
        attention: ``"statistics"`` (default) puts the sums over the weights of every block into ``extras``, NaN where
            a hybrid has none: importance, published_importance, first_token_score, first_by_quarter, entropy,
            strongest_key, self_weight, mean_distance, distance_profile, head_distance, top_keys, score_spread,
            participation and learned_sink (``checkpoints.attention_statistics`` defines them), in one pass with the
            attention itself and in memory linear in T; ``"weights"`` also the weights themselves, (blocks, sequences,
            heads, T, T);
            ``"sink"`` looks at a few keys only, which saves time on a GPU; ``"eager"`` reads what the model itself
            returns instead of using the registry; None leaves attention out.
        batch_size: Sequences per forward pass; 8 keeps the memory of a small model's states low.
        sequence_length: Cut text into consecutive sequences of this many tokens.
        max_sequences: Keep only the first ones.
        truncate: Cut what is longer than the model's context, which otherwise is an error.
        pad_token: Id that is padding wherever it stands at either end of a row of ids.
        min_queries: A key needs that many queries to be a ``strongest_key`` (the last ones average a row or two).
        blocks: The blocks in order, when the search cannot find them.
        dtype: Of the weights of a model that is loaded here, such as ``"float32"``; None keeps the checkpoint's.
        part: Which part of a composed model: ``"encoder"``, ``"decoder"`` or the path of a submodule.
        device: Where a model that is loaded here runs, such as ``"cuda"``, or ``"auto"`` for several GPUs; a loaded
            model stays where it is.
        trust_remote_code: Only True runs Python files of a checkpoint.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.

    Returns:
        Trajectory with ``times`` 0..L, ``positions`` (L + 1, sequences, T, d) in float32 on the CPU, zero on padding;
        ``log_mass`` (sequences, T), 0 on tokens and -inf on padding; ``extras["final_norm"]`` apart where there is one.

    Raises:
        UnsupportedModel: If a layer would be missing or a mask lost; the message says why.
        ValueError: If the inputs do not fit the model.
    """
    run = Passes.of(
        model,
        inputs,
        tokenizer=tokenizer,
        sequence_length=sequence_length,
        max_sequences=max_sequences,
        truncate=truncate,
        pad_token=pad_token,
        attention=attention,
        batch_size=batch_size,
        min_queries=min_queries,
        blocks=blocks,
        dtype=dtype,
        part=part,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    return _assemble(run, [Batch.of(run, members, batch) for members, batch in run.batches()])


class _Kept:
    """Keeps every layer that it is told of, on the host."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.found: dict[int, HeadStatistics] = {}

    def state(self, layer: int, tokens: Tensor) -> None:
        self.states.append(tokens.cpu())
        allocator.give_back(layer)

    def attention(self, block: int, found: HeadStatistics) -> None:
        self.found[block] = found


@dataclass(frozen=True)
class Batch:
    """What one forward pass of sequences of equal length T gave.

    Attributes:
        sequences: Indices of the sequences.
        states: Residual stream, (L + 1, b, T, d); 0 = embedding, i = after block i, before any final norm.
        final_norm: What the model makes of the last state (its final norm), (b, T, d); None if it leaves it alone.
        attention: Statistics of every block, empty when not asked for.
    """

    sequences: list[int]
    states: np.ndarray
    final_norm: np.ndarray | None
    attention: list[HeadStatistics]

    @classmethod
    def of(cls, run: Passes, members: list[int], batch: Any) -> Batch:
        """Run a batch and keep everything."""
        kept = _Kept()
        output = run.stream(batch, kept)
        final, last = None, getattr(output, "last_hidden_state", None)  # a model with its head returns none
        if last is not None:
            after = last.detach().to(device="cpu", dtype=torch.float32)
            unchanged = after.shape == kept.states[-1].shape and torch.equal(after, kept.states[-1])
            # Of one stage of several the model goes on with fewer tokens.
            final = None if unchanged or after.shape[:2] != kept.states[-1].shape[:2] else after.numpy()
        found = [kept.found[block] for block in sorted(kept.found)]
        return cls(members, torch.stack(kept.states).numpy(), final, found)


def _assemble(run: Passes, batches: list[Batch]) -> Trajectory:
    lengths, count = run.inputs.lengths, len(run.inputs)
    longest, layers, width = int(lengths.max()), len(batches[0].states), batches[0].states.shape[-1]
    positions = np.zeros((layers, count, longest, width), dtype=np.float32)
    log_mass = np.full((count, longest), -np.inf, dtype=np.float32)
    for i, length in enumerate(lengths):
        log_mass[i, :length] = 0.0
    extras: dict[str, np.ndarray] = {"lengths": lengths, **run.inputs.described()}
    for batch in batches:
        length = batch.states.shape[2]
        positions[:, batch.sequences, :length] = batch.states
        if batch.final_norm is not None:
            # Some models end narrower than their blocks are (OPT-350m).
            shape = (count, longest, batch.final_norm.shape[-1])
            extras.setdefault("final_norm", np.zeros(shape, dtype=np.float32))
            extras["final_norm"][batch.sequences, :length] = batch.final_norm
        if batch.attention:
            _put_attention(extras, batch, count, longest)
    return Trajectory(
        times=np.arange(layers, dtype=float),
        positions=positions,
        log_mass=log_mass,
        extras=extras,
        # By sequence or by block: none of them is sliced with the layers.
        meta=describe(run) | {"not_over_time": sorted(extras)},
    )


def _put_attention(extras: dict[str, np.ndarray], batch: Batch, count: int, longest: int) -> None:
    """Statistics with the axes (blocks, sequences, heads, ...); what lies beyond a sequence's end stays zero."""
    names = (*STATISTICS, "weights") if batch.attention[0].weights is not None else STATISTICS
    for name in names:
        blocks = _together([getattr(statistics, name) for statistics in batch.attention])
        key = "attention" if name == "weights" else name
        ends = [longest] * (blocks.ndim - 3) if name in OVER_TOKENS else list(blocks.shape[3:])
        if name == "top_keys":
            ends[0] = min(longest, SAMPLED)
        extras.setdefault(key, np.zeros((len(blocks), count, blocks.shape[2], *ends), dtype=blocks.dtype))
        part: Any = (slice(None), batch.sequences, slice(None), *(slice(n) for n in blocks.shape[3:]))
        extras[key][part] = blocks


def _together(blocks: list[Tensor]) -> np.ndarray:
    """Tensors of all blocks as one array: of a GPU in one copy, of several in one each."""
    if len({x.device for x in blocks}) > 1:
        blocks = [x.cpu() for x in blocks]
    return torch.stack(blocks).cpu().numpy()


def describe(run: Passes) -> dict[str, Any]:
    """Facts that make a result repeatable; they go into the metadata of every result."""
    import transformers

    checkpoint, inputs = run.checkpoint, run.inputs
    model = checkpoint.backbone
    return {
        "axis": "layer",
        "model": checkpoint.name,
        "model_type": getattr(getattr(model, "config", None), "model_type", type(model).__name__),
        "source": checkpoint.meta.get("source", ""),
        "tensors_not_used": checkpoint.meta.get("tensors_not_used", []),
        "part": checkpoint.part or "",
        "layers": run.expected,
        "blocks_without_attention": [block + 1 for block in run.silent],
        "dtype": str(next(model.parameters(), torch.empty(0)).dtype).removeprefix("torch."),
        "statistics_dtype": "float32",
        "attention_path": run.path,
        "attention_tier": run.tier,
        # A gated model has a Krause branch beside its own attention, which the registry does not see.
        "attention_branch": "softmax" if getattr(getattr(model, "config", None), "krause_branch", None) else "",
        "inputs": inputs.source,
        "inputs_fingerprint": marks_of(inputs),
        "sequences": len(inputs),
        "tokens_shortest": int(inputs.lengths.min()),
        "tokens_longest": int(inputs.lengths.max()),
        "tokens_left_out": inputs.left_out,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
