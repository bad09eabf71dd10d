"""Distances along runs: between two of them, and between successive layers of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics.analysis.measures.circle import wasserstein_circle
from krause_dynamics.analysis.measures.clouds import sliced
from krause_dynamics.analysis.measures.line import wasserstein

Distance = Callable[..., float]


def along(first: Any, second: Any, distance: Distance = wasserstein, **options: Any) -> np.ndarray:
    """Distance between two runs at each saved time, for example particles and their mean field.

    Args:
        first: A `Trajectory`, or positions (T, n, d).
        second: A `Trajectory`, positions (T, m, d), or one state (m, d) to which all are compared.
        distance: `wasserstein`, `wasserstein_circle`, `sliced`, `exact` or `entropic`.
        **options: Passed on, for example ``p=2``.

    Returns:
        (T,).

    Raises:
        ValueError: Different numbers of saved times, or other times; a run on a torus with a distance that knows none.
    """
    a, b = _states(first, distance), _states(second, distance)
    if hasattr(first, "times") and hasattr(second, "times"):
        times = to_numpy(first.times), to_numpy(second.times)
        if times[0].shape != times[1].shape or not np.allclose(*times):
            raise ValueError("first and second must be saved at the same times; pass save_at= to both runs")
    b = b * len(a) if len(b) == 1 else b
    if len(a) != len(b):
        raise ValueError(f"first and second must have the same number of states, got {len(a)} and {len(b)}")
    return np.array(
        [
            distance(x, y, x_log_mass=x_mass, y_log_mass=y_mass, **options)
            for (x, x_mass), (y, y_mass) in zip(a, b, strict=True)
        ]
    )


def between_layers(run: Any, distance: Distance = sliced, **options: Any) -> np.ndarray:
    """Distance between successive states of one run: how far each layer moves the cloud of tokens as a measure.

    Args:
        run: A `Trajectory`, or positions (T, n, d).
        distance: As in `along`; `sliced` suits hidden states.
        **options: Passed on.

    Returns:
        (T - 1,).

    Raises:
        ValueError: A run on a torus with a distance that knows none.
    """
    states = _states(run, distance)
    return np.array(
        [
            distance(x, y, x_log_mass=x_mass, y_log_mass=y_mass, **options)
            for (x, x_mass), (y, y_mass) in zip(states[:-1], states[1:], strict=True)
        ]
    )


def _states(run: Any, distance: Distance) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """States and log-masses of a trajectory, of positions (T, n, d), or of one state (n, d)."""
    period = getattr(getattr(run, "space", None), "period", None)
    if period is not None and distance is not wasserstein_circle:
        raise ValueError(
            f"a run on {run.space!r} needs a distance that knows its border: wasserstein_circle with period={period}; "
            "where nothing comes near the border pass run.positions"
        )
    positions, log_mass = to_numpy(getattr(run, "positions", run)), getattr(run, "log_mass", None)
    if positions.ndim == 2:
        positions = positions[None]
    if positions.ndim != 3:
        raise ValueError(f"positions must have shape (T, n, d), got {positions.shape}; choose one of the batch")
    if log_mass is None:
        return [(x, None) for x in positions]
    log_mass = np.broadcast_to(to_numpy(log_mass), positions.shape[:2])
    return [(x, mass.astype(x.dtype)) for x, mass in zip(positions, log_mass, strict=True)]
