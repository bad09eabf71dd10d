"""A forward pass of a trained model as a Trajectory: depth is time, hidden states are positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics.checkpoints import allocator
from krause_dynamics.checkpoints.arriving import Arriving
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.sampled_rows import SAMPLED
from krause_dynamics.checkpoints.sequences import marks_of
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel
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
        model: What `kd.checkpoints.load` takes, also any torch module of blocks.
        inputs: What `kd.checkpoints.prepare` takes; for a module of one's own also a floating array
            (sequences, T, d), which its forward is given alone; for a vision model pixels (n, channels, height, width)
            or image files, as `analyze` takes them. Padding is cut off and sequences of equal length are run
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
    kept = _Recording(run)
    for members, batch in run.batches():
        kept.add(members, batch)
    return kept.trajectory()


class _Recording:
    """Every layer of every sequence, put where it stays as it comes: nothing is held twice.

    Attributes:
        run: The model and its inputs.
        positions: Residual stream, (L + 1, sequences, T, d); 0 = embedding, i = after block i, before any final norm.
        extras: What is kept beside it.
    """

    def __init__(self, run: Passes) -> None:
        self.run = run
        self.positions: np.ndarray | None = None
        self.extras: dict[str, np.ndarray] = {"lengths": run.inputs.lengths, **run.inputs.described()}
        self._members: list[int] = []
        self._found: dict[int, HeadStatistics] = {}
        self._arriving = Arriving(self._put)

    def add(self, members: list[int], batch: Any) -> None:
        """Run a batch of sequences of equal length."""
        self._members, self._found = members, {}
        output = self.run.stream(batch, self)
        self._arriving.wait()
        last = getattr(output, "last_hidden_state", None)  # a model with its head returns none
        if last is not None:
            self._put_final_norm(last.detach().to(device="cpu", dtype=torch.float32).numpy())
        if self._found:
            found = [self._found[block] for block in sorted(self._found)]
            _put_attention(self.extras, members, found, len(self.run.inputs), int(self.run.inputs.lengths.max()))

    def state(self, layer: int, tokens: Tensor) -> None:
        """Put a layer where it stays; that of a GPU is fetched while the next block runs."""
        self._arriving.send(layer, tokens)
        allocator.give_back(layer)

    def attention(self, block: int, found: HeadStatistics) -> None:
        """Keep the statistics of a block."""
        self._found[block] = found

    def _put(self, layer: int, tokens: Tensor) -> None:
        lengths, (_, length, width) = self.run.inputs.lengths, tokens.shape
        if self.positions is None:
            shape = (self.run.expected + 1, len(lengths), int(lengths.max()), width)
            self.positions = np.zeros(shape, dtype=np.float32)
        if width != self.positions.shape[-1]:
            raise UnsupportedModel(
                f"block {layer} leaves states of {width} numbers where those before have {self.positions.shape[-1]}; "
                "what is recorded keeps its width"
            )
        self.positions[layer, self._members, :length] = tokens.numpy()

    def _put_final_norm(self, after: np.ndarray) -> None:
        """What the model makes of the last state, (b, T, d), unless it leaves it alone."""
        assert self.positions is not None
        _, count, longest, _ = self.positions.shape
        length = int(self.run.inputs.lengths[self._members[0]])
        last = self.positions[-1, self._members, :length]
        # Of one stage of several the model goes on with fewer tokens.
        if after.shape[:2] != last.shape[:2] or np.array_equal(after, last):
            return
        # Some models end narrower than their blocks are (OPT-350m).
        shape = (count, longest, after.shape[-1])
        self.extras.setdefault("final_norm", np.zeros(shape, dtype=np.float32))[self._members, :length] = after

    def trajectory(self) -> Trajectory:
        """All of it."""
        assert self.positions is not None
        layers, count, longest, _ = self.positions.shape
        log_mass = np.full((count, longest), -np.inf, dtype=np.float32)
        for i, length in enumerate(self.run.inputs.lengths):
            log_mass[i, :length] = 0.0
        return Trajectory(
            times=np.arange(layers, dtype=float),
            positions=self.positions,
            log_mass=log_mass,
            extras=self.extras,
            # By sequence or by block: none of them is sliced with the layers.
            meta=describe(self.run) | {"not_over_time": sorted(self.extras)},
        )


def _put_attention(
    extras: dict[str, np.ndarray], members: list[int], found: list[HeadStatistics], count: int, longest: int
) -> None:
    """Statistics with the axes (blocks, sequences, heads, ...); what lies beyond a sequence's end stays zero."""
    names = (*STATISTICS, "weights") if found[0].weights is not None else STATISTICS
    for name in names:
        blocks = _together([getattr(statistics, name) for statistics in found])
        key = "attention" if name == "weights" else name
        ends = [longest] * (blocks.ndim - 3) if name in OVER_TOKENS else list(blocks.shape[3:])
        if name == "top_keys":
            ends[0] = min(longest, SAMPLED)
        extras.setdefault(key, np.zeros((len(blocks), count, blocks.shape[2], *ends), dtype=blocks.dtype))
        part: Any = (slice(None), members, slice(None), *(slice(n) for n in blocks.shape[3:]))
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
