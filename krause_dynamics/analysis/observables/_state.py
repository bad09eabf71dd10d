"""Points and masses checked once, for every observable."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from krause_dynamics._array import Array, as_floating, is_floating, namespace, to_numpy

NEVER = -float("inf")


@dataclass(frozen=True)
class Weighted:
    """Checked points (..., n, d), absent ones set to 0, their shares p (..., n) and presence (..., n)."""

    xp: Any
    points: Array
    share: Array
    present: Array

    @cached_property
    def directions(self) -> Array:
        """`directions` of the points, (..., n, d)."""
        return units(self.xp, self.points)

    def doubled(self, x: Array) -> Array:
        """An array in float64, for sums that a theorem bounds; where a device has none (MPS), as it is."""
        return x if str(getattr(x, "device", "")).startswith("mps") else self.xp.astype(x, self.xp.float64, copy=False)

    @cached_property
    def doubled_directions(self) -> Array:
        """`directions` of the points in float64, (..., n, d)."""
        return units(self.xp, self.doubled(self.points))

    @cached_property
    def doubled_share(self) -> Array:
        """The shares in float64, where they sum to 1 as well."""
        share = self.doubled(self.share)
        return share if share.dtype == self.share.dtype else share / self.xp.sum(share, axis=-1, keepdims=True)

    def on_host(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points, shares and presence as numpy arrays."""
        if type(self.points) is np.ndarray:
            return self.points, self.share, self.present
        return to_numpy(self.points), to_numpy(self.share), to_numpy(self.present)


def weighted(points: Array | Weighted, log_mass: Array | None = None) -> Weighted:
    """Check points and masses once and turn log-masses into shares that sum to 1.

    Args:
        points: (..., n, d); or what this function returned, so that several observables share one check.
        log_mass: (..., n) or ``None`` for equal masses.

    Raises:
        TypeError: Mixed libraries, dtypes or devices, or no floating dtype.
        ValueError: No points, shapes that do not fit, NaN or infinity in a present point, or no mass at all.
    """
    if isinstance(points, Weighted):
        return points
    if points is None:
        raise TypeError("points must be an array of shape (..., n, d), got None")
    if not is_floating(points):  # masked, object, of another byte order
        points = as_floating("points", points) if getattr(points, "dtype", np.dtype(int)).kind in "Of" else points
    xp = namespace(points=points, log_mass=log_mass)
    if not xp.isdtype(points.dtype, "real floating"):
        raise TypeError(f"points must be floating, got dtype {points.dtype}; convert with points * 1.0")
    if points.ndim < 2 or points.shape[-1] == 0 or points.shape[-2] == 0:
        raise ValueError(
            f"points must have shape (..., n, d) with n, d >= 1, got {tuple(points.shape)}; 1-D: x[:, None]"
        )
    if points.dtype.itemsize < 4:
        points = xp.astype(points, xp.float32)
        log_mass = None if log_mass is None else xp.astype(log_mass, xp.float32)
    if log_mass is None:
        present = xp.ones_like(points[..., 0], dtype=xp.bool)
        share = xp.ones_like(points[..., 0]) / points.shape[-2]
    else:
        present, share = _shares(xp, points, log_mass)
        points = xp.where(present[..., None], points, xp.zeros_like(points))
    if not bool(xp.all(xp.isfinite(points))):
        raise ValueError("points must be finite, got NaN or infinity; take a point out with log_mass = -inf")
    return Weighted(xp, points, share, present)


def _shares(xp: Any, points: Array, log_mass: Array) -> tuple[Array, Array]:
    try:
        log_mass = xp.broadcast_to(log_mass, points.shape[:-1])
    except (ValueError, RuntimeError):
        raise ValueError(
            f"log_mass must have shape (..., n) fitting points {tuple(points.shape)}, got {tuple(log_mass.shape)}"
        ) from None
    largest = xp.max(log_mass, axis=-1, keepdims=True)
    if not bool(xp.all(xp.isfinite(largest))):
        raise ValueError("log_mass must leave a finite mass in every state, got all -inf, +inf or NaN in one of them")
    mass = xp.exp(log_mass - largest)
    return log_mass > NEVER, mass / xp.sum(mass, axis=-1, keepdims=True)


def directions(points: Array) -> Array:
    """Unit vectors ``u_i = x_i / |x_i|``; a point at the origin has no direction and stays 0.

    Args:
        points: (..., n, d).

    Returns:
        (..., n, d).
    """
    xp = namespace(points=points)
    if points.ndim == 0:
        raise ValueError("points must be vectors (..., d), got one number")
    return units(xp, as_floating("points", points))


def units(xp: Any, points: Array) -> Array:
    """`directions` in a namespace that is known."""
    norms = xp.linalg.vector_norm(points, axis=-1, keepdims=True)
    return points / xp.where(norms > 0, norms, xp.ones_like(norms))


def mean(xp: Any, share: Array, values: Array) -> Array:
    """``sum_i p_i v_i`` over the points, (..., n, d) -> (..., d)."""
    return xp.sum(share[..., None] * values, axis=-2)


def ratio(xp: Any, numerator: Array, denominator: Array, otherwise: float) -> Array:
    """``numerator / denominator``, and ``otherwise`` where the denominator is 0."""
    safe = xp.where(denominator > 0, denominator, xp.ones_like(denominator))
    return xp.where(denominator > 0, numerator / safe, xp.full_like(safe, otherwise))
