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
NEGLIGIBLE = 1e-12  # of the total mass: a cell with less does not bind the step, it gives at most what it has

VelocityOf = Callable[[float, np.ndarray, np.ndarray], np.ndarray]


class Rates(NamedTuple):
    """Mass per time through the faces, from the cell before (forward) and from the cell after (backward): (faces,)."""

    forward: np.ndarray
    backward: np.ndarray
    periodic: bool

    @property
    def leaving(self) -> np.ndarray:
        """How much leaves each cell per time, (n,)."""
        if self.periodic:
            return np.roll(self.forward, -1) + self.backward
        return np.append(self.forward, 0.0) + np.insert(self.backward, 0, 0.0)

    @property
    def change(self) -> np.ndarray:
        """Time derivative of the masses, (n,)."""
        flux = self.forward - self.backward
        if self.periodic:
            return flux - np.roll(flux, -1)
        return np.insert(flux, 0, 0.0) - np.append(flux, 0.0)

    def limited(self, share: np.ndarray) -> Rates:
        """The same with what leaves cell i times ``share[i]``."""
        if self.periodic:
            return Rates(self.forward * np.roll(share, 1), self.backward * share, True)
        return Rates(self.forward * share[:-1], self.backward * share[1:], False)


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
        return Rates(forward, backward, self.periodic)

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
    leaving = rates.leaving
    moving = (leaving > 0) & (mass > NEGLIGIBLE * mass.sum())
    return float(np.min(mass[moving] / leaving[moving])) if moving.any() else np.inf


def _euler(mass: np.ndarray, dt: float, rates: Rates) -> np.ndarray | None:
    """An Euler step; None where it would empty a cell that counts. Tails give at most what they have."""
    leaving = dt * rates.leaving
    emptied = leaving > mass
    if emptied.any():
        if (mass[emptied] > NEGLIGIBLE * mass.sum()).any():
            return None
        rates = rates.limited(np.where(emptied, mass / np.where(emptied, leaving, 1.0), 1.0))
    return np.maximum(mass + dt * rates.change, 0.0)
