"""Mean and spread of the tokens of a corpus, layer by layer: what centred and standardised measures subtract.

The tokens of one sequence must not be centred by their own mean: their mean cosine would be -1/(T - 1) whatever the
model does. The first token of every sequence is left out, because a massive one would be most of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.checkpoints.stream import Passes


@dataclass(frozen=True)
class Moments:
    """Sums over the tokens of a corpus.

    Attributes:
        means: (layers, d).
        spreads: (layers, d) standard deviations.
    """

    means: Tensor
    spreads: Tensor

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of one layer."""
        return self.means[layer], self.spreads[layer]

    @staticmethod
    def over(run: Passes) -> Moments:
        """Of all sequences of a run, in one more pass over the states.

        Raises:
            ValueError: One sequence alone, or weights that are not in memory.
        """
        if len(run.inputs) < 2:
            raise ValueError(
                "measures that are centred need a corpus, at least 2 sequences: the tokens of one alone, less "
                "their own mean, have mean cosine -1/(T - 1); pass more text, or sequence_length="
            )
        if any(weight.is_meta for block in run.blocks for weight in block.parameters()):
            raise ValueError("measures that are centred need two passes, and so the whole model in memory")
        sums = _Sums()
        states_alone = replace(run, path="none", tier="none", report=None)
        for _, batch in states_alone.batches():
            states_alone.stream(batch, sums)
        return sums.moments()


class _Sums:
    """Takes layers and keeps their sums, around the first batch's mean, where squares do not cancel."""

    def __init__(self) -> None:
        self.sums: dict[int, list[Tensor]] = {}
        self.tokens = 0

    def state(self, layer: int, tokens: Tensor) -> None:
        rest = tokens[:, 1:].double().flatten(0, 1)
        if layer == 0:
            self.tokens += len(rest)
        if not len(rest):
            return
        if layer not in self.sums:
            self.sums[layer] = [rest.mean(0), torch.zeros_like(rest[0]), torch.zeros_like(rest[0])]
        origin, first, second = self.sums[layer]
        first += (rest - origin).sum(0)
        second += (rest - origin).square().sum(0)

    def attention(self, block: int, found: Any) -> None:
        """Nothing of it."""

    def moments(self) -> Moments:
        if self.tokens < 2:
            raise ValueError("measures that are centred need sequences of at least 2 tokens")
        layers = [self.sums[layer] for layer in sorted(self.sums)]
        means = [origin + first / self.tokens for origin, first, _ in layers]
        spreads = [
            (second / self.tokens - (first / self.tokens).square()).clamp_min(0).sqrt() for _, first, second in layers
        ]
        return Moments(torch.stack(means), torch.stack(spreads))
