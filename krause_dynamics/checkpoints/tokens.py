"""Sequences of token ids, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from krause_dynamics.checkpoints.blocks import device_of

UNCOUNTED = -1


@dataclass(frozen=True)
class Tokens:
    """Sequences of token ids, each of its own length.

    Attributes:
        sequences: One tuple of ids a sequence; only real tokens.
        source: ``"text"`` or ``"token ids"``.
        left_out: Tokens that did not fill a sequence, lie beyond ``max_sequences``, or were cut because that was asked;
            -1 where they were not counted, as of a long text only its first sequences are asked for.
    """

    sequences: tuple[tuple[int, ...], ...]
    source: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.sequences)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each sequence, shape (sequences,)."""
        return np.array([len(ids) for ids in self.sequences])

    def batches(self, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Batches of equal length, so that no model ever sees padding: (indices of the sequences, ids (b, T))."""
        for length in sorted(set(self.lengths.tolist())):
            members = np.flatnonzero(self.lengths == length)
            for start in range(0, len(members), size):
                chosen = members[start : start + size].tolist()
                yield chosen, np.array([self.sequences[i] for i in chosen])

    def arguments(self, batch: np.ndarray, model: Any) -> dict[str, Any]:
        """Ids (b, T) and a mask of ones, where the model's embeddings are."""
        ids = torch.as_tensor(batch, device=_device(model))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def described(self) -> dict[str, np.ndarray]:
        """``token_ids`` (sequences, longest), -1 beyond the end of a sequence."""
        ids = np.full((len(self), int(self.lengths.max())), -1)
        for i, sequence in enumerate(self.sequences):
            ids[i, : len(sequence)] = sequence
        return {"token_ids": ids}


def _device(model: Any) -> torch.device:
    """Where a model wants its ids."""
    try:
        found: torch.device = model.get_input_embeddings().weight.device
    except (AttributeError, NotImplementedError):  # a module of one's own, or several tables (CANINE)
        return device_of(model)
    return device_of(model) if found.type == "meta" else found


def pieces(row: Sequence[int], length: int | None) -> list[tuple[int, ...]]:
    """Consecutive sequences of exactly this many tokens, or the whole row."""
    if length is None:
        return [tuple(row)]
    return [tuple(row[start : start + length]) for start in range(0, len(row) - length + 1, length)]


def rest(rows: list[list[int]], length: int | None) -> int:
    """Tokens at the ends of the rows that fill no sequence."""
    return 0 if length is None else sum(len(row) % length for row in rows)


def check_company(lengths: np.ndarray, source: str) -> None:
    """Refuse sequences of which none has two tokens: every measure of them would be NaN.

    Args:
        lengths: Tokens of each, at least one sequence.
        source: What they came as, in words.

    Raises:
        ValueError: None has two.
    """
    if int(lengths.max()) < 2:
        raise ValueError(f"inputs ({source}): no sequence has two tokens, and one alone has nothing to meet; pass more")
