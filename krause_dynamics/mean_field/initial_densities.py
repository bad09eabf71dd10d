"""Ways to make a density: from a function, from particles, and the usual laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, Called, Entries, Is, Maybe, Real, Reals, Whole, reads
from krause_dynamics._array import to_numpy
from krause_dynamics.mean_field.cells import Cells, CircleCells, LatitudeCells, LineCells
from krause_dynamics.mean_field.density import CELLS, SUCH_CELLS, Density
from krause_dynamics.spaces import Space

NODES_PER_CELL = 6  # Gauss-Legendre nodes for the mass of a cell: exact to degree 11


@reads(cells=CELLS, function=Called(), mass=Maybe(POSITIVE))
def from_function(cells: Cells, function: Callable[[np.ndarray], np.ndarray], *, mass: float | None = 1.0) -> Density:
    """A density given as a function of the coordinate.

    Args:
        cells: Where.
        function: Density at coordinates (any shape -> same shape), not negative: per length, per radian, or relative to
            the uniform law on a sphere.
        mass: Total mass after scaling; ``None`` keeps the integral.

    Raises:
        ValueError: Negative or NaN somewhere, or zero everywhere.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES_PER_CELL)
    where = (cells.edges[:-1] + cells.edges[1:])[:, None] / 2 + cells.width / 2 * nodes
    values = np.asarray(function(where)) * np.ones_like(where)
    if not (values >= 0).all():
        raise ValueError(f"a density must not be negative or NaN, its smallest value is {values.min():.3g}")
    return _scaled(cells, (values * cells.weight(where)) @ weights * (cells.width / 2), mass)


def _scaled(cells: Cells, masses: np.ndarray, mass: float | None) -> Density:
    density = Density(cells, masses)
    return density if mass is None else Density(cells, masses * (mass / density.total))


@reads(cells=CELLS, support=Maybe(Reals(ndim=1, rising=True)), mass=POSITIVE)
def uniform(cells: Cells, support: tuple[float, float] | None = None, *, mass: float = 1.0) -> Density:
    """The uniform law on all cells, or on an interval of the coordinate (cells that it cuts get their exact share).

    Args:
        cells: Where.
        support: Ends of the interval; by default everything.
        mass: Total mass. With ``mass=upper - lower`` on a line the density is 1.

    Raises:
        ValueError: A support outside the cells.
    """
    if support is None:
        return _scaled(cells, cells.volumes.copy(), mass)
    if len(support) != 2:
        raise ValueError(f"support must be the two ends of an interval, got {support!r}")
    covered = np.minimum(cells.edges[1:], support[1]) - np.maximum(cells.edges[:-1], support[0])
    return _scaled(cells, cells.volumes * np.maximum(covered, 0.0) / cells.width, mass)


@reads(cells=CELLS, mean=Real(), deviation=POSITIVE)
def gaussian(cells: LineCells, mean: float = 0.0, deviation: float = 1.0) -> Density:
    """The normal law, exact masses of all cells (relative precision in both tails); cut at the ends, total 1.

    Args:
        cells: Of a line.
        mean: Of the law; unit: position.
        deviation: Its standard deviation; unit: position.

    Raises:
        ValueError: deviation not positive, or cells that miss the law.
    """
    from scipy.special import ndtr

    if not deviation > 0:
        raise ValueError(f"deviation must be positive, got {deviation!r}")
    z = (cells.edges - mean) / deviation
    left, right = ndtr(z), ndtr(-z)
    return _scaled(cells, np.where(z[:-1] > 0, right[:-1] - right[1:], left[1:] - left[:-1]), 1.0)


@reads(cells=Is((Cells, int), SUCH_CELLS), kappa=Real(), mean=Real())
def von_mises(cells: int | Cells, kappa: float, mean: float = 0.0) -> Density:
    """Density proportional to ``exp(kappa cos(angle - mean))``: on the circle, or as von Mises-Fisher on latitudes.

    Args:
        cells: Number of cells of the circle, or the cells (`LatitudeCells` need ``mean=0``).
        kappa: Concentration, any finite number; 0 is the uniform law.
        mean: Angle of the maximum.

    Raises:
        ValueError: Cells on a line, or a maximum off the axis of a sphere.
    """
    where = CircleCells(cells) if isinstance(cells, int) else cells
    if isinstance(where, LineCells):
        raise ValueError("von_mises needs CircleCells or LatitudeCells, got LineCells; take gaussian on a line")
    if isinstance(where, LatitudeCells) and mean != 0.0:
        raise ValueError(f"mean must be 0 on a sphere (the first axis), got {mean!r}")
    return from_function(where, lambda angle: np.exp(kappa * (np.cos(angle - mean) - np.sign(kappa))))


@reads(cells=CELLS, x=Entries())
def from_particles(cells: Cells, x: Any, log_mass: Any = None, *, space: Space | None = None) -> Density:
    """Each particle gives its mass to the two nearest cells, in shares that keep its position as their mean.

    Within half a cell of an end of a line there is one cell only, and the position is rounded to its centre; on a torus
    the last cell is beside the first.

    Args:
        cells: Where; on `LatitudeCells` the angle to the first axis is taken, the rest averaged away.
        x: Positions (n, d) or (n,).
        log_mass: log m, (n,); by default -log n each.
        space: Where the particles live; by default the circle on `CircleCells`, and a line with ends on `LineCells`.

    Raises:
        ValueError: A particle outside the cells, masses of another number, or cells of another space.
    """
    points = to_numpy(x).astype(np.float64)
    if not points.size:
        raise ValueError(f"x must hold at least one particle, got shape {points.shape}")
    if log_mass is not None and np.shape(to_numpy(log_mass)) != points.shape[:1]:
        raise ValueError(f"log_mass must have shape (n,) = {points.shape[:1]}, got {np.shape(to_numpy(log_mass))}")
    points = points[:, None] if points.ndim == 1 else points
    around = isinstance(cells, CircleCells)
    if space is not None:
        cells.check_space(space)
        around, points = cells.is_periodic(space), space.wrap(points)
    coordinate = cells.coordinate(points)
    mass = np.full(len(coordinate), 1 / len(coordinate)) if log_mass is None else np.exp(to_numpy(log_mass))
    lower, upper = cells.bounds
    present = mass > 0
    if not ((coordinate[present] >= lower) & (coordinate[present] <= upper)).all():
        raise ValueError(f"particles must lie in the cells [{lower:g}, {upper:g}]; they reach {coordinate.max():g}")
    place = (coordinate[present] - lower) / cells.width - 0.5
    first = np.floor(place).astype(int)
    share = place - first
    masses = np.zeros(cells.count)
    for cell, part in ((first, 1 - share), (first + 1, share)):
        cell = cell % cells.count if around else np.clip(cell, 0, cells.count - 1)
        np.add.at(masses, cell, mass[present] * part)
    return Density(cells, masses)


@reads(count=Whole(1, 2_000), mean=Real(), deviation=POSITIVE)
def gaussian_nodes(count: int, mean: float = 0.0, deviation: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite points of a normal law as weighted particles, for `simulate`: exact moments to degree 2 count - 1.

    40 of them follow a normal law under a smooth rule to 1e-11.

    Args:
        count: Number of points.
        mean: Of the law; unit: position.
        deviation: Its standard deviation; unit: position.

    Returns:
        Positions (count, 1) and log-masses (count,).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return mean + deviation * nodes[:, None], np.log(weights) - 0.5 * np.log(2 * np.pi)
