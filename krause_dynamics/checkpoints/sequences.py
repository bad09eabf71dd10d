"""What a model is shown: sequences of some kind, and which kind a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import nn

from krause_dynamics.checkpoints.backbone import of_transformers
from krause_dynamics.checkpoints.blocks import check_kind, context_length
from krause_dynamics.checkpoints.inputs import prepare
from krause_dynamics.checkpoints.load import Checkpoint
from krause_dynamics.checkpoints.pictures import Pictures, shows_pictures, takes_pictures
from krause_dynamics.checkpoints.vectors import Vectors
from krause_dynamics.runs.fingerprints import fingerprint


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


def model_inputs(
    checkpoint: Checkpoint,
    inputs: Any,
    *,
    tokenizer: Any = None,
    blocks: Sequence[nn.Module] | None = None,
    **cutting: Any,
) -> Inputs:
    """Inputs that this model takes; see `kd.checkpoints.prepare`.

    Raises:
        ValueError: They are cut already, and shall be cut in another way.
    """
    if isinstance(inputs, Inputs):
        if asked := [name for name, value in cutting.items() if value not in (None, False)]:
            raise ValueError(
                f"{asked[0]}={cutting[asked[0]]!r} is for inputs that are cut here; these are {len(inputs)} sequences "
                "already: pass it to kd.checkpoints.prepare"
            )
        return inputs
    base = checkpoint.backbone
    vectors = None if of_transformers(base) else Vectors.of(inputs)
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
