"""Where particles live: projection to the tangent space, retraction, sampling, distance, and how far sources reach."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from array_api_compat import device

from krause_dynamics._array import Array, as_generator, namespace, to_numpy
from krause_dynamics._value import Value, check_number


class Space(Value, ABC):
    """A subset of R^d with its geometry; all methods take (..., n, d).

    Attributes:
        relative: The usual drift there: towards the mean (A - x) in flat spaces, along it (A, projected) on spheres.
    """

    relative: ClassVar[bool] = True

    def project(self, x: Array, v: Array) -> Array:
        """The part of ``v`` tangent at ``x``."""
        return v

    def retract(self, x: Array) -> Array:
        """The nearest point of the space."""
        return x

    def check(self, x: Array) -> None:
        """Raise ValueError where ``x`` does not lie in the space."""

    @abstractmethod
    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """``n`` points of dimension ``d`` drawn by numpy in float64, so that one seed serves every array library."""

    def distance(self, x: Array, y: Array) -> Array:
        """Geodesic distance of paired points (..., d), (..., d) -> (...)."""
        xp = namespace(x=x, y=y)
        return xp.sqrt(xp.sum((x - y) ** 2, axis=-1))

    def shape(self) -> Literal["flat", "sphere"] | None:
        """How a form may move points by itself: freely, kept at length 1, or (``None``) not at all."""
        return None

    def ghosts(self, x: Array, reach: float) -> tuple[Array, np.ndarray] | None:
        """Sources within ``reach`` as seen through the border: positions (..., m, d) and the owner (m,) of each."""
        return None


@dataclass(frozen=True, eq=False)
class Euclidean(Space):
    """R^d."""

    def shape(self) -> Literal["flat", "sphere"] | None:
        return "flat" if type(self) is Euclidean else None  # a subclass may retract otherwise

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Standard normal points (n, d)."""
        return as_generator(rng).standard_normal((n, d))


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
        """``x / |x|``."""
        return x / (x * x).sum(axis=-1, keepdims=True) ** 0.5

    def check(self, x: Array) -> None:
        xp = namespace(x=x)
        off = float(xp.max(xp.abs(xp.sum(x * x, axis=-1) - 1)))
        if not off < 1e-3:  # float32 inputs normalised by others are off by 1e-6; anything larger is no unit vector
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
        """Unit vectors (..., n, 2) -> angles in (-pi, pi]."""
        return namespace(x=x).atan2(x[..., 1], x[..., 0])

    def sample(self, n: int, d: int = 2, rng: int | np.random.Generator = 0) -> np.ndarray:
        """Uniform points (n, 2).

        Raises:
            ValueError: d is not 2.
        """
        if d != 2:
            raise ValueError(f"d must be 2 on the circle, got {d}; kd.Sphere() has any dimension")
        return super().sample(n, d, rng)


@dataclass(frozen=True, eq=False)
class Torus(Space):
    """R^d with every coordinate modulo ``length``; positions are kept in [0, length).

    Attributes:
        length: Period, positive; unit: position.
    """

    length: float

    def __post_init__(self) -> None:
        check_number("length", self.length, positive=True)

    def retract(self, x: Array) -> Array:
        wrapped = x % self.length
        # A tiny negative number rounds up to the period itself.
        return namespace(x=x).where(wrapped >= self.length, wrapped - self.length, wrapped)

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Uniform points (n, d)."""
        return as_generator(rng).uniform(0.0, self.length, (n, d))

    def distance(self, x: Array, y: Array) -> Array:
        xp = namespace(x=x, y=y)
        gap = xp.abs(x - y) % self.length
        gap = xp.where(gap > self.length / 2, self.length - gap, gap)
        return xp.sqrt(xp.sum(gap * gap, axis=-1))

    def ghosts(self, x: Array, reach: float) -> tuple[Array, np.ndarray]:
        """Periodic images: whole copies shifted by up to ceil(reach / length) periods in each coordinate."""
        if not np.isfinite(reach):
            raise ValueError("a rule of unbounded reach has no periodic form; add Within(radius) or use kd.Circle()")
        copies = int(np.ceil(reach / self.length))
        images = [partial(_shifted, shift=k * self.length) for k in (0, *_both_signs(copies))]
        return _ghosts(x, images, -reach, self.length + reach)


@dataclass(frozen=True, eq=False)
class Interval(Space):
    """The box [lower, upper]^d with reflecting walls.

    Attributes:
        lower: Left end; unit: position.
        upper: Right end, larger.
        mirror: Whether particles also hear the mirror images behind the walls (the even extension of the measure).
            By default they do not: then edges attract, as in Hegselmann-Krause on an interval.
    """

    lower: float = 0.0
    upper: float = 1.0
    mirror: bool = False

    def __post_init__(self) -> None:
        check_number("lower", self.lower, positive=False)
        check_number("upper", self.upper, positive=False)
        if not self.lower < self.upper:
            raise ValueError(f"lower must be less than upper, got {self.lower!r} and {self.upper!r}")

    def retract(self, x: Array) -> Array:
        """Reflection at the walls (noise may step over them)."""
        xp, width = namespace(x=x), self.upper - self.lower
        folded = (x - self.lower) % (2 * width)
        return self.lower + xp.where(folded > width, 2 * width - folded, folded)

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Uniform points (n, d)."""
        return as_generator(rng).uniform(self.lower, self.upper, (n, d))

    def ghosts(self, x: Array, reach: float) -> tuple[Array, np.ndarray] | None:
        """Mirror images within reach of the walls, where ``mirror`` asks for them.

        Raises:
            ValueError: The reach exceeds the width, so that one reflection is not enough.
        """
        if not self.mirror:
            return None
        if not reach <= self.upper - self.lower:
            raise ValueError(f"mirror images need a reach of at most the width, got {reach}; add Within(radius)")
        images = [lambda y: y, lambda y: 2 * self.lower - y, lambda y: 2 * self.upper - y]
        return _ghosts(x, images, self.lower - reach, self.upper + reach)


def _shifted(x: Array, shift: float) -> Array:
    return x + shift


def _both_signs(copies: int) -> list[int]:
    return [sign * k for k in range(1, copies + 1) for sign in (1, -1)]


def _ghosts(
    x: Array, images: Sequence[Callable[[Array], Array]], lower: float, upper: float
) -> tuple[Array, np.ndarray]:
    """All combinations of per-coordinate images that some run of the batch sees within [lower, upper]."""
    xp, n = namespace(x=x), x.shape[-2]
    positions, owners = [], []
    for combination in itertools.product(images, repeat=x.shape[-1]):
        copy = xp.stack([image(x[..., axis]) for axis, image in enumerate(combination)], axis=-1)
        inside = to_numpy(xp.all((copy >= lower) & (copy <= upper), axis=-1)).reshape(-1, n).any(axis=0)
        keep = np.flatnonzero(inside)
        if keep.size:
            positions.append(xp.take(copy, xp.asarray(keep, device=device(x)), axis=-2))
            owners.append(keep)
    return xp.concat(positions, axis=-2), np.concatenate(owners)
