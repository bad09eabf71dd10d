"""Particles: opinions over time, tokens on the circle and the sphere, and animations of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import animation
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from krause_dynamics._arguments import FILE, Called, Maybe, Real, Whole, reads
from krause_dynamics._files import check_target, replacing
from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.spaces import Space
from krause_dynamics.trajectory import Trajectory

SAME = 1e-6  # of the extent: closer opinions are drawn as one
WIDEST = 12.0  # points: the line of a cluster that holds all mass
ANY = Whole(-(2**62))  # a saved state, counted from either end
DRAWN = 200  # particles drawn singly at most, so that a figure stays readable


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
    run = _single(trajectory, 1)
    ax = new_axes(ax)
    x, masses = run.positions[..., 0], _masses(run)
    cell = SAME * max(float(np.ptp(x[0])), 1e-300)
    segments, widths = [], []
    for k in range(len(run) - 1):
        ends = np.round(x[k : k + 2].T / cell)
        _, first, group = np.unique(ends, axis=0, return_index=True, return_inverse=True)
        together = np.bincount(group.ravel(), weights=masses)
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


@reads(trajectory=A_RUN, index=ANY, ax=ON)
def circle(trajectory: Trajectory, index: int = -1, *, ax: Axes | None = None, **scatter: Any) -> Axes:
    """One state on the unit circle; the area of a dot is the mass of those within a hundredth of a radian.

    Args:
        trajectory: Positions (T, n, 2).
        index: Which saved state.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: If positions are not (T, n, 2).
    """
    run = _single(trajectory, 2)
    ax = new_axes(ax)
    around = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(around), np.sin(around), color="0.8", linewidth=1.0, zorder=1)
    options: dict[str, Any] = {"s": _areas(run, index), "color": "C0", "alpha": 0.7, "linewidths": 0, "zorder": 2}
    ax.scatter(*run.positions[index].T, **(options | scatter))
    ax.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[])
    ax.set_title(_clock(run, index))
    ax.grid(visible=False)
    return ax


@reads(trajectory=A_RUN, index=ANY, ax=ON)
def sphere(
    trajectory: Trajectory, index: int = -1, *, trails: bool = True, ax: Axes | None = None, **scatter: Any
) -> Axes:
    """One state on the unit sphere, with the paths that led there.

    Args:
        trajectory: Positions (T, n, 3).
        index: Which saved state.
        trails: Draw the paths of up to 200 particles.
        ax: Axes made with ``projection="3d"``.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: If positions are not (T, n, 3), or ``ax`` is flat.
    """
    run = _single(trajectory, 3)
    axes: Any = plt.subplots(subplot_kw={"projection": "3d"})[1] if ax is None else ax
    if not hasattr(axes, "plot_wireframe"):
        raise ValueError('ax must be three-dimensional: plt.subplots(subplot_kw={"projection": "3d"})')
    longitude, latitude = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    globe = np.cos(longitude) * np.sin(latitude), np.sin(longitude) * np.sin(latitude), np.cos(latitude)
    axes.plot_wireframe(*globe, color="0.85", linewidth=0.4)
    last = index % len(run)
    if trails:
        for i in range(min(run.positions.shape[1], DRAWN)):
            axes.plot(*run.positions[: last + 1, i].T, color="C0", linewidth=0.6, alpha=0.5)
    options: dict[str, Any] = {"s": _areas(run, index), "color": "C1", "depthshade": False, "linewidths": 0}
    axes.scatter(*run.positions[index].T, **(options | scatter))
    axes.set_box_aspect((1, 1, 1), zoom=1.4)  # the frame is hidden, so its margins are not needed
    axes.set_axis_off()
    axes.set_title(_clock(run, index))
    return axes  # type: ignore[no-any-return]


@reads(trajectory=A_RUN, ax=ON)
def overview(trajectory: Trajectory, *, ax: Axes | None = None) -> Axes:
    """The picture that fits the dimension: opinions or angles over time, the sphere, else the first coordinate.

    Args:
        trajectory: One run, positions (T, n, d).
        ax: Where to draw (three-dimensional for d = 3 on the sphere).
    """
    run = _single(trajectory, None)
    units = np.allclose((run.final**2).sum(-1), 1, atol=1e-3)
    d = run.positions.shape[-1]
    if d == 1:
        return opinions(run, ax=ax)
    if units and d in (2, 3):
        return angles(run, ax=ax) if d == 2 else sphere(run, ax=ax)
    ax = new_axes(ax)
    ax.plot(run.times, _broken(run.space, run.positions[:, :DRAWN, 0]), color="C0", linewidth=0.8, alpha=0.7)
    ax.set(xlabel="time", ylabel="first coordinate")
    return ax


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
        draw: ``draw(trajectory, index, ax=ax)``, such as `circle` (the default in the plane) or `sphere` (in space);
            opinions on a line are drawn over time up to each frame.
        frames: Number of states shown, evenly spread over the saved ones.
        fps: Frames per second.

    Returns:
        The path written.

    Raises:
        ValueError: Another suffix, no default picture for this dimension, or MP4 without ffmpeg.
    """
    path, run = check_target("path", path), _single(trajectory, None)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"path must end in .gif or .mp4, got {path.name!r}")
    if path.suffix == ".mp4" and not animation.writers.is_available("ffmpeg"):
        raise ValueError("an .mp4 needs the program ffmpeg, which is not on the PATH; write a .gif instead")
    if draw is None:
        if run.positions.shape[-1] > 3:
            raise ValueError(f"draw must be given for dimension {run.positions.shape[-1]}")
        draw = (_opinions_until, circle, sphere)[run.positions.shape[-1] - 1]
    chosen = np.unique(np.linspace(0, len(run) - 1, min(frames, len(run))).round().astype(int))
    space = {"projection": "3d"} if draw is sphere else {}
    figure, ax = plt.subplots(figsize=(4, 4), subplot_kw=space)

    if draw is _opinions_until:
        figure.subplots_adjust(left=0.18)  # room for the label, which lies beside numbers

    def show(frame: int) -> list[Any]:
        ax.clear()
        draw(run, int(chosen[frame]), ax=ax)
        return []

    moving = animation.FuncAnimation(figure, show, frames=len(chosen), init_func=list)
    with replacing(path) as beside:
        moving.save(beside, writer="pillow" if path.suffix == ".gif" else "ffmpeg", fps=fps)
    plt.close(figure)
    return path


