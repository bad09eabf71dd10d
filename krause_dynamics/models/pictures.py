"""Pictures out of an autoregressive model, one value after the other: fresh ones, or the rest of given ones.

Every picture has random numbers of its own, one a value, so that it is the same in a batch of any size; a value is
where the distribution function of the model passes its number (inversion). One token a step goes through rolling caches
of keys and values; on a GPU the step is captured once as a CUDA graph and replayed, if the attention has a window, and
reads keys where they lie in a ring.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._arguments import POSITIVE, Flag, Is, Maybe, Whole, reads
from krause_dynamics._progress import ProgressBar
from krause_dynamics.models.decoder import KARM
from krause_dynamics.models.drawing import Drawing, batch_of, numbers_of, why_not_captured
from krause_dynamics.runs.interrupting import Terminated

MODEL = Is(KARM, 'kd.models.KARM.from_pretrained("folder")')


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
        KeyboardInterrupt: Ctrl-C; its attribute ``result`` holds the pictures of the batches that are finished, or
            ``None``.

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
    if not len(array):
        raise ValueError("pictures must hold at least one picture, got none")
    if not (int(array.min()) >= 0 and int(array.max()) < model.config.levels):
        raise ValueError(
            f"pictures must hold levels 0..{model.config.levels - 1}, got {array.min()} to {array.max()}; quantise them"
        )
    return array


def _capture(model: KARM, captured: bool | None) -> bool:
    """Whether the step is captured.

    Raises:
        ValueError: It shall be and cannot.
    """
    reasons = why_not_captured(model)
    if captured and reasons:
        raise ValueError(f"captured=True needs a CUDA device and a window: {'; '.join(reasons)}; leave it out")
    return not reasons if captured is None else captured


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
    size = batch_of(model, count, captured) if batch_size is None else batch_size
    total = count * (length - given.shape[1])
    told: Told | None = ProgressBar("values") if progress is True else progress or None
    training, done, parts = model.training, 0, []
    model.eval()
    try:
        for start in range(0, count, size):
            part = given[start : start + size].to(model.device)
            numbers = torch.stack([numbers_of(seed, start + i, length) for i in range(len(part))])
            state = Drawing(model, part, numbers.to(model.device), temperature, captured)
            for place in state.draw():
                if told is not None and (place % 64 == 0 or place == length):
                    told(done + len(part) * (place - part.shape[1]), total)
            done += len(part) * (length - part.shape[1])
            parts.append(state.values.cpu().numpy())
    except (KeyboardInterrupt, Terminated) as error:
        error.result = _whole(model, parts) if parts else None  # type: ignore[union-attr]
        raise
    finally:
        model.train(training)
    return _whole(model, parts)


def _whole(model: KARM, parts: list[np.ndarray]) -> np.ndarray:
    """Batches of values as pictures."""
    values = np.concatenate(parts).reshape(-1, *model.config.picture)
    return values.astype(np.uint8 if model.config.levels <= 256 else np.int64)
