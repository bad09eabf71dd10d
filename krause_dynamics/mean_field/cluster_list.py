"""How a density ends: a list of clusters with position, mass and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, Is, Maybe, Real, Whole, reads
from krause_dynamics._array import to_numpy
from krause_dynamics.interaction import from_dict
from krause_dynamics.mean_field.cells import Cells, CircleCells
from krause_dynamics.mean_field.density import Density
from krause_dynamics.trajectory import Trajectory

CELLS_APART = 4  # empty cells that separate clusters where no radius does


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        position: Mean coordinate: position on a line, angle on a circle, polar angle on a sphere.
        mass: Share of the total mass.
        spread: Standard deviation of the coordinate within the cluster.
    """

    position: float
    mass: float
    spread: float


@reads(
    state=Is((Trajectory, Density), "mean_field.solve(...)"),
    index=Whole(-(10**9)),
    gap=Maybe(POSITIVE),
    floor=Real(0.0),
)
def clusters(
    state: Trajectory | Density, index: int = -1, *, gap: float | None = None, floor: float = 1e-6
) -> list[Cluster]:
    """The clusters of a mean-field run, of particles on a line, torus or circle, or of a density, from left to right.

    Points (cells, particles) that hold mass belong together where neighbours are at most ``gap`` apart.

    Args:
        state: A run of `solve`, `iterate` or `follow`, or a density.
        index: Which saved time of a run.
        gap: Largest distance within a cluster. By default the radius of the rule, beyond which clusters do not meet;
            4 cells where the rule has no radius (metastable clusters of dense rules).
        floor: Share of the total mass below which a cell, and then a cluster, counts as empty.

    Raises:
        ValueError: Particles with more than one coordinate, or no gap known for them.
    """
    place, mass, period, known = _read(state, index)
    gap = known if gap is None else gap
    if gap is None:
        raise ValueError("gap must be given where neither cells nor a radius are known; for example gap=0.1")
    share = mass / mass.sum()
    order = np.argsort(place, kind="stable")
    # A cell counts as empty relative to the fullest: fine grids spread a cluster thin.
    order = order[share[order] > floor * share.max()]
    groups = np.split(order, np.flatnonzero(np.diff(place[order]) > gap) + 1)
    if period is not None and len(groups) > 1 and place[groups[0][0]] + period - place[groups[-1][-1]] <= gap:
        groups = [np.concatenate([groups[-1], groups[0]]), *groups[1:-1]]
    found = [_summary(place[group], share[group], period) for group in groups]
    return sorted((c for c in found if c.mass > floor), key=lambda c: c.position)


def _read(state: Trajectory | Density, index: int) -> tuple[np.ndarray, np.ndarray, float | None, float | None]:
    """Coordinates, masses, period (or None) and the default gap."""
    if isinstance(state, Density):
        return state.cells.centres, state.mass, _period(state.cells, None), CELLS_APART * state.cells.width
    dynamics = state.meta.get("dynamics", {})
    radius, log_mass = _radius(dynamics), state.log_mass_at(index)
    positions = to_numpy(state[index])
    if "cells" in state.meta and log_mass is not None:
        cells = from_dict(state.meta["cells"])
        gap = CELLS_APART * cells.width if radius is None else radius
        return cells.centres, np.exp(to_numpy(log_mass)), _period(cells, dynamics), gap
    space = dynamics.get("space", {})
    if space.get("type") == "Circle" and positions.ndim == 2:
        place = np.arctan2(positions[:, 1], positions[:, 0]) % (2 * np.pi)
        period: float | None = 2 * np.pi
        # The radius of a rule is a chord, positions are angles.
        radius = None if radius is None else 2 * float(np.arcsin(min(radius / 2, 1.0)))
    elif positions.ndim == 2 and positions.shape[-1] == 1:
        length = state.space.period
        place, period = state.space.wrap(positions)[:, 0], None if length is None else float(np.max(length))
    else:
        raise ValueError(f"positions must lie on a line, got shape {positions.shape}; kd.clusters has any dimension")
    mass = np.ones(len(positions)) if log_mass is None else np.exp(to_numpy(log_mass))
    return place, mass, period, radius


def _radius(dynamics: dict[str, Any]) -> float | None:
    neighbourhood = dynamics.get("rule", {}).get("neighbourhood", {})
    radii = [part["radius"] for part in neighbourhood.get("members", [neighbourhood]) if "radius" in part]
    return float(np.min(radii)) if radii else None


def _period(cells: Cells, dynamics: dict[str, Any] | None) -> float | None:
    on_torus = dynamics is not None and dynamics.get("space", {}).get("type") == "Torus"
    return cells.bounds[1] - cells.bounds[0] if isinstance(cells, CircleCells) or on_torus else None


def _summary(place: np.ndarray, share: np.ndarray, period: float | None) -> Cluster:
    if period is not None:  # a cluster across the seam: unwrap about its first point
        place = place[0] + (place - place[0] + period / 2) % period - period / 2
    mass = share.sum()
    mean = share @ place / mass
    spread = np.sqrt(max(share @ (place - mean) ** 2 / mass, 0.0))
    if period is not None:
        mean = mean % period % period  # the first remainder of -1e-17 is the period itself
    return Cluster(float(mean), float(mass), float(spread))
