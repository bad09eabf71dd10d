"""Particles on the circle: their angles over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Maybe, Real, reads
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.trajectory import Trajectory

# Where the circle may be cut open; of equally good ones the first.
CUTS = np.concatenate([np.arange(180.0, 0.0, -5.0), np.arange(360.0, 180.0, -5.0)])


@reads(trajectory=A_RUN, cut=Maybe(Real(-360.0, 360.0)), ax=ON)
def angles(trajectory: Trajectory, *, cut: float | None = None, ax: Axes | None = None, **line: Any) -> Axes:
    """One line a particle: its angle over time, with a gap where it crosses the cut that makes a line of the circle.

    Args:
        trajectory: Positions (T, n, 2), as ``kd.Circle`` gives.
        cut: Where the circle is cut open, in degrees: angles are shown from ``cut - 360`` to ``cut``. By default where
            the fewest lines cross it, at 180 where that is as good.
        ax: Where to draw.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: If positions are not (T, n, 2).
    """
    run = trajectory.numpy()
    if run.positions.ndim != 3 or run.positions.shape[-1] != 2:
        raise ValueError(
            f"trajectory must hold points of the plane, positions (T, n, 2); received {run.positions.shape}"
        )
    ax = new_axes(ax)
    turns = _turns(run)
    top = least_crossed([run]) if cut is None else cut
    degrees = top - (top - turns) % 360.0
    # A gap instead of a stroke across the figure where a particle crosses the cut.
    jumps = np.abs(np.diff(degrees, axis=0, prepend=degrees[:1])) > 180
    options: dict[str, Any] = {"color": "C0", "linewidth": 0.8, "alpha": 0.7} | line
    ax.plot(run.times, np.where(jumps, np.nan, degrees), **options)
    ticks = np.arange(np.ceil((top - 360) / 90) * 90, top + 1e-9, 90)
    ax.set(xlabel="time", ylabel="angle (degrees)", ylim=(top - 360, top), yticks=ticks)
    return ax


def least_crossed(runs: Iterable[Trajectory]) -> float:
    """The cut that the fewest steps of the particles of all runs cross."""
    turns = [_turns(run) for run in runs]
    crossings = [sum(int(np.count_nonzero(np.diff((cut - t) // 360.0, axis=0))) for t in turns) for cut in CUTS]
    return float(CUTS[int(np.argmin(crossings))])


def _turns(run: Trajectory) -> np.ndarray:
    """Angles in degrees (T, n) that go on beyond a full turn."""
    x = run.numpy().positions
    return np.degrees(np.unwrap(np.arctan2(x[..., 1], x[..., 0]), axis=0))
