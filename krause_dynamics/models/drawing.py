"""The state of pictures that are drawn value after value, and the step from one value to the next."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.models.decoder import KARM

WARM_UP = 3  # steps before a capture: kernels are compiled and caches allocated by then
BATCH = 64  # pictures at a time: 12 layers of 128 keys of width 256 are 200 MB of caches
LARGEST_BATCH = 8192  # of captured steps, whose launches are a few per cent of them by then


def numbers_of(seed: int, picture: int, length: int) -> Tensor:
    """Uniform random numbers of one picture, (length,), in [0, 1)."""
    sequence = np.random.SeedSequence([seed, picture])
    return torch.from_numpy(np.random.default_rng(sequence).random(length))


def why_not_captured(model: KARM) -> list[str]:
    """Reasons why a step of a model cannot be captured; none if it can."""
    reasons = []
    if model.device.type != "cuda":
        reasons.append(f"the model is on {model.device}")
    try:
        model.new_cache(static=True)
    except ValueError as error:
        reasons.append(str(error))
    return reasons


def batch_of(model: KARM, count: int, captured: bool) -> int:
    """Pictures at a time where the caller leaves it open: parts of about the same size."""
    largest = BATCH
    if captured:
        config, free = model.config, torch.cuda.mem_get_info(model.device)[0]
        first = config.first_tokens if config.hears("first_tokens") else 0
        tokens = config.num_hidden_layers * (config.window + first)
        picture = 2 * tokens * config.hidden_size * model.dtype.itemsize
        largest = max(BATCH, min(LARGEST_BATCH, free // 4 // picture))
    return ceil(count / ceil(count / largest))


def invert(logits: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """The values (batch, 1) at which the distribution functions of logits (batch, levels) pass numbers (batch, 1)."""
    scaled = logits if temperature == 1.0 else logits.double() / temperature
    share = scaled.softmax(-1, dtype=torch.float64).cumsum(-1)
    return (share <= numbers * share[:, -1:]).sum(-1, keepdim=True).clamp_max(share.shape[1] - 1)


class Drawing:
    """Values of a batch of pictures, and the step that draws the next of each.

    All that a step reads and writes stays in the same memory, so that it can be captured and replayed.
    """

    def __init__(self, model: KARM, given: Tensor, numbers: Tensor, temperature: float, captured: bool) -> None:
        self.model, self.numbers, self.temperature, self.captured = model, numbers, temperature, captured
        self.given = given.shape[1]
        self.values = torch.zeros(numbers.shape, dtype=torch.long, device=numbers.device)
        self.values[:, : self.given] = given
        self.caches = model.new_cache(static=captured)
        self.place = torch.zeros(1, dtype=torch.long, device=numbers.device)  # of the value that is fed next

    @torch.no_grad()
    def draw(self) -> Any:
        """Draw value after value; yields how many there are."""
        length, levels = self.values.shape[1], self.model.config.levels
        have = self.given
        if have == 0:  # nothing is known: every level is as likely
            self.values[:, 0] = (self.numbers[:, 0] * levels).long()
            have = 1
            yield have
        if have > 1:
            self._feed(self.values[:, : have - 1], torch.arange(have - 1, device=self.place.device))
        self.place.fill_(have - 1)
        step: Callable[[], None] = self.step
        for drawn in range(have, length):
            if self.captured and drawn == have + WARM_UP:
                step = self._graph()
            step()
            yield drawn + 1

    def step(self) -> None:
        """Feed the value at ``place`` and draw the one after it."""
        logits = self._feed(self.values.index_select(1, self.place), self.place)
        after = self.place + 1
        drawn = invert(logits, self.numbers.index_select(1, after), self.temperature)
        self.values.index_copy_(1, after, drawn)
        self.place += 1

    def _feed(self, values: Tensor, places: Tensor) -> Tensor:
        output = self.model(values, position_ids=places[None], past_key_values=self.caches, logits_to_keep=1)
        return output.logits[:, -1]

    def _graph(self) -> Callable[[], None]:
        """The step, captured: recording it runs nothing."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay
