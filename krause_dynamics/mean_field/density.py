"""Densities as masses of cells; `initial_densities` holds the ways to make one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from krause_dynamics._arguments import Entries, Is
from krause_dynamics.mean_field.cells import Cells, LatitudeCells, LineCells

SUCH_CELLS = "mean_field.LineCells(100, 0.0, 1.0)"
CELLS = Is(Cells, SUCH_CELLS)
EVEN = 1e-12  # of the mass: a density that differs by less from its mirror image is even


@dataclass(frozen=True, eq=False)
class Density:
    """A measure on a row of cells.

    Attributes:
        cells: Where it lives.
        mass: Mass of every cell, (count,), not negative, not all zero. The total is 1 unless a constructor was told.
    """

    cells: Cells
    mass: np.ndarray

    def __post_init__(self) -> None:
        CELLS.read("cells", self.cells)
        mass = np.asarray(Entries((1, 1)).read("mass", self.mass), dtype=np.float64)
        if mass.shape != (self.cells.count,):
            raise ValueError(f"mass must have shape (cells,) = ({self.cells.count},), got {mass.shape}")
        if not np.isfinite(mass).all():
            raise ValueError("mass must be finite, got NaN or infinity")
        if mass.min() < 0:
            raise ValueError(f"a density must not be negative, got {mass.min():.3g} in cell {int(mass.argmin())}")
        if not mass.sum() > 0:
            raise ValueError("a density must have positive mass, all cells are empty; does it lie outside the cells?")
        object.__setattr__(self, "mass", mass)

    @property
    def total(self) -> float:
        """Total mass."""
        return float(self.mass.sum())

    @property
    def values(self) -> np.ndarray:
        """Mass per volume, (count,): per length on lines, per radian on the circle, relative to uniform on spheres."""
        return self.mass / self.cells.volumes

    @property
    def log_mass(self) -> np.ndarray:
        """Log of the masses, (count,); -inf in empty cells."""
        return log_of(self.mass)

    @property
    def mean(self) -> float:
        """Mean of the coordinate (of no use on periodic spaces)."""
        return float(self.mass @ self.cells.centres / self.total)

    @property
    def variance(self) -> float:
        """Variance of the masses at the centres; for a smooth law width^2/12 more than its own (Sheppard)."""
        return float(self.mass @ (self.cells.centres - self.mean) ** 2 / self.total)

    def quantiles(self, count: int) -> np.ndarray:
        """Positions (count, d) of equal masses: the coordinates where the distribution function is (k + 1/2)/count.

        Deterministic particles for the Lagrangian form; not for latitudes, which are no points. An even density on a
        line has exactly even quantiles: near a branch point rounding would decide.

        Raises:
            ValueError: A zonal density.
        """
        if isinstance(self.cells, LatitudeCells):
            raise ValueError(
                "quantiles need points on a line or circle; a latitude is a ring, sample the sphere instead"
            )
        cumulative = np.concatenate([[0.0], np.cumsum(self.mass)])
        levels = (np.arange(count) + 0.5) / count * cumulative[-1]
        place = _inverse(cumulative, self.cells.edges, levels)
        if isinstance(self.cells, LineCells) and np.abs(self.mass - self.mass[::-1]).max() <= EVEN * self.total:
            offset = place - sum(self.cells.bounds) / 2
            place = sum(self.cells.bounds) / 2 + (offset - offset[::-1]) / 2
        return self.cells.points(place)


def log_of(mass: np.ndarray) -> np.ndarray:
    """Log of masses without a warning for the empty ones."""
    with np.errstate(divide="ignore"):
        return np.log(mass)


def _inverse(cumulative: np.ndarray, edges: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Where the piecewise linear distribution function takes the levels; flat pieces are skipped."""
    cell = np.clip(np.searchsorted(cumulative, levels, side="right") - 1, 0, len(edges) - 2)
    mass = cumulative[cell + 1] - cumulative[cell]
    share = (levels - cumulative[cell]) / np.where(mass > 0, mass, 1.0)
    return edges[cell] + np.clip(share, 0.0, 1.0) * (edges[cell + 1] - edges[cell])
