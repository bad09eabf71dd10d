"""Pictures out of an autoregressive model, one value after the other: fresh ones, or the rest of given ones.

Every picture has random numbers of its own, one a value, so that it is the same in a batch of any size; a value is
where the distribution function of the model passes its number (inversion). One token a step goes through rolling caches
of keys and values; on a GPU the step is captured once as a CUDA graph and replayed, if the attention has a window, and
reads keys where they lie in a ring.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._arguments import POSITIVE, Flag, Is, Maybe, Whole, reads
from krause_dynamics._progress import ProgressBar
from krause_dynamics.models.decoder import KARM

MODEL = Is(KARM, 'kd.models.KARM.from_pretrained("folder")')
WARM_UP = 3  # steps before a capture: kernels are compiled and caches allocated by then
BATCH = 64  # pictures at a time: 12 layers of 128 keys of width 256 are 200 MB of caches
LARGEST_BATCH = 8192  # of captured steps, whose launches are a few per cent of them by then


class Told(Protocol):
    """Progress: called with the number of values drawn and of all."""

    def __call__(self, done: int, total: int) -> object:
        """Tell it."""


@reads(
    model=MODEL, count=Whole(), seed=Whole(0), temperature=POSITIVE, batch_size=Maybe(Whole()), captured=Maybe(Flag())
)
def generate_pictures(
    model: KARM,
    count: int = 1,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int | None = None,
    captured: bool | None = None,
    progress: bool | Told = False,
) -> np.ndarray:
    """Draw pictures from a model.

    The first value of a picture has no past: it is uniform over the levels, as in the published generation.

    Args:
        model: An autoregressive model of pictures.
        count: Number of pictures.
        seed: Of the random numbers; picture i is the same whatever ``count`` and ``batch_size`` are.
        temperature: Divides the logits; 1 draws from the model itself.
        batch_size: Pictures at a time; by default 64 at most, where the step is captured as many as have their keys in
            a quarter of the device's free memory, 8192 at most.
        captured: Replay one captured step (a CUDA device and a window are needed); by default wherever that can be.
        progress: ``True`` draws a bar with the time left; or a function ``progress(values drawn, all values)``.

    Returns:
        (count, height, width, channels) levels, uint8 where they fit.

    Raises:
        ValueError: A capture that cannot be.

    Source: Krause Synchronization Transformers, 2602.11534 (autoregressive generation).
    """
    given = torch.empty(count, 0, dtype=torch.long)
    return _drawn(model, given, seed, temperature, batch_size, captured, progress)


@reads(
    model=MODEL,
    rows=Maybe(Whole()),
    seed=Whole(0),
    temperature=POSITIVE,
    batch_size=Maybe(Whole()),
    captured=Maybe(Flag()),
)
def complete_pictures(
    model: KARM,
    pictures: Any,
    rows: int | None = None,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int | None = None,
    captured: bool | None = None,
    progress: bool | Told = False,
) -> np.ndarray:
    """Keep the upper rows of pictures and draw the rest from a model.

    Args:
        model: An autoregressive model of pictures.
        pictures: (count, height, width, channels) levels, whole numbers; channels may be left out where there is one.
        rows: How many rows are given; by default the upper half.
        seed: As in `generate_pictures`.
        temperature: Likewise.
        batch_size: Likewise.
        captured: Likewise.
        progress: Likewise.

    Returns:
        Pictures of the same shape as `generate_pictures` gives, their first rows as they were.

    Raises:
        TypeError: Pictures that are not whole numbers.
        ValueError: Another size than the model's, levels that it does not know, no row left to draw.
    """
    height, width, channels = model.config.picture
    levels = _levels(model, pictures)
    rows = height // 2 if rows is None else rows
    if not 0 < rows < height:
        raise ValueError(f"rows must leave something given and something to draw, 1 to {height - 1}, got {rows}")
    given = torch.as_tensor(levels[:, :rows].reshape(len(levels), -1), dtype=torch.long)
    return _drawn(model, given, seed, temperature, batch_size, captured, progress)


def _levels(model: KARM, pictures: Any) -> np.ndarray:
    array = np.ascontiguousarray(pictures.detach().cpu() if isinstance(pictures, Tensor) else pictures)
    if array.dtype.kind not in "iu":
        raise TypeError(f"pictures must be whole numbers, the levels 0..{model.config.levels - 1}, got {array.dtype}")
    shape = model.config.picture
    if array.ndim == 3 and shape[2] == 1:
        array = array[..., None]
    if array.shape[1:] != shape:
        raise ValueError(f"pictures must have shape (count, {', '.join(map(str, shape))}), got {array.shape}")
    if array.size and not (int(array.min()) >= 0 and int(array.max()) < model.config.levels):
        raise ValueError(
            f"pictures must hold levels 0..{model.config.levels - 1}, got {array.min()} to {array.max()}; quantise them"
        )
    return array


def _drawn(
    model: KARM,
    given: Tensor,
    seed: int,
    temperature: float,
    batch_size: int | None,
    captured: bool | None,
    progress: bool | Told,
) -> np.ndarray:
    count, length = len(given), prod(model.config.picture)
    captured = _capture(model, captured)
    size = _batch(model, count, captured) if batch_size is None else batch_size
    total = count * (length - given.shape[1])
    told: Told | None = ProgressBar("values") if progress is True else progress or None
    training, done, parts = model.training, 0, []
    model.eval()
    try:
        for start in range(0, count, size):
            part = given[start : start + size].to(model.device)
            numbers = torch.stack([_numbers(seed, start + i, length) for i in range(len(part))])
            state = _State(model, part, numbers.to(model.device), temperature, captured)
            for place in state.draw():
                if told is not None and (place % 64 == 0 or place == length):
                    told(done + len(part) * (place - part.shape[1]), total)
            done += len(part) * (length - part.shape[1])
            parts.append(state.values.cpu().numpy())
    finally:
        model.train(training)
    values = np.concatenate(parts).reshape(count, *model.config.picture)
    return values.astype(np.uint8 if model.config.levels <= 256 else np.int64)


def _numbers(seed: int, picture: int, length: int) -> Tensor:
    """Uniform random numbers of one picture, (length,), in [0, 1)."""
    sequence = np.random.SeedSequence([seed, picture])
    return torch.from_numpy(np.random.default_rng(sequence).random(length))


def _capture(model: KARM, captured: bool | None) -> bool:
    """Whether the step is captured.

    Raises:
        ValueError: It shall be and cannot.
    """
    reasons = []
    if model.device.type != "cuda":
        reasons.append(f"the model is on {model.device}")
    try:
        model.new_cache(static=True)
    except ValueError as error:
        reasons.append(str(error))
    if captured and reasons:
        raise ValueError(f"captured=True needs a CUDA device and a window: {'; '.join(reasons)}; leave it out")
    return not reasons if captured is None else captured


def _batch(model: KARM, count: int, captured: bool) -> int:
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


class _State:
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
