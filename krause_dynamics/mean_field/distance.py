"""Wasserstein distance between particles and a density, exact: nothing is sampled."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import Entries, Is, Real, reads
from krause_dynamics._array import Array
from krause_dynamics.analysis.measures._measure import as_measure
from krause_dynamics.mean_field.cells import CircleCells, LineCells
from krause_dynamics.mean_field.density import Density


class _Pieces(NamedTuple):
    """A function that is linear between nodes and may jump there: values at the left and right end of every piece."""

    nodes: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def between(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Left and right values on the finer pieces between ``nodes``."""
        piece = np.clip(
            np.searchsorted(self.nodes, (nodes[:-1] + nodes[1:]) / 2, side="right") - 1, 0, len(self.left) - 1
        )
        start, end = self.nodes[piece], self.nodes[piece + 1]
        slope = (self.right[piece] - self.left[piece]) / np.where(end > start, end - start, 1.0)
        return self.left[piece] + slope * (nodes[:-1] - start), self.left[piece] + slope * (nodes[1:] - start)


@reads(x=Entries((1, 2)), density=Is(Density, "mean_field.uniform(cells)"), p=Real(1.0))
def wasserstein(x: Array, density: Density, *, p: float = 1, log_mass: Array | None = None) -> float:
    """Wasserstein distance W_p between particles and a density that is constant in every cell; both have mass 1.

    On a line ``W_p^p = int_0^1 |F^-1(s) - G^-1(s)|^p ds``, piece by piece in closed form, as both quantile functions
    are linear in pieces. On a circle, p = 1: ``min_c int |F - G - c|``, whose best c is a median of F - G.

    Args:
        x: (n,) or (n, 1) positions on a line; (n, 2) points of the plane, or (n,) angles, on a circle.
        density: On `LineCells` or `CircleCells`.
        p: Exponent, at least 1; 1 on a circle.
        log_mass: (n,) log-masses of the particles, by default equal.

    Returns:
        The distance, in units of position or in radians.

    Raises:
        ValueError: A zonal density, p below 1, or another p than 1 on a circle.

    Source: Villani, Topics in Optimal Transportation (2003), theorem 2.18; Rabin, Delon & Gousseau, J. Math. Imaging
    Vis. 41 (2011), 147 for the circle.
    """
    if not p >= 1:
        raise ValueError(f"p must be at least 1, got {p!r}")
    cells = density.cells
    cloud = as_measure("x", x, log_mass)
    if isinstance(cells, LineCells) and cloud.points.shape[1] == 1:
        return _on_line(cloud.points[:, 0], cloud.share, density, float(p))
    if not isinstance(cells, CircleCells) or cloud.points.shape[1] > 2:
        raise ValueError(
            f"x and density must lie on a line or a circle, got points of dimension {cloud.points.shape[1]} and "
            f"{type(cells).__name__}; measures.exact compares samples of anything"
        )
    if p != 1:
        raise ValueError(f"p must be 1 on a circle, got {p!r}; for others measures.wasserstein_circle of its quantiles")
    angles = cloud.points[:, 0] if cloud.points.shape[1] == 1 else np.arctan2(cloud.points[:, 1], cloud.points[:, 0])
    return _on_circle(angles, cloud.share, density)


def _on_line(x: np.ndarray, share: np.ndarray, density: Density, p: float) -> float:
    order = np.argsort(x, kind="stable")
    steps = _levels(share[order])
    points = _Pieces(steps, x[order], x[order])
    kept = density.mass > 0
    edges = density.cells.edges
    smooth = _Pieces(_levels(density.mass[kept]), edges[:-1][kept], edges[1:][kept])
    levels = np.union1d(points.nodes, smooth.nodes)
    (a, b), (c, d) = points.between(levels), smooth.between(levels)
    return math.fsum(np.diff(levels) * _mean_power(a - c, b - d, p)) ** (1 / p)


def _on_circle(angles: np.ndarray, share: np.ndarray, density: Density) -> float:
    edges = density.cells.edges
    place = edges[0] + np.mod(angles - edges[0], 2 * np.pi)
    order = np.argsort(place, kind="stable")
    nodes = np.concatenate([edges[:1], place[order], edges[-1:]])
    held = np.concatenate([[0.0], _levels(share[order])[1:]])
    points = _Pieces(nodes, held, held)
    levels = _levels(density.mass)
    smooth = _Pieces(edges, levels[:-1], levels[1:])
    where = np.union1d(nodes, edges)
    (a, b), (c, d) = points.between(where), smooth.between(where)
    width, left, right = np.diff(where), a - c, b - d
    middle = _median(left, right, width)
    return math.fsum(width * _mean_power(left - middle, right - middle, 1.0))


def _levels(mass: np.ndarray) -> np.ndarray:
    """Cumulated shares from 0 to 1."""
    total = np.concatenate([[0.0], np.cumsum(mass)])
    return total / total[-1]


def _mean_power(left: np.ndarray, right: np.ndarray, p: float) -> np.ndarray:
    """Mean of |u|^p for u linear from ``left`` to ``right``."""
    rise, middle = right - left, np.abs(left + right) / 2
    flat = np.abs(rise) <= 1e-5 * middle
    slope = np.where(flat, 1.0, rise)
    steep = (right * np.abs(right) ** p - left * np.abs(left) ** p) / ((p + 1) * np.where(slope == 0, 1.0, slope))
    # Two terms of the series where the quotient would cancel; the next is of relative size 1e-20.
    even = middle**p * (1 + p * (p - 1) / 24 * (rise / np.where(middle > 0, middle, 1.0)) ** 2)
    return np.where(flat, even, steep)


def _median(left: np.ndarray, right: np.ndarray, width: np.ndarray) -> float:
    """A value that pieces lie below for half of the length."""
    low, high = np.minimum(left, right), np.maximum(left, right)

    def below(value: float) -> float:
        rise = np.where(high > low, high - low, 1.0)
        share = np.where(high > low, np.clip((value - low) / rise, 0.0, 1.0), (value >= low).astype(float))
        return float(share @ width)

    first, last, half = float(low.min()), float(high.max()), float(width.sum()) / 2
    for _ in range(60):  # halvings: to rounding
        middle = (first + last) / 2
        first, last = (first, middle) if below(middle) >= half else (middle, last)
    return (first + last) / 2
