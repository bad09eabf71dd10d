"""Arguments that several runs share: how long, which states are kept, and what is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from krause_dynamics._arguments import COUNT, POSITIVE
from krause_dynamics._array import as_generator

STATES = 1e7  # times of states to keep: 80 MB of times alone
STEPS = 1e9  # at 100 microseconds each, a day
ROUNDING = 1e-12  # of t_end: times that arithmetic such as 3 * 0.1 makes of it


def check_lengths(t_end: float, dt: float, save_every: int) -> None:
    """Refuse times that are no positive finite numbers, and strides that are no whole ones.

    Raises:
        TypeError, ValueError: With the name and the value.
    """
    check_affordable("steps (t_end / dt)", POSITIVE.read("t_end", t_end) / POSITIVE.read("dt", dt), STEPS)
    COUNT.read("save_every", save_every)


def save_times(t_end: float, dt: float, save_every: int, save_at: Sequence[float] | None) -> list[float]:
    """Times at which a state is kept, increasing, ``t_end`` last.

    Raises:
        ValueError: ``save_at`` outside of the run.
    """
    if save_at is not None:
        return asked_times(save_at, t_end)
    count = np.ceil((t_end - 1e-9 * dt) / (save_every * dt))
    check_affordable("states to keep (t_end / (save_every * dt))", count, STATES)
    return [(k * save_every) * dt for k in range(1, int(count))] + [t_end]


def asked_times(save_at: Sequence[float], t_end: float) -> list[float]:
    """Increasing times without 0, ``t_end`` last; what is within rounding of ``t_end`` is ``t_end``.

    Raises:
        TypeError: No list of numbers.
        ValueError: Times outside of the run, or NaN.
    """
    try:
        times = np.unique(np.asarray(save_at, dtype=np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"save_at must be a list of times, got {save_at!r}") from None
    times = np.where(np.abs(times - t_end) <= ROUNDING * t_end, t_end, times)
    outside = times[~((times >= 0) & (times <= t_end))]
    if outside.size:
        raise ValueError(
            f"save_at must lie between 0 and t_end = {t_end:g}, got {', '.join(f'{t:g}' for t in outside)}"
        )
    return [*times[(times > 0) & (times < t_end)].tolist(), float(t_end)]


def check_affordable(what: str, count: float, limit: float) -> None:
    """Counts are known before anything is allocated.

    Raises:
        ValueError: More than the limit; the message says what is counted, the count and the limit.
    """
    if not count <= limit:
        raise ValueError(f"the run asks for {count:.3g} {what}, more than the limit of {limit:.0e}; ask for fewer")


def check_callables(**functions: Any) -> None:
    """Functions of the caller that could not be called are found before the run.

    Raises:
        TypeError: With the name and the value.
    """
    for name, function in functions.items():
        if not (function is None or callable(function) or (name == "progress" and isinstance(function, bool))):
            raise TypeError(f"{name} must be a function, got {function!r}")


def generator(rng: Any, *, needed: bool) -> Any:
    """A generator of numpy or torch from a seed or a generator; ``None`` where nothing is drawn.

    Raises:
        TypeError: ``rng`` is of another type, or missing though needed.
    """
    if rng is None and not needed:
        return None
    return rng if hasattr(rng, "get_state") else as_generator(rng)
