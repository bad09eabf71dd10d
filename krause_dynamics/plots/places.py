"""One state of a run where it lives: on the circle, in the plane, on the sphere; a colour for each cluster to come."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from krause_dynamics._arguments import Whole, reads
from krause_dynamics.plots.runs import DRAWN, areas, broken, clock, masses, on_units, single
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.trajectory import Trajectory

ANY = Whole(-(2**62))  # a saved state, counted from either end
TOGETHER = 0.01  # of the extent of the first state: nearer ones at the end are one cluster
NAMED = 6  # clusters with a colour of their own; the others, and those who stay alone, are grey
BEHIND = 0.25  # strength of what the sphere would hide


@reads(trajectory=A_RUN, index=ANY, ax=ON)
def circle(trajectory: Trajectory, index: int = -1, *, ax: Axes | None = None, **scatter: Any) -> Axes:
    """One state on the unit circle; the area of a dot is the mass of those within a hundredth of a radian.

    Args:
        trajectory: Positions (T, n, 2), of length 1.
        index: Which saved state.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: If positions are not (T, n, 2), or lie off the circle.
    """
    run = single(trajectory, 2)
    off = float(np.abs((run.positions**2).sum(-1) - 1).max())
    if not on_units(run):
        raise ValueError(
            f"trajectory must hold points of the unit circle, |x|^2 is off by {off:.3g}; the plane is kd.plots.plane"
        )
    ax = new_axes(ax)
    around = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(around), np.sin(around), color="0.8", linewidth=1.0, zorder=1)
    options: dict[str, Any] = {"s": areas(run, index), "alpha": 0.7, "linewidths": 0, "zorder": 2}
    ax.scatter(*run.positions[index].T, **(options | _coloured(run, scatter)))
    ax.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[])
    ax.set_title(clock(run, index))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


@reads(trajectory=A_RUN, index=ANY, ax=ON)
def plane(
    trajectory: Trajectory, index: int = -1, *, trails: bool = True, ax: Axes | None = None, **scatter: Any
) -> Axes:
    """One state in the plane, with the paths that led there, on axes that hold the whole run.

    The area of a dot is the mass of those within a hundredth of the extent; who ends together has one colour, who
    stays alone is grey. On a torus the axes are one period, and paths break where they cross a border.

    Args:
        trajectory: Positions (T, n, 2).
        index: Which saved state.
        trails: Draw the paths of up to 200 particles.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: If positions are not (T, n, 2).
    """
    run = single(trajectory, 2)
    ax = new_axes(ax)
    last, colours = index % len(run), _colours(run)
    if trails:
        paths = broken(run.space, run.positions[: last + 1, :DRAWN])
        for path, colour in zip(paths.swapaxes(0, 1), colours, strict=False):
            ax.plot(*path.T, color=colour, linewidth=0.6, alpha=0.4, zorder=1)
    options: dict[str, Any] = {"s": areas(run, index), "alpha": 0.8, "linewidths": 0, "zorder": 2}
    ax.scatter(*run.positions[index].T, **(options | _coloured(run, scatter)))
    low, high = _limits(run)
    ax.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set(xlabel="first coordinate", ylabel="second coordinate", title=clock(run, index))
    return ax


@reads(trajectory=A_RUN, index=ANY, ax=ON)
def sphere(
    trajectory: Trajectory, index: int = -1, *, trails: bool = True, ax: Axes | None = None, **scatter: Any
) -> Axes:
    """One state on the unit sphere, with the paths that led there; what lies behind the sphere is faint.

    Who ends together has one colour, who stays alone is grey.

    Args:
        trajectory: Positions (T, n, 3).
        index: Which saved state.
        trails: Draw the paths of up to 200 particles.
        ax: Axes made with ``projection="3d"``; the view decides what is in front.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: If positions are not (T, n, 3), or ``ax`` is flat.
    """
    run = single(trajectory, 3)
    axes: Any = plt.subplots(subplot_kw={"projection": "3d"})[1] if ax is None else ax
    if not hasattr(axes, "plot_wireframe"):
        raise ValueError('ax must be three-dimensional: plt.subplots(subplot_kw={"projection": "3d"})')
    longitude, latitude = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    globe = np.cos(longitude) * np.sin(latitude), np.sin(longitude) * np.sin(latitude), np.cos(latitude)
    axes.plot_wireframe(*globe, color="0.85", linewidth=0.4)
    last, here, colours = index % len(run), run.positions[index], _colours(run)
    opacity = np.where(here @ _towards_viewer(axes) < 0, BEHIND, 1.0)
    if trails:
        for i in range(min(run.positions.shape[1], DRAWN)):
            axes.plot(*run.positions[: last + 1, i].T, color=colours[i], linewidth=0.6, alpha=0.5 * opacity[i])
    options: dict[str, Any] = {"s": areas(run, index), "depthshade": False, "linewidths": 0}
    if not {"c", "color"} & scatter.keys():
        # Mixed with the background, not transparent: many dots on one another would be opaque again.
        paper = np.asarray(to_rgba(axes.figure.get_facecolor()))
        options["c"] = opacity[:, None] * colours + (1 - opacity[:, None]) * paper
    axes.scatter(*here.T, **(options | scatter))
    axes.set_box_aspect((1, 1, 1), zoom=1.4)  # the frame is hidden, so its margins are not needed
    axes.set_axis_off()
    axes.set_title(clock(run, index))
    return axes  # type: ignore[no-any-return]


def _coloured(run: Trajectory, scatter: dict[str, Any]) -> dict[str, Any]:
    """The caller's options, with colours of clusters where none are asked for."""
    return scatter if {"c", "color", "facecolors"} & scatter.keys() else {"c": _colours(run)} | scatter


def _colours(run: Trajectory) -> np.ndarray:
    """A colour for each particle, (n, 4), by the cluster in which it ends; all alike where none has formed."""
    from krause_dynamics.analysis import clusters

    extent = float(np.max(run.space.extent(run.positions[0])))
    found = clusters.find(run.final, TOGETHER * extent, period=run.space.period)
    members = np.bincount(found.labels)
    if members.max() == 1:
        return np.tile(to_rgba("C0"), (len(found.labels), 1))
    share = np.bincount(found.labels, weights=masses(run))
    palette = np.tile(to_rgba("0.55"), (len(members), 1))
    for place, label in enumerate(np.argsort(-share, kind="stable")[:NAMED]):
        if members[label] > 1:
            palette[label] = to_rgba(f"C{place}")
    return palette[found.labels]


def _limits(run: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the axes: one period, or all positions with a margin."""
    if run.space.period is not None:
        return np.zeros(2), np.broadcast_to(run.space.period, 2)
    low, high = run.positions.min((0, 1)), run.positions.max((0, 1))
    margin = 0.05 * float((high - low).max()) or 0.05
    return low - margin, high + margin


def _towards_viewer(axes: Any) -> np.ndarray:
    """Unit vector from the centre to the eye."""
    turn, height = np.radians(axes.azim), np.radians(axes.elev)
    return np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
