"""Sequences whose answers lie a known number of tokens back: one needle, recall by key, a copied string.

Fillers are drawn from letters of their own, so that what is asked for is recognised by its letter, never by its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # torch's mark of places without an answer


class Batch(NamedTuple):
    """Sequences and what is asked of them.

    Attributes:
        tokens: (batch, n).
        answers: (batch, n) value that the model must give at a place, or -100.
        lags: (batch, n) how many tokens back the answer lies; 0 where nothing is asked.
    """

    tokens: Tensor
    answers: Tensor
    lags: Tensor


@dataclass(frozen=True)
class Task:
    """What is asked over a distance.

    Letters: values 0..v-1, fillers, then for `recall` pairs (key, value) and keys asked for, else one question mark.

    Attributes:
        kind: ``"needle"``: one value among fillers, asked for at the end; ``"recall"``: a pair for each of four keys,
            of which each of the last two tokens asks one (multi-query recall); ``"copy"``: a string of four values,
            repeated at a lag.
        length: n, tokens of a sequence.
        values: Number v of values; chance is 1 / v.
        lag: Of every answer; ``None`` draws it between 1 and the longest, uniformly.
    """

    kind: str
    length: int = 96
    values: int = 8
    lag: int | None = None

    keys = 4
    fillers = 8
    string = 4
    questions = 2

    @property
    def vocabulary(self) -> int:
        """Number of letters."""
        further = self.keys * (self.values + 1) if self.kind == "recall" else 1
        return self.values + self.fillers + further

    @property
    def longest(self) -> int:
        """Largest lag that can be asked for."""
        return self.length - (self.string if self.kind == "copy" else 1)

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1.0 / self.values

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw sequences, on the CPU."""
        n, first = self.length, self.values
        tokens = torch.randint(first, first + self.fillers, (size, n), generator=generator)
        answers, lags = torch.full((size, n), IGNORED), torch.zeros(size, n, dtype=torch.long)
        return getattr(self, f"_{self.kind}")(Batch(tokens, answers, lags), generator)

    def _lags(self, shape: tuple[int, ...], least: int, most: int, generator: torch.Generator) -> Tensor:
        if self.lag is None:
            return torch.randint(least, most + 1, shape, generator=generator)
        if not least <= self.lag <= most:
            raise ValueError(f"lag must be from {least} to {most} in {self.length} tokens, got {self.lag}")
        return torch.full(shape, self.lag)

    def _needle(self, batch: Batch, generator: torch.Generator) -> Batch:
        size, last = len(batch.tokens), self.length - 1
        value = torch.randint(self.values, (size,), generator=generator)
        lag = self._lags((size,), 1, self.longest, generator)
        batch.tokens[torch.arange(size), last - lag] = value
        batch.tokens[:, last] = self.vocabulary - 1
        batch.answers[:, last], batch.lags[:, last] = value, lag
        return batch

    def _copy(self, batch: Batch, generator: torch.Generator) -> Batch:
        size, m = len(batch.tokens), self.string
        value = torch.randint(self.values, (size, m), generator=generator)
        lag = self._lags((size, 1), m, self.longest, generator)
        asked = torch.arange(self.length - m, self.length).expand(size, m)
        rows = torch.arange(size)[:, None]
        batch.tokens[rows, asked - lag] = value
        batch.tokens[rows, asked] = self.vocabulary - 1
        batch.answers[rows, asked], batch.lags[rows, asked] = value, lag.expand(size, m)
        return batch

    def _recall(self, batch: Batch, generator: torch.Generator) -> Batch:
        size, q, n = len(batch.tokens), self.questions, self.length
        rows, pairs = torch.arange(size)[:, None], self.values + self.fillers
        value = torch.randint(self.values, (size, self.keys), generator=generator)
        # Places of the pairs: distinct, before the questions; the lag of the first question's is drawn like the others.
        room = n - q
        if self.lag is None:
            places = torch.rand(size, room, generator=generator).argsort(1)[:, : self.keys]
        else:
            block = torch.arange(self.keys).expand(size, -1)
            places = n - q - self._lags((size, 1), self.keys, room, generator) + block
        batch.tokens[rows, places] = pairs + torch.arange(self.keys) * self.values + value
        asked = torch.rand(size, self.keys, generator=generator).argsort(1)[:, :q]
        at = torch.arange(n - q, n).expand(size, q)
        batch.tokens[rows, at] = pairs + self.keys * self.values + asked
        batch.answers[rows, at] = value.gather(1, asked)
        batch.lags[rows, at] = at - places.gather(1, asked)
        return batch