def _opinions_until(run: Trajectory, index: int, *, ax: Axes) -> Axes:
    """`opinions` up to a state, on the axes of the whole run."""
    opinions(run[: max(index, 1) + 1], ax=ax)
    low, high = run.positions.min(), run.positions.max()
    margin = 0.05 * (high - low) or 0.05
    ax.set_xlim(float(run.times[0]), float(run.times[-1]) or 1.0)
    ax.set_ylim(float(low - margin), float(high + margin))
    return ax


def _ways(space: Space, x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ends of the ways from x to y (n,): as they leave, and, where they cross a border, as they arrive."""
    there = space.image(y[:, None], x[:, None])[:, 0]
    return [(x, there)] if np.array_equal(there, y) else [(x, there), (x + (y - there), y)]


def _broken(space: Space, x: np.ndarray) -> np.ndarray:
    """Paths (T, n) of first coordinates with a gap where they cross a border."""
    if space.period is None:
        return x
    jumps = np.abs(np.diff(x, axis=0, prepend=x[:1])) > np.ravel(space.period)[0] / 2
    return np.where(jumps, np.nan, x)


def _single(trajectory: Trajectory, d: int | None) -> Trajectory:
    run = trajectory.numpy()
    if run.positions.ndim != 3 or (d is not None and run.positions.shape[-1] != d):
        wanted = "d" if d is None else str(d)
        raise ValueError(f"trajectory must hold one run, positions (T, n, {wanted}), got {run.positions.shape}")
    return run


def _masses(run: Trajectory) -> np.ndarray:
    """Shares of the particles, adding up to one."""
    n = run.positions.shape[1]
    masses = np.ones(n) if run.log_mass is None else np.exp(run.log_mass - np.max(run.log_mass))
    return np.asarray(masses / masses.sum())


def _areas(run: Trajectory, index: int) -> np.ndarray:
    """Area of each dot: the mass of all within 0.01 of it."""
    from krause_dynamics import aggregate, bounded_confidence

    log_mass = np.log(np.maximum(_masses(run), 1e-300))
    near = aggregate(bounded_confidence(0.01), run.positions[index], log_mass=log_mass).log_partition
    return np.asarray(12.0 + 300.0 * np.exp(near))


def _clock(run: Trajectory, index: int) -> str:
    return f"{run.meta.get('axis', 'time')} {float(run.times[index]):.4g}"
