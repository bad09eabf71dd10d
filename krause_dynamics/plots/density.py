"""Densities over time, with the clusters in which they end."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from krause_dynamics._arguments import Flag, Real, reads
from krause_dynamics.plots.style import A_RUN, ON, new_axes
from krause_dynamics.trajectory import Trajectory

ROWS = 200  # of the image: fewer than its pixels, so that each is seen
DECADES = 4  # range of the logarithmic colour scale below the largest value


@reads(trajectory=A_RUN, ax=ON, clusters=Flag(), floor=Real())
def density(
    trajectory: Trajectory, *, ax: Axes | None = None, clusters: bool = True, floor: float = 1e-3, **image: Any
) -> Axes:
    """Space-time image of a density, logarithmic in colour, and its clusters at the last time.

    Shown is mass per unit of the coordinate; on a sphere that is the law of the angle to the axis. Where cells share a
    row of the image the densest is shown, so that a cluster of one cell is seen.

    Args:
        trajectory: A run of ``kd.mean_field.solve`` or ``iterate``.
        ax: Where to draw.
        clusters: Mark each final cluster, labelled with its share of the mass.
        floor: Share below which a cluster is not marked.
        **image: For ``Axes.pcolormesh``.

    Raises:
        ValueError: The trajectory holds no density.
    """
    from krause_dynamics.mean_field import density_at

    run = trajectory.numpy()
    if "cells" not in run.meta or run.log_mass is None:
        raise ValueError("trajectory must hold a density, as kd.mean_field.solve returns; particles: kd.plots.angles")
    cells = density_at(run).cells
    place, values = _rows(cells.centres, np.exp(run.log_mass), cells.width)
    top = values.max()
    options: dict[str, Any] = {"cmap": "magma", "norm": LogNorm(top / 10**DECADES, top), "rasterized": True} | image
    ax = new_axes(ax)
    # Empty cells take the lowest colour; a logarithm has none for 0.
    shown = np.maximum(values, top / 10**DECADES)
    picture = ax.pcolormesh(run.times, place, shown.T, shading="nearest", **options)
    ax.figure.colorbar(picture, ax=ax, label="mass per unit (logarithmic)", pad=0.12 if clusters else 0.02)
    if clusters:
        _mark(ax, run, floor)
    name = "position" if type(cells).__name__ == "LineCells" else "angle (radians)"
    ax.set(xlabel=str(run.meta.get("axis", "time")), ylabel=name, ylim=cells.bounds)
    return ax


def _rows(centres: np.ndarray, mass: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Largest density in each of at most `ROWS` rows: one cell that holds much stays as bright as it is."""
    together = -(-len(centres) // ROWS)
    starts = np.arange(0, len(centres), together)
    counts = np.diff(np.append(starts, len(centres)))
    return np.add.reduceat(centres, starts) / counts, np.maximum.reduceat(mass, starts, axis=-1) / width


def _mark(ax: Axes, run: Trajectory, floor: float) -> None:
    from krause_dynamics.mean_field import clusters as clusters_of

    found = [cluster for cluster in clusters_of(run) if cluster.mass >= floor]
    # At the border of the image, which reaches half a step beyond the last time: a line between would read as a minus.
    border = ax.get_yaxis_transform()
    places = [cluster.position for cluster in found]
    ax.plot([1.0] * len(found), places, "<", color="C0", clip_on=False, transform=border, label="clusters")
    for cluster in found:
        place, words = (1.0, cluster.position), f"{cluster.mass:.3f}"
        ax.annotate(words, place, xytext=(6, 0), xycoords=border, textcoords="offset points", va="center")
