"""A measure as the distances see it: points in float64 and normalised masses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._array import Array, namespace, to_numpy


class Measure(NamedTuple):
    """Points (n, d) in float64 and their masses (n,), or ``None`` where all are 1/n."""

    points: np.ndarray
    mass: np.ndarray | None

    @property
    def share(self) -> np.ndarray:
        """Masses (n,) that sum to 1."""
        n = len(self.points)
        return np.full(n, 1 / n) if self.mass is None else self.mass


def as_measure(name: str, points: Array, log_mass: Array | None) -> Measure:
    """Check one state and normalise its masses; points without mass are left out.

    Raises:
        TypeError: Mixed libraries, dtypes or devices.
        ValueError: A batch of states, NaN, or no mass.
    """
    namespace(**{name: points, f"log_mass of {name}": log_mass})
    points = to_numpy(points).astype(np.float64, copy=False)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"{name} must be one state of shape (n, d) or (n,), got {points.shape}; see measures.along")
    mass = None
    if log_mass is not None:
        log_mass = to_numpy(log_mass).astype(np.float64, copy=False)
        if log_mass.shape != points.shape[:1] or not np.isfinite(largest := float(log_mass.max())):
            raise ValueError(
                f"log_mass of {name} must have shape {points.shape[:1]} and one finite entry at least, "
                f"got shape {log_mass.shape}"
            )
        mass = log_mass - largest
        np.exp(mass, out=mass)
        if not mass.min() > 0:
            points, mass = points[mass > 0], mass[mass > 0]
        mass /= mass.sum()
    if not np.all(np.isfinite(points)):
        raise ValueError(f"{name} must be finite, got NaN or infinity; take points out with log_mass = -inf")
    return Measure(points, mass)


def two(x: Array, y: Array, x_log_mass: Array | None, y_log_mass: Array | None, p: float) -> tuple[Measure, Measure]:
    """Both measures of a distance, checked against each other."""
    if not p >= 1:
        raise ValueError(f"p must be at least 1, got {p}")
    first, second = as_measure("x", x, x_log_mass), as_measure("y", y, y_log_mass)
    if first.points.shape[1] != second.points.shape[1]:
        raise ValueError(f"x and y must have one dimension, got shapes {first.points.shape} and {second.points.shape}")
    return first, second
