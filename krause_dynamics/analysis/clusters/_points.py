"""Points, masses and radii of a cluster question, checked once and brought to numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from krause_dynamics._array import Array, as_floating, is_torch, like
from krause_dynamics.analysis.observables._state import units, weighted

Metric = Literal["euclidean", "chord", "cosine"]
METRICS = ("euclidean", "chord", "cosine")
FEW = 8  # dimensions up to which loops over all points, axis by axis, beat loops over the axes, point by point

SMALL = 1 << 20  # differences of coordinates up to which all pairs, one by one, beat tiles of inner products (measured)


@dataclass(frozen=True)
class Cloud:
    """Present points of one state.

    Attributes:
        points: (m, d), on the host, in the metric's own coordinates (unit vectors for chord and cosine).
        given: (m, d), the same points as given.
        index: (m,), their places among the n given points.
        masses: (m,), shares of the total mass.
        n: Number of given points, absent ones counted.
        metric: Name of the distance.
        period: (d,) lengths of the torus, or ``None``; `points` are then in [0, period).
    """

    points: np.ndarray
    given: np.ndarray
    index: np.ndarray
    masses: np.ndarray
    n: int
    metric: Metric
    period: np.ndarray | None = None

    @classmethod
    def of(cls, points: Any, metric: Metric, log_mass: Any, period: Any = None) -> Cloud:
        """Check one state (n, d), or (n,) for points on a line, and leave absent points out.

        Raises:
            TypeError: Mixed libraries, dtypes or devices, or no floating dtype.
            ValueError: Unknown metric, a batch of states, NaN, no point present, or a period that does not fit.
        """
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
        points = _points(points)
        state = weighted(points, log_mass if log_mass is None or is_torch(log_mass) else like(log_mass, points))
        if points.ndim != 2:
            raise ValueError(
                f"points must be one state of shape (n, d), got {tuple(points.shape)}; "
                "use clusters.over_time(positions, radii) for leading axes"
            )
        sides = None if period is None else _sides(period, metric, points.shape[1])
        given, share, present = state.on_host()
        index = np.flatnonzero(present)
        given = np.ascontiguousarray(given if len(index) == len(given) else given[index])
        masses = share[index].astype(np.float64)
        own = given if metric == "euclidean" else np.ascontiguousarray(units(np, given))
        return cls(
            points=own if sides is None else wrapped(own.astype(np.float64), sides),
            given=given,
            index=index,
            masses=masses / masses.sum(),
            n=len(present),
            metric=metric,
            period=sides,
        )

    def length(self, squared: np.ndarray) -> np.ndarray:
        """Distances of the metric from squared Euclidean ones of `points` (cosine: ``1 - cos = |u - v|^2 / 2``)."""
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)

    def limit(self, radius: float) -> float:
        """The largest double whose `length` does not exceed the radius, so that both sides round alike."""
        if radius < 0:
            return -1.0
        if self.metric == "cosine" or not math.isfinite(radius):
            return 2.0 * radius
        squared = radius * radius
        while squared > 0 and math.sqrt(squared) > radius:
            squared = math.nextafter(squared, 0.0)
        while math.sqrt(math.nextafter(squared, math.inf)) <= radius:
            squared = math.nextafter(squared, math.inf)
        return squared


def is_small(points: np.ndarray) -> bool:
    """Whether few dimensions, or few points, make one tree by direct differences the fastest way, whatever the radius.

    Asked by all forms alike, since a sum in another order may round to the other side of a radius.
    """
    return points.shape[1] <= FEW or points.size * len(points) <= SMALL


def _points(points: Any) -> Array:
    """What numpy or pandas hold as a floating array, (n,) as (n, 1).

    Raises:
        TypeError: A run, or no real numbers.
    """
    if hasattr(points, "positions"):
        raise TypeError(
            "points must be one state, got a run; pass run.final, or the run to clusters.over_time or clusters.labels"
        )
    points = as_floating("points", points)
    return points[:, None] if points.ndim == 1 else points


def wrapped(x: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Coordinates in [0, period); what a tiny negative number rounds up to the period itself becomes 0."""
    x = x % period
    return np.where(x >= period, 0.0, x)


def _sides(period: Any, metric: str, d: int) -> np.ndarray:
    """The period of every coordinate, (d,)."""
    sides = np.asarray(period, dtype=np.float64)
    if sides.shape not in ((), (d,)) or not ((sides > 0) & np.isfinite(sides)).all():
        raise ValueError(
            f"period must be positive and finite, one number or one for each of {d} coordinates, got {period}"
        )
    if metric != "euclidean" or d > FEW:
        raise ValueError(f"period needs the Euclidean metric and at most {FEW} dimensions, got {metric!r} and {d}")
    return np.full(d, sides)


def all_but(cloud: Cloud, point: int) -> Cloud:
    """The other points, by place among the present ones."""
    points, given, index, masses = (
        x[1:] if point == 0 else np.delete(x, point, axis=0)  # of an attention sink: no copy
        for x in (cloud.points, cloud.given, cloud.index, cloud.masses)
    )
    return replace(cloud, points=points, given=given, index=index, masses=masses / masses.sum())


def closed_radius(radius: float, closed: bool) -> float:
    """The radius of the closed ball that holds the same distances: an open ball ends one double earlier."""
    return radius if closed else math.nextafter(radius, -math.inf)


def check_radius(name: str, radius: Any) -> float:
    """A radius as a float.

    Raises:
        ValueError: Negative or NaN.
        TypeError: Not a number.
    """
    try:
        value = float(radius)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {radius!r}") from None
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value
