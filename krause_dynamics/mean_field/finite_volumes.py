"""Conservative transport of cell masses: limited linear reconstruction, upwind fluxes, Runge-Kutta steps.

Second order in the cell width for smooth densities (van Leer 1979); steps are those of Shu & Osher (1988), convex
combinations of Euler steps, so that what keeps an Euler step positive keeps them positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from krause_dynamics.mean_field.cells import Cells

SHARE_PER_STEP = 0.8  # of a cell's mass that may leave it in one stage; 1 is the bound of positivity

VelocityOf = Callable[[float, np.ndarray, np.ndarray], np.ndarray]


class Rates(NamedTuple):
    """Time derivative of the masses (n,), and how much leaves each cell per time (n,)."""

    change: np.ndarray
    leaving: np.ndarray


class Transport:
    """``d mass_i / dt = F_{i-1/2} - F_{i+1/2}`` with the upwind flux of the reconstructed density.

    Args:
        cells: Geometry.
        periodic: Whether the last cell touches the first; otherwise nothing crosses the ends.
        velocity: ``velocity(t, mass, slopes)`` at `faces`.
    """

    def __init__(self, cells: Cells, periodic: bool, velocity: VelocityOf) -> None:
        self.periodic, self.velocity, self.volumes = periodic, velocity, cells.volumes
        # Face j lies between cells j - 1 and j; without a wrap only the inner ones carry a flux.
        self.areas = cells.areas[:-1] if periodic else cells.areas[1:-1]
        self.before = cells.centres - cells.edges[:-1]
        self.after = cells.edges[1:] - cells.centres
        length = cells.bounds[1] - cells.bounds[0]
        self.gaps = np.diff(cells.centres, prepend=cells.centres[-1] - length) if periodic else np.diff(cells.centres)

    def slopes(self, density: np.ndarray) -> np.ndarray:
        """Slope in every cell: van Leer's mean of the neighbouring differences, 0 at extrema and at walls."""
        if self.periodic:
            left = (density - np.roll(density, 1)) / self.gaps
            right = np.roll(left, -1)
        else:
            differences = np.diff(density) / self.gaps
            left, right = np.concatenate([[0.0], differences]), np.concatenate([differences, [0.0]])
        product = left * right
        rising = product > 0
        slopes = np.where(rising, 2 * product / np.where(rising, left + right, 1.0), 0.0)
        # On uneven cells the limiter alone does not keep both ends of a cell positive.
        bound = density / np.maximum(self.before, self.after)
        return np.clip(slopes, -bound, bound)

    def rates(self, t: float, mass: np.ndarray) -> Rates:
        """Fluxes of the state ``mass`` (n,) at time ``t``."""
        density = mass / self.volumes
        slopes = self.slopes(density)
        velocity = self.velocity(t, mass, slopes)
        at_right, at_left = density + slopes * self.after, density - slopes * self.before
        upstream = np.roll(at_right, 1) if self.periodic else at_right[:-1]
        downstream = at_left if self.periodic else at_left[1:]
        forward = self.areas * np.maximum(velocity, 0.0) * upstream
        backward = self.areas * np.maximum(-velocity, 0.0) * downstream
        if self.periodic:
            flux, leaving = forward - backward, np.roll(forward, -1) + backward
            return Rates(flux - np.roll(flux, -1), leaving)
        padded = np.concatenate([[0.0], forward - backward, [0.0]])
        leaving = np.concatenate([forward, [0.0]]) + np.concatenate([[0.0], backward])
        return Rates(padded[:-1] - padded[1:], leaving)

    def step(self, t: float, mass: np.ndarray, dt: float, first: Rates) -> np.ndarray | None:
        """Masses at ``t + dt`` (order 3), or None where a stage would empty a cell."""
        one = _euler(mass, dt, first)
        if one is None:
            return None
        two = _euler(one, dt, self.rates(t + dt, one))
        if two is None:
            return None
        two = 0.75 * mass + 0.25 * two
        three = _euler(two, dt, self.rates(t + dt / 2, two))
        return None if three is None else mass / 3 + (2 / 3) * three


def largest_step(mass: np.ndarray, rates: Rates) -> float:
    """The step in which some cell would be emptied: the CFL bound of this state, infinite where nothing moves."""
    moving = rates.leaving > 0
    return float(np.min(mass[moving] / rates.leaving[moving])) if moving.any() else np.inf


def _euler(mass: np.ndarray, dt: float, rates: Rates) -> np.ndarray | None:
    if (dt * rates.leaving > mass).any():
        return None
    return np.maximum(mass + dt * rates.change, 0.0)
