"""Particles on the circle: their angles over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import reads
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.trajectory import Trajectory


@reads(trajectory=A_RUN, ax=ON)
def angles(trajectory: Trajectory, *, ax: Axes | None = None, **line: Any) -> Axes:
    """One line a particle: its angle over time, cut where it passes from 180 to -180 degrees.

    Args:
        trajectory: Positions (T, n, 2), as ``kd.Circle`` gives.
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
    degrees = np.degrees(np.arctan2(run.positions[..., 1], run.positions[..., 0]))
    # A gap instead of a stroke across the figure where a particle crosses the cut of the angle.
    jumps = np.abs(np.diff(degrees, axis=0, prepend=degrees[:1])) > 180
    options: dict[str, Any] = {"color": "C0", "linewidth": 0.8, "alpha": 0.7} | line
    ax.plot(run.times, np.where(jumps, np.nan, degrees), **options)
    ax.set(xlabel="time", ylabel="angle of particle (degrees)", ylim=(-180, 180), yticks=range(-180, 181, 90))
    return ax
