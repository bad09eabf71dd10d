"""Where particles live: projection to the tangent space, retraction, sampling, distances, images and the border.

Whatever looks at positions asks the space: stop rules, events, graphs, matrices, observables, clusters, densities.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from array_api_compat import device

from krause_dynamics._arguments import PARAMETER, POSITIVE_PARAMETER, Is, Maybe
from krause_dynamics._array import Array, as_generator, like, namespace, to_numpy
from krause_dynamics._value import Value
from krause_dynamics.interaction import Interaction, Within

IMAGES, COORDINATES = 1e5, 1e8  # most images of a particle, a second a call; most coordinates of all, 800 MB


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

    def check_dimension(self, d: int) -> None:
        """Raise ValueError where the space has no points of ``d`` coordinates."""

    def check_radius(self, radius: Any) -> None:
        """Raise ValueError where balls of such radii would meet one source twice."""

    @abstractmethod
    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """``n`` points of dimension ``d`` drawn by numpy in float64, so that one seed serves every array library."""

    @property
    def period(self) -> float | tuple[float, ...] | None:
        """Length after which coordinates repeat, one for all or one each; ``None`` where they do not."""
        return None

    def wrap(self, x: Array) -> Array:
        """The same points by the coordinates that the space uses: where they repeat, those of the first period."""
        return x

    def image(self, x: Array, near: Array) -> Array:
        """The image of ``x`` nearest to the point ``near``, both (..., d); without a border ``x`` itself."""
        return x

    def difference(self, x: Array, y: Array) -> Array:
        """The way from ``y`` to ``x``, (..., d): ``x - y`` of the nearest images."""
        return x - y

    def distance(self, x: Array, y: Array) -> Array:
        """Geodesic distance of paired points (..., d), (..., d) -> (...)."""
        xp = namespace(x=x, y=y)
        return xp.sqrt(xp.sum(self.difference(x, y) ** 2, axis=-1))

    def extent(self, x: Array) -> Array:
        """Sides of the smallest box around each cloud, (..., n, d) -> (..., d)."""
        xp = namespace(x=x)
        return xp.max(x, axis=-2) - xp.min(x, axis=-2)

    def shape(self) -> Literal["flat", "sphere"] | None:
        """How a form may move points by itself: freely, kept at length 1, or (``None``) not at all."""
        return None

    def images(self, x: Array, rule: Interaction) -> tuple[Array, np.ndarray] | None:
        """The sources that a rule hears, through the border too, as `ghosts` gives them; ``None`` without a border.

        Raises:
            ValueError: A ball in which a source would be met twice, a rule without a reach.
        """
        for ball in rule.find(Within):
            self.check_radius(ball.radius)
        return self.ghosts(x, rule.reach)

    def ghosts(self, x: Array, reach: Any) -> tuple[Array, np.ndarray] | None:
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


@dataclass(frozen=True, eq=False)
class Torus(Space):
    """R^d with every coordinate modulo ``length``; positions are kept in [0, length).

    Shifting a particle by whole periods changes nothing. A ball (`Within`) may have at most half the length as its
    radius, so that a source is heard on one side only; scores without a ball are summed over all images (heat kernels).

    Attributes:
        length: Period, positive; unit: position. One number, or one for each coordinate: ``Torus((2.0, 1.0))``.
    """

    length: float | tuple[float, ...]

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("length", self.length)
        sides = to_numpy(self.length)
        if sides.ndim > 1 or not np.isfinite(sides).all():
            raise ValueError(f"length must be one finite number, or one for each coordinate, got {self.length!r}")
        if sides.ndim:
            object.__setattr__(self, "length", tuple(float(side) for side in sides))

    @property
    def period(self) -> float | tuple[float, ...]:
        return self.length

    def check_dimension(self, d: int) -> None:
        if isinstance(self.length, tuple) and len(self.length) != d:
            raise ValueError(
                f"length has {len(self.length)} sides, but points have {d} coordinates; give one side each"
            )

    def check_radius(self, radius: Any) -> None:
        largest, shortest = float(np.max(to_numpy(radius))), float(np.min(self.length))
        if largest > shortest / 2:
            raise ValueError(
                f"radius must be at most half the length on a torus, {shortest / 2:g}, got {largest:g}: a source would "
                "be heard on both sides; take a longer torus, or a score without a ball (kd.krause(sigma))"
            )

    def _sides(self, x: Array) -> Any:
        """The period as something that broadcasts against ``x``."""
        if not isinstance(self.length, tuple):
            return self.length
        self.check_dimension(x.shape[-1])  # one coordinate would broadcast to as many as there are sides
        return like(self.length, x)

    def retract(self, x: Array) -> Array:
        sides = self._sides(x)
        wrapped = x % sides
        # A tiny negative number rounds up to the period itself.
        return namespace(x=x).where(wrapped >= sides, wrapped - sides, wrapped)

    def wrap(self, x: Array) -> Array:
        return self.retract(x)

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Uniform points (n, d)."""
        self.check_dimension(d)
        return as_generator(rng).uniform(0.0, self.length, (n, d))

    def image(self, x: Array, near: Array) -> Array:
        sides = self._sides(x)
        return x - sides * namespace(x=x, near=near).round((x - near) / sides)

    def difference(self, x: Array, y: Array) -> Array:
        sides, gap = self._sides(x), x - y
        return gap - sides * namespace(x=x, y=y).round(gap / sides)

    def extent(self, x: Array) -> Array:
        """What the largest gap around each circle leaves, (..., n, d) -> (..., d)."""
        xp = namespace(x=x)
        around = xp.sort(self.retract(x), axis=-2)
        across = around[..., :1, :] + self._sides(x) - around[..., -1:, :]
        gaps = xp.concat([around[..., 1:, :] - around[..., :-1, :], across], axis=-2)
        return self._sides(x) - xp.max(gaps, axis=-2)

    def ghosts(self, x: Array, reach: Any) -> tuple[Array, np.ndarray]:
        """Periodic images: whole copies shifted by up to ceil(reach / length) periods in each coordinate.

        Raises:
            ValueError: A rule without a reach, or more images than memory should hold.
        """
        if not np.isfinite(reach):
            raise ValueError("a rule of unbounded reach has no periodic form; add Within(radius) or use kd.Circle()")
        sides = np.broadcast_to(np.asarray(self.length, float), (x.shape[-1],))
        copies = np.ceil(reach / sides)
        count = float(np.prod(2 * copies + 1))
        if count > IMAGES or count * np.prod(x.shape, dtype=float) > COORDINATES:
            raise ValueError(
                f"length {self.length} gives each of {x.shape[-2]} particles {count:.3g} images within the reach of "
                f"{reach:.3g}, more than {IMAGES:.0e} each or {COORDINATES:.0e} coordinates in all; take a shorter "
                "reach, such as kd.Within(radius), or a longer torus"
            )
        shifts = [
            [partial(_shifted, shift=k * float(side)) for k in (0, *_both_signs(int(most)))]
            for side, most in zip(sides, copies, strict=True)
        ]
        return _ghosts(x, shifts, np.full(len(sides), -reach), sides + reach)


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
        PARAMETER.read("lower", self.lower)
        PARAMETER.read("upper", self.upper)
        if not self.lower < self.upper:
            raise ValueError(f"lower must be less than upper, got {self.lower!r} and {self.upper!r}")

    def retract(self, x: Array) -> Array:
        """Reflection at the walls (noise may step over them)."""
        xp, width = namespace(x=x), self.upper - self.lower
        folded = (x - self.lower) % (2 * width)
        return self.lower + xp.where(folded > width, 2 * width - folded, folded)

    def check(self, x: Array) -> None:
        points = to_numpy(x)
        outside = points[~((points >= self.lower) & (points <= self.upper))]
        if outside.size:
            raise ValueError(
                f"x0 must lie in the interval [{self.lower:g}, {self.upper:g}], got {float(outside.flat[0]):g}; "
                "scale the positions, or use space.retract(x0), which reflects them"
            )

    def sample(self, n: int, d: int, rng: int | np.random.Generator) -> np.ndarray:
        """Uniform points (n, d)."""
        return as_generator(rng).uniform(self.lower, self.upper, (n, d))

    def ghosts(self, x: Array, reach: Any) -> tuple[Array, np.ndarray] | None:
        """Mirror images within reach of the walls, where ``mirror`` asks for them.

        Raises:
            ValueError: The reach exceeds the width, so that one reflection is not enough.
        """
        if not self.mirror:
            return None
        if not reach <= self.upper - self.lower:
            raise ValueError(f"mirror images need a reach of at most the width, got {reach}; add Within(radius)")
        images = [lambda y: y, lambda y: 2 * self.lower - y, lambda y: 2 * self.upper - y]
        ends = np.full((2, x.shape[-1]), [[self.lower - reach], [self.upper + reach]])
        return _ghosts(x, [images] * x.shape[-1], *ends)


def _shifted(x: Array, shift: float) -> Array:
    return x + shift


def _both_signs(copies: int) -> list[int]:
    return [sign * k for k in range(1, copies + 1) for sign in (1, -1)]


def _ghosts(
    x: Array, images: Sequence[Sequence[Callable[[Array], Array]]], lower: np.ndarray, upper: np.ndarray
) -> tuple[Array, np.ndarray]:
    """All combinations of each coordinate's images that some run of the batch sees within [lower, upper], (d,) each."""
    xp, n = namespace(x=x), x.shape[-2]
    low, high = like(lower, x), like(upper, x)
    positions, owners = [], []
    for combination in itertools.product(*images):
        copy = xp.stack([image(x[..., axis]) for axis, image in enumerate(combination)], axis=-1)
        inside = to_numpy(xp.all((copy >= low) & (copy <= high), axis=-1)).reshape(-1, n).any(axis=0)
        keep = np.flatnonzero(inside)
        if keep.size:
            positions.append(xp.take(copy, xp.asarray(keep, device=device(x)), axis=-2))
            owners.append(keep)
    return xp.concat(positions, axis=-2), np.concatenate(owners)


SPACE = Maybe(Is(Space, "kd.Torus(1.0)"))  # how every function outside reads its argument ``space``
