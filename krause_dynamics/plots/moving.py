"""Moving pictures of runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import animation
from matplotlib.axes import Axes

from krause_dynamics._arguments import FILE, Called, Maybe, Real, Whole, reads
from krause_dynamics._files import check_target, replacing
from krause_dynamics.plots.particles import opinions
from krause_dynamics.plots.places import circle, plane, sphere
from krause_dynamics.plots.runs import on_units, single
from krause_dynamics.plots.style import A_RUN
from krause_dynamics.trajectory import Trajectory

TURN = 120.0  # degrees by which the sphere turns from the first frame to the last: its back comes to the front


@reads(trajectory=A_RUN, path=FILE, draw=Maybe(Called()), frames=Whole(1), fps=Real(0.0, ends="()"))
def animate(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    *,
    draw: Callable[..., Axes] | None = None,
    frames: int = 60,
    fps: int = 15,
) -> Path:
    """A moving picture of a run, written as GIF (Pillow) or MP4 (needs ffmpeg).

    Args:
        trajectory: One run.
        path: Target, ``.gif`` or ``.mp4``.
        draw: ``draw(trajectory, index, ax=ax)``; by default what fits the run: `circle` or `sphere` for unit vectors,
            `plane` for other pairs, opinions on a line over time up to each frame. The sphere turns slowly.
        frames: Number of states shown, evenly spread over the saved ones.
        fps: Frames per second.

    Returns:
        The path written.

    Raises:
        ValueError: Another suffix, no default picture for this dimension, or MP4 without ffmpeg.
    """
    path, run = check_target("path", path), single(trajectory, None)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"path must end in .gif or .mp4, got {path.name!r}")
    if path.suffix == ".mp4" and not animation.writers.is_available("ffmpeg"):
        raise ValueError("an .mp4 needs the program ffmpeg, which is not on the PATH; write a .gif instead")
    draw = _fitting(run) if draw is None else draw
    chosen = np.unique(np.linspace(0, len(run) - 1, min(frames, len(run))).round().astype(int))
    space = {"projection": "3d"} if draw is sphere else {}
    figure, ax = plt.subplots(figsize=(4, 4), subplot_kw=space)

    if draw is _opinions_until:
        figure.subplots_adjust(left=0.18)  # room for the label, which lies beside numbers

    def show(frame: int) -> list[Any]:
        ax.clear()
        if draw is sphere:
            ax.view_init(azim=-60 + TURN * frame / max(len(chosen) - 1, 1))  # type: ignore[attr-defined]
        draw(run, int(chosen[frame]), ax=ax)
        return []

    moving = animation.FuncAnimation(figure, show, frames=len(chosen), init_func=list)
    with replacing(path) as beside:
        moving.save(beside, writer="pillow" if path.suffix == ".gif" else "ffmpeg", fps=fps)
    plt.close(figure)
    return path


def _fitting(run: Trajectory) -> Callable[..., Axes]:
    """The picture of one state that fits the run."""
    d = run.positions.shape[-1]
    if d == 1:
        return _opinions_until
    if d == 2:
        return circle if on_units(run) else plane
    if d == 3 and on_units(run):
        return sphere
    raise ValueError(
        f"draw must be given for dimension {d}{' off the sphere' if d == 3 else ''}: draw(trajectory, index, ax=ax)"
    )


def _opinions_until(run: Trajectory, index: int, *, ax: Axes) -> Axes:
    """`opinions` up to a state, on the axes of the whole run."""
    opinions(run[: max(index, 1) + 1], ax=ax)
    low, high = run.positions.min(), run.positions.max()
    margin = 0.05 * (high - low) or 0.05
    ax.set_xlim(float(run.times[0]), float(run.times[-1]) or 1.0)
    ax.set_ylim(float(low - margin), float(high + margin))
    return ax
