"""Spaces with a border: the torus, behind which everything repeats, and the interval, whose walls reflect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE_PARAMETER, Real
from krause_dynamics._array import Array, as_generator, like, namespace, to_numpy
from krause_dynamics.spaces.base import Space
from krause_dynamics.spaces.images import both_signs, ghosts, shifted

IMAGES, COORDINATES = 1e5, 1e8  # most images of a particle, a second a call; most coordinates of all, 800 MB


@dataclass(frozen=True, eq=False)
class Torus(Space):
    """R^d with every coordinate modulo ``length``; positions are kept in [0, length).

    Shifting a particle by whole periods changes nothing. A ball (`Within`) may have at most half the length as its
    radius, so that a source is heard on one side only (at exactly half the length, from both sides, which cancel);
    scores without a ball are summed over all images (heat kernels).

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
            [partial(shifted, shift=k * float(side)) for k in (0, *both_signs(int(most)))]
            for side, most in zip(sides, copies, strict=True)
        ]
        return ghosts(x, shifts, np.full(len(sides), -reach), sides + reach)


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
        for name in ("lower", "upper"):
            Real().read(name, getattr(self, name))
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
        return ghosts(x, [images] * x.shape[-1], *ends)
