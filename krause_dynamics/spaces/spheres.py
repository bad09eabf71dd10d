"""The unit sphere and the circle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from krause_dynamics._array import Array, as_generator, namespace
from krause_dynamics.spaces.base import Space


@dataclass(frozen=True, eq=False)
class Sphere(Space):
    """The unit sphere S^{d-1} of R^d: where layer normalisation puts tokens (2312.10794 section 2)."""

    relative: ClassVar[bool] = False

    def shape(self) -> Literal["flat", "sphere"] | None:
        return "sphere" if type(self) in (Sphere, Circle) else None  # a subclass may retract otherwise

    def project(self, x: Array, v: Array) -> Array:
        """``v - <x, v> x``."""
        return v - (x * v).sum(axis=-1, keepdims=True) * x

    def retract(self, x: Array) -> Array:
        """``x / |x|``; NaN for a point at 0, which has no direction (a run that meets one ends as diverged)."""
        return x / (x * x).sum(axis=-1, keepdims=True) ** 0.5

    def check(self, x: Array) -> None:
        xp = namespace(x=x)
        off = float(xp.max(xp.abs(xp.sum(x * x, axis=-1) - 1)))
        # float32 inputs normalised by others are off by 1e-6; half precision cannot be nearer than its own rounding,
        # of each coordinate and of their sum. Anything larger is no unit vector.
        if not off < max(1e-3, 4 * float(xp.finfo(x.dtype).eps)):
            raise ValueError(
                f"x0 must hold unit vectors on {type(self).__name__}, |x|^2 is off by {off:.3g}; use space.retract(x0)"
            )

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Uniform points (n, d): normalised normal vectors."""
        return self.retract(as_generator(rng).standard_normal((n, d)))

    def distance(self, x: Array, y: Array) -> Array:
        """The angle, ``2 arcsin(|x - y| / 2)``, accurate also for near points."""
        xp = namespace(x=x, y=y)
        half = xp.sqrt(xp.sum((x - y) ** 2, axis=-1)) / 2
        return 2 * xp.asin(xp.where(half > 1, xp.ones_like(half), half))


@dataclass(frozen=True, eq=False)
class Circle(Sphere):
    """The unit circle S^1, points as unit vectors of R^2; angles at the border only."""

    def from_angles(self, angles: Array) -> Array:
        """Angles (..., n) in radians -> unit vectors (..., n, 2)."""
        xp = namespace(angles=angles)
        return xp.stack([xp.cos(angles), xp.sin(angles)], axis=-1)

    def to_angles(self, x: Array) -> Array:
        """Unit vectors (..., n, 2) -> angles in (-pi, pi].

        Raises:
            ValueError: Vectors that are not in the plane.
        """
        self.check_dimension(x.shape[-1])
        return namespace(x=x).atan2(x[..., 1], x[..., 0])

    def sample(self, n: int, d: int = 2, rng: int | np.random.Generator = 0) -> np.ndarray:
        """Uniform points (n, 2).

        Raises:
            ValueError: d is not 2.
        """
        self.check_dimension(d)
        return super().sample(n, d, rng)

    def check_dimension(self, d: int) -> None:
        if d != 2:
            raise ValueError(f"d must be 2 on the circle, got {d}; kd.Sphere() has any dimension")

    def check(self, x: Array) -> None:
        self.check_dimension(x.shape[-1])
        super().check(x)
