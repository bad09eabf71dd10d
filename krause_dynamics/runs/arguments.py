"""Arguments that several runs share: how long, which states are kept, and what is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from krause_dynamics._array import as_generator


def check_lengths(t_end: float, dt: float, save_every: int) -> None:
    """Refuse times that are no positive finite numbers, and strides that are no whole ones.

    Raises:
        ValueError: With the name and the value.
    """
    for name, value in (("t_end", t_end), ("dt", dt)):
        if isinstance(value, str) or not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if isinstance(save_every, bool) or not isinstance(save_every, int | np.integer) or save_every < 1:
        raise ValueError(f"save_every must be at least 1 and whole, got {save_every!r}")


def save_times(t_end: float, dt: float, save_every: int, save_at: Sequence[float] | None) -> list[float]:
    """Times at which a state is kept, increasing, ``t_end`` last.

    Raises:
        ValueError: ``save_at`` outside of the run.
    """
    if save_at is not None:
        times = sorted({float(t) for t in save_at})
        if times and not (times[0] >= 0 and times[-1] <= t_end):
            raise ValueError(f"save_at must lie between 0 and t_end = {t_end:g}, got {times[0]:g} to {times[-1]:g}")
        return [t for t in times if 0 < t < t_end] + [t_end]
    spacing = save_every * dt
    count = int(np.ceil((t_end - 1e-9 * dt) / spacing))
    return [(k * save_every) * dt for k in range(1, count)] + [t_end]


def generator(rng: Any, *, needed: bool) -> Any:
    """A generator of numpy or torch from a seed or a generator; ``None`` where nothing is drawn.

    Raises:
        TypeError: ``rng`` is of another type, or missing though needed.
    """
    if rng is None and not needed:
        return None
    return rng if hasattr(rng, "get_state") else as_generator(rng)
