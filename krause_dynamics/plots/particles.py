"""Runs over time: opinions on a line, and the picture that fits a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from krause_dynamics._arguments import reads
from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.places import plane, sphere
from krause_dynamics.plots.runs import DRAWN, broken, masses, on_units, single
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.spaces import Space
from krause_dynamics.trajectory import Trajectory

SAME = 1e-6  # of the extent: closer opinions are drawn as one
WIDEST = 12.0  # points: the line of a cluster that holds all mass


@reads(trajectory=A_RUN, ax=ON)
def opinions(trajectory: Trajectory, *, ax: Axes | None = None, **lines: Any) -> Axes:
    """Positions on a line over time; those that agree are one line, as wide as their mass.

    On a torus a line leaves at one border and enters at the other.

    Args:
        trajectory: Positions (T, n, 1).
        ax: Where to draw.
        **lines: For ``LineCollection``.

    Raises:
        ValueError: If positions are not (T, n, 1).
    """
    run = single(trajectory, 1)
    ax = new_axes(ax)
    x, shares = run.positions[..., 0], masses(run)
    cell = SAME * max(float(np.ptp(x[0])), 1e-300)
    segments, widths = [], []
    for k in range(len(run) - 1):
        ends = np.round(x[k : k + 2].T / cell)
        _, first, group = np.unique(ends, axis=0, return_index=True, return_inverse=True)
        together = np.bincount(group.ravel(), weights=shares)
        for before, after in _ways(run.space, x[k, first], x[k + 1, first]):
            segments += [[(run.times[k], a), (run.times[k + 1], b)] for a, b in zip(before, after, strict=True)]
            widths += list(0.4 + WIDEST * together)
    options: dict[str, Any] = {"color": "C0", "capstyle": "round", "linewidths": widths} | lines
    ax.add_collection(LineCollection(segments, **options))
    ax.autoscale()
    if run.space.period is not None:
        ax.set_ylim(0.0, float(np.max(run.space.period)))
    ax.set(xlabel="time", ylabel="opinion")
    return ax


@reads(trajectory=A_RUN, ax=ON)
def overview(trajectory: Trajectory, *, ax: Axes | None = None) -> Axes:
    """The picture that fits: opinions or angles over time, the end in the plane or on the sphere, else a coordinate.

    Args:
        trajectory: One run, positions (T, n, d).
        ax: Where to draw (three-dimensional for d = 3 on the sphere).
    """
    run = single(trajectory, None)
    units, d = on_units(run), run.positions.shape[-1]
    if d == 1:
        return opinions(run, ax=ax)
    if d == 2:
        return angles(run, ax=ax) if units else plane(run, ax=ax)
    if d == 3 and units:
        return sphere(run, ax=ax)
    ax = new_axes(ax)
    paths = broken(run.space, run.positions[:, :DRAWN])[..., 0]
    ax.plot(run.times, paths, color="C0", linewidth=0.8, alpha=0.7)
    ax.set(xlabel="time", ylabel="first coordinate")
    return ax


def _ways(space: Space, x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ends of the ways from x to y (n,): as they leave, and, where they cross a border, as they arrive."""
    there = space.image(y[:, None], x[:, None])[:, 0]
    return [(x, there)] if np.array_equal(there, y) else [(x, there), (x + (y - there), y)]
