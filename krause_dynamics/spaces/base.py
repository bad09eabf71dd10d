"""What every space answers: projection, retraction, sampling, distances, images and the border."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from krause_dynamics._arguments import Is, Maybe
from krause_dynamics._array import Array, as_generator, namespace
from krause_dynamics._value import Value
from krause_dynamics.interaction import Interaction, Within


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


SPACE = Maybe(Is(Space, "kd.Torus(1.0)"))  # how every function outside reads its argument ``space``
