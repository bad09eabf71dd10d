"""Where a density lives: rows of cells on a line, a circle, or the latitudes of a sphere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from krause_dynamics._arguments import COUNT, LARGEST, Real, Whole
from krause_dynamics._value import Value
from krause_dynamics.spaces import Circle, Euclidean, Interval, Space, Sphere, Torus

SIZE = Whole(1, LARGEST)


class Cells(Value, ABC):
    """A row of cells along one coordinate: position on a line, angle on a circle, polar angle on a sphere.

    Attributes:
        count: Number of cells.
    """

    count: int

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """First and last edge."""

    @cached_property
    def edges(self) -> np.ndarray:
        """Edges of the cells, (count + 1,)."""
        return np.linspace(*self.bounds, self.count + 1)

    @property
    def width(self) -> float:
        """Width of every cell in the coordinate."""
        return (self.bounds[1] - self.bounds[0]) / self.count

    @cached_property
    def centres(self) -> np.ndarray:
        """Barycentre of every cell, (count,)."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @cached_property
    def volumes(self) -> np.ndarray:
        """Volume of every cell, (count,); a density is mass per volume."""
        return np.full(self.count, self.width)

    @cached_property
    def areas(self) -> np.ndarray:
        """Area of every edge, (count + 1,): volume = area times length."""
        return np.ones(self.count + 1)

    @abstractmethod
    def weight(self, coordinate: np.ndarray) -> np.ndarray:
        """Volume per unit of the coordinate."""

    @abstractmethod
    def points(self, coordinate: np.ndarray) -> np.ndarray:
        """Positions (n, d) of coordinates (n,)."""

    @abstractmethod
    def coordinate(self, points: np.ndarray) -> np.ndarray:
        """Coordinates (n,) of positions (n, d)."""

    @abstractmethod
    def speed(self, coordinate: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """The part of a velocity (n, d) along the coordinate, (n,)."""

    @abstractmethod
    def check_space(self, space: Space) -> None:
        """Raise ValueError where these cells do not cover ``space``."""

    def is_periodic(self, space: Space) -> bool:
        """Whether the last cell touches the first."""
        return isinstance(space, Torus | Circle)


@dataclass(frozen=True, eq=False)
class LineCells(Cells):
    """Cells of [lower, upper]: all of an `Interval` or a `Torus` (then lower = 0), or a box in the Euclidean line.

    A box must be wide enough to hold the density for the whole run; the solver stops where mass reaches its edge.

    Attributes:
        count: Number of cells.
        lower: Left end.
        upper: Right end.
    """

    count: int
    lower: float
    upper: float

    def __post_init__(self) -> None:
        SIZE.read("count", self.count)
        for name in ("lower", "upper"):
            Real().read(name, getattr(self, name))
        if not self.lower < self.upper:
            raise ValueError(f"lower must be less than upper, got {self.lower!r} and {self.upper!r}")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.lower, self.upper

    def weight(self, coordinate: np.ndarray) -> np.ndarray:
        return np.ones_like(coordinate)

    def points(self, coordinate: np.ndarray) -> np.ndarray:
        return coordinate[:, None]

    def coordinate(self, points: np.ndarray) -> np.ndarray:
        return points[:, 0]

    def speed(self, coordinate: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return velocity[:, 0]

    def check_space(self, space: Space) -> None:
        if isinstance(space, Euclidean):
            return
        covered = {Interval: lambda s: (s.lower, s.upper), Torus: lambda s: (0.0, float(np.max(s.length)))}.get(
            type(space)
        )
        if covered is None:
            raise ValueError(
                f"a density on a line needs Euclidean, Interval or Torus, got {space!r}; "
                "take CircleCells for kd.Circle() and LatitudeCells for kd.Sphere()"
            )
        space.check_dimension(1)
        if not np.allclose(covered(space), self.bounds, rtol=1e-12, atol=0.0):
            raise ValueError(f"the cells must cover {space!r}, they cover [{self.lower}, {self.upper}]")


@dataclass(frozen=True, eq=False)
class CircleCells(Cells):
    """Cells of the unit circle by angle, from 0 to 2 pi; densities are per radian.

    Attributes:
        count: Number of cells.
    """

    count: int

    def __post_init__(self) -> None:
        SIZE.read("count", self.count)

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 2 * np.pi

    def weight(self, coordinate: np.ndarray) -> np.ndarray:
        return np.ones_like(coordinate)

    def points(self, coordinate: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(coordinate), np.sin(coordinate)], axis=-1)

    def coordinate(self, points: np.ndarray) -> np.ndarray:
        return np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)

    def speed(self, coordinate: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return velocity[:, 1] * np.cos(coordinate) - velocity[:, 0] * np.sin(coordinate)

    def check_space(self, space: Space) -> None:
        if not isinstance(space, Circle):
            raise ValueError(f"a density on the circle needs kd.Circle(), got {space!r}")


@dataclass(frozen=True, eq=False)
class LatitudeCells(Cells):
    """Bands of the unit sphere S^{d-1} by the angle to its first axis, for densities that depend on it alone (zonal).

    Volumes are those of the uniform probability, so the uniform law has density 1. One coordinate serves every d >= 2.

    Attributes:
        count: Number of bands, from angle 0 to pi.
        dimension: d, of the surrounding space.
    """

    count: int
    dimension: int

    def __post_init__(self) -> None:
        SIZE.read("count", self.count)
        COUNT.read("dimension", self.dimension)
        if self.dimension < 2:
            raise ValueError(f"dimension must be at least 2 (the circle), got {self.dimension}")

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.pi

    @cached_property
    def volumes(self) -> np.ndarray:
        return self._integrate(np.ones_like)

    @cached_property
    def centres(self) -> np.ndarray:
        return self._integrate(lambda angle: angle) / self.volumes

    @cached_property
    def areas(self) -> np.ndarray:
        # sin(pi) is 1e-16, and the poles have no area (for d = 2 nothing crosses them by symmetry).
        inner = self.weight(self.edges[1:-1])
        return np.concatenate([[0.0], inner, [0.0]])

    @cached_property
    def _total(self) -> float:
        """Integral of sin^{d-2} over [0, pi]."""
        from scipy.special import beta

        return float(beta((self.dimension - 1) / 2, 0.5))

    def weight(self, coordinate: np.ndarray) -> np.ndarray:
        return np.sin(coordinate) ** (self.dimension - 2) / self._total

    def _integrate(self, function: object) -> np.ndarray:
        nodes, weights = np.polynomial.legendre.leggauss(8)  # exact to rounding on cells of a smooth weight
        angle = (self.edges[:-1] + self.edges[1:])[:, None] / 2 + self.width / 2 * nodes
        return (function(angle) * self.weight(angle)) @ weights * (self.width / 2)  # type: ignore[operator]

    def points(self, coordinate: np.ndarray) -> np.ndarray:
        """A point of each latitude, on one meridian: (cos, sin, 0, ...)."""
        meridian = np.stack([np.cos(coordinate), np.sin(coordinate)], axis=-1)
        return np.concatenate([meridian, np.zeros((len(coordinate), self.dimension - 2))], axis=-1)

    def coordinate(self, points: np.ndarray) -> np.ndarray:
        return np.arctan2(np.linalg.norm(points[:, 1:], axis=-1), points[:, 0])

    def speed(self, coordinate: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return velocity[:, 1] * np.cos(coordinate) - velocity[:, 0] * np.sin(coordinate)

    def check_space(self, space: Space) -> None:
        if not isinstance(space, Sphere) or isinstance(space, Circle):
            raise ValueError(f"a zonal density needs kd.Sphere(), got {space!r}")
