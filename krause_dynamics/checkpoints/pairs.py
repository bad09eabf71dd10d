"""What an encoder-decoder is shown: sequences for its encoder, each with one for its decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.checkpoints.blocks import context_length, device_of
from krause_dynamics.checkpoints.inputs import prepare
from krause_dynamics.checkpoints.tokens import Tokens


@dataclass(frozen=True)
class Features:
    """Floating inputs of an encoder: sound (n, mels, frames), pictures (n, channels, height, width).

    Attributes:
        values: One an entry of the first axis.
        argument: Name of the argument of the model's ``forward``.
        lengths: Tokens that the encoder makes of each, as far as it has run.
    """

    values: Tensor
    argument: str
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    source = "features"
    left_out = 0

    def __len__(self) -> int:
        return len(self.values)

    def batches(self, size: int) -> Iterator[tuple[list[int], Tensor]]:
        """(indices, values)."""
        for start in range(0, len(self), size):
            yield list(range(start, min(start + size, len(self)))), self.values[start : start + size]

    def described(self) -> dict[str, np.ndarray]:
        """Nothing: they are large, and the caller has them."""
        return {}

    def arguments(self, batch: Tensor, model: Any) -> dict[str, Any]:
        """The values, where the model is and in its dtype."""
        weight = next(model.parameters(), batch)
        return {self.argument: batch.to(device=device_of(model), dtype=weight.dtype)}


@dataclass(frozen=True)
class Pairs:
    """Sources and targets, one to one.

    Attributes:
        sources: What the encoder reads.
        targets: What the decoder is shown.
    """

    sources: Tokens | Features
    targets: Tokens

    @classmethod
    def of(cls, inputs: Any, targets: Any, checkpoint: Any) -> Pairs:
        """Text, token ids or features for the encoder; text or token ids for the decoder.

        Raises:
            ValueError: Not as many of one as of the other, or what is neither.
        """
        model = checkpoint.backbone
        sources = _sources(inputs, checkpoint)
        shown = _shown(targets, checkpoint)
        if len(sources) != len(shown):
            raise ValueError(
                f"targets must be one for each of the {len(sources)} inputs, got {len(shown)}; a list of texts or of "
                "lists of ids has one entry a sequence"
            )
        start = getattr(model.config, "decoder_start_token_id", None)
        if shown.source == "text":
            if start is None:
                raise ValueError(
                    f"targets: the configuration of {type(model).__name__} names no decoder_start_token_id, behind "
                    "which text is shown; pass token ids as the decoder is to see them"
                )
            moved = ((start, *ids[:-1]) if ids[0] != start else ids[:-1] for ids in shown.sequences)
            shown = replace(shown, sequences=tuple(moved))
        return cls(sources, shown)

    def batches(self, size: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Pairs of equal lengths, so that no model ever sees padding: (indices, what `arguments` takes)."""
        lengths = [tuple(map(int, both)) for both in zip(self._source_lengths(), self.targets.lengths, strict=True)]
        for both in sorted(set(lengths)):
            members = [i for i, one in enumerate(lengths) if one == both]
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                yield chosen, {"sources": self._taken(chosen), "targets": [self.targets.sequences[i] for i in chosen]}

    def arguments(self, batch: dict[str, Any], model: Any) -> dict[str, Any]:
        """Arguments of the model's ``forward`` for a batch."""
        shown = torch.as_tensor(np.array(batch["targets"]), device=device_of(model))
        targets = {"decoder_input_ids": shown, "decoder_attention_mask": torch.ones_like(shown)}
        return self.sources.arguments(batch["sources"], model) | targets

    def _source_lengths(self) -> np.ndarray:
        """Features are of one size."""
        return self.sources.lengths if isinstance(self.sources, Tokens) else np.zeros(len(self.sources), dtype=int)

    def _taken(self, chosen: list[int]) -> Any:
        if isinstance(self.sources, Tokens):
            return np.array([self.sources.sequences[i] for i in chosen])
        return self.sources.values[chosen]


def _sources(inputs: Any, checkpoint: Any) -> Tokens | Features:
    model = checkpoint.backbone
    argument = getattr(model, "main_input_name", "input_ids")
    if isinstance(inputs, np.ndarray | Tensor) and "float" in str(inputs.dtype):
        values = torch.as_tensor(inputs)
        axes = 2 if argument == "input_values" else 3  # samples of sound; features over time, or a picture
        if argument == "input_ids" or values.ndim < axes or not len(values):
            wanted = (
                "token ids or text" if argument == "input_ids" else f"{axes} axes or more, one an entry of the first"
            )
            raise ValueError(
                f"inputs: {type(model).__name__} takes {argument} ({wanted}), received {values.dtype} of shape "
                f"{tuple(values.shape)}"
            )
        if not bool(torch.isfinite(values).all()):
            raise ValueError("inputs must be finite, received NaN or infinity")
        return Features(values, argument)
    if argument != "input_ids":
        raise ValueError(
            f"inputs: the encoder of {type(model).__name__} takes {argument}; pass the floating array that its own "
            "processor makes"
        )
    return prepare(inputs, checkpoint.tokenizer, context=context_length(model), vocabulary=_vocabulary(model))


def _shown(targets: Any, checkpoint: Any) -> Tokens:
    model = checkpoint.backbone
    context = getattr(model.config, "max_target_positions", None) or context_length(model)
    return prepare(targets, checkpoint.tokenizer, context=context, vocabulary=_vocabulary(model))


def _vocabulary(model: Any) -> int | None:
    number = getattr(model.config, "vocab_size", None)
    return None if number is None else int(number)
