"""Scores s(x, y): the log-affinity of a pair. Most are quadratic, s = a<x,y> + b|x|^2 + c|y|^2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from krause_dynamics._arguments import PARAMETER, POSITIVE_PARAMETER
from krause_dynamics._array import Array, like, may_look, to_numpy
from krause_dynamics._value import Value, later
from krause_dynamics.interaction.distance import direct, products, squared_distances

NO_NORM = 0.0  # of a dot product: the length of keys does not count


class Coefficients(NamedTuple):
    """Coefficients of a quadratic score ``inner <x,y> + query |x|^2 + source |y|^2`` (numbers or parameter arrays)."""

    inner: Any
    query: Any
    source: Any

    @property
    def is_product(self) -> bool:
        """Whether the inner product is all there is: no squares are added."""
        return type(self.query) is type(self.source) is float and self.query == self.source == 0.0

    @property
    def hears_queries_alike(self) -> bool:
        """Whether the length of the query does not join the score."""
        return type(self.query) is float and self.query == 0.0

    @property
    def are_numbers(self) -> bool:
        """Whether all are plain numbers, the same for every listener, head and run."""
        return all(np.ndim(to_numpy(c)) == 0 for c in self)


class Score(Value, ABC):
    """A log-affinity. Parameters broadcast against log Z: ``(n,)`` is one per query, ``(heads, 1)`` one per head.

    A score is one class: its formula, its quadratic form, and the three answers by which forms, solvers and analyses
    judge it without asking which score it is.

    Attributes:
        of_distance: Whether it depends on the distance of a pair alone, so that moving all particles changes nothing.
        is_flat: Whether all admitted pairs count alike.
    """

    of_distance: ClassVar[bool] = False
    is_flat: ClassVar[bool] = False

    @abstractmethod
    def coefficients(self) -> Coefficients | None:
        """The quadratic form, or ``None`` where the score has none (then only forms that call the score compute it)."""

    @abstractmethod
    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        """Scores of all pairs: queries (..., n, d), sources (..., m, d) -> (..., n, m)."""

    def for_ranks(self, xp: Any, queries: Array, sources: Array) -> Array:
        """The same scores, where equal sources have equal ones to the last bit: what a rank needs."""
        return self(xp, queries, sources)

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The fields: numbers, arrays or functions."""
        return tuple([getattr(self, field.name) for field in fields(self)])  # type: ignore[arg-type]

    @property
    def length(self) -> float:
        """The shortest length over which the affinity changes, unit: position; inf where it does not or is unknown."""
        return float("inf")

    @property
    def reach(self) -> float:
        """Distance beyond which the affinity is below 4e-17 of its largest, unit: position; inf where there is none."""
        return float("inf")

    @property
    def rate(self) -> float:
        """Largest affinity exp s of two unit vectors: how fast a per-capita rule relaxes there; 1 if unknown."""
        return 1.0

    @property
    def hears_itself(self) -> bool:
        """Whether a point at distance 0 is surely heard: true of finite scores."""
        return self.coefficients() is not None


def inverse_square(x: Any) -> Any:
    """``x^-2``, infinite where it is beyond floats, as arrays have it."""
    try:
        with np.errstate(over="ignore"):
            return x**-2
    except (OverflowError, ZeroDivisionError):
        return float("inf")


def bounded(score: Score, logs: Array) -> Array:
    """Scores of pairs that hear each other; those of a user's function may be infinite, which makes every mean NaN.

    Raises:
        ValueError: Infinity or NaN.
    """
    if score.coefficients() is None and may_look(logs) and not bool((logs < float("inf")).all()):
        raise ValueError(
            f"affinities must be finite where one hears the other, got infinity from {score!r}; if it is that of the "
            "own position, leave it out with kd.Others()"
        )
    return logs


def _column(parameter: Any, reference: Array) -> Array:
    """A parameter (*batch, n) as a factor of the pairs (*batch, n, m)."""
    parameter = like(parameter, reference)
    return parameter[..., None] if parameter.ndim else parameter


@dataclass(frozen=True, eq=False)
class DotProduct(Score):
    """Softmax attention's score ``s = beta <x, y>`` (Vaswani et al. 1706.03762 with beta = 1/sqrt(d)).

    With a norm it is ``beta <x, y> - norm |y|^2``: between the dot product (0) and the Gaussian, whose means it has
    where ``beta = 1/sigma^2`` and ``norm = 1/(2 sigma^2)``; what depends on the query alone cancels.

    Attributes:
        beta: Inverse temperature, any finite number (negative repels); unit: 1 / position^2.
        norm: Coefficient of the squared length of sources, any finite number; likewise.
    """

    beta: Any = 1.0
    norm: Any = later(NO_NORM)

    def __post_init__(self) -> None:
        PARAMETER.read("beta", self.beta)
        if self.norm is not NO_NORM:
            PARAMETER.read("norm", self.norm)

    def coefficients(self) -> Coefficients:
        norm = self.norm
        return Coefficients(self.beta, 0.0, 0.0 if isinstance(norm, int | float) and norm == 0 else -norm)

    @property
    def length(self) -> float:
        largest = max(float(np.max(np.abs(to_numpy(x)))) for x in (self.beta, self.norm))
        return largest**-0.5 if largest else float("inf")

    @property
    def rate(self) -> float:
        return float(np.exp(sum(np.max(np.abs(to_numpy(x))) for x in (self.beta, self.norm))))

    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        return self._of_products(xp, queries @ xp.matrix_transpose(sources), queries, sources)

    def for_ranks(self, xp: Any, queries: Array, sources: Array) -> Array:
        return self._of_products(xp, products(queries, sources), queries, sources)

    def _of_products(self, xp: Any, inner: Array, queries: Array, sources: Array) -> Array:
        scores = _column(self.beta, queries) * inner
        if isinstance(self.norm, int | float) and self.norm == 0:
            return scores
        return scores - _column(self.norm, queries) * xp.sum(sources * sources, axis=-1)[..., None, :]


@dataclass(frozen=True, eq=False)
class Gaussian(Score):
    """Krause attention's score ``s = -|x - y|^2 / (2 sigma^2)`` (2602.11534).

    Attributes:
        sigma: Bandwidth, positive; unit: position.
    """

    sigma: Any = 1.0
    of_distance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("sigma", self.sigma)

    def coefficients(self) -> Coefficients:
        inverse = inverse_square(self.sigma)
        return Coefficients(inverse, -0.5 * inverse, -0.5 * inverse)

    @property
    def length(self) -> float:
        return float(np.min(to_numpy(self.sigma)))

    @property
    def reach(self) -> float:
        return 8.7 * float(np.max(to_numpy(self.sigma)))

    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        return squared_distances(xp, queries, sources) * self._factor(queries)

    def for_ranks(self, xp: Any, queries: Array, sources: Array) -> Array:
        return direct(queries, sources) * self._factor(queries)

    def _factor(self, queries: Array) -> Array:
        # Squared before it takes the dtype of the positions, which the bandwidth itself may exceed.
        return _column(-0.5 * inverse_square(self.sigma), queries)


@dataclass(frozen=True, eq=False)
class Flat(Score):
    """``s = 0``: all admitted count alike; with `Within` this is bounded confidence (Hegselmann & Krause 2002)."""

    of_distance: ClassVar[bool] = True
    is_flat: ClassVar[bool] = True

    def coefficients(self) -> Coefficients:
        return Coefficients(0.0, 0.0, 0.0)

    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        # Multiplying keeps the batch shape, dtype and device without naming a library.
        return xp.zeros_like(queries[..., :, None, 0] + sources[..., None, :, 0])


@dataclass(frozen=True, eq=False)
class Radial(Score):
    """A user's influence function: ``s = log phi(|x - y|)`` (Cucker-Smale 2007; Motsch & Tadmor 2011 when normalised).

    Attributes:
        phi: Maps an array of distances to non-negative affinities of the same shape and library;
            for example ``lambda r: (1 + r**2) ** -0.5``. Zero means "not heard".
    """

    phi: Callable[[Array], Array]
    of_distance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.phi):
            raise TypeError(f"phi must be a function of the distance, got {self.phi!r}")

    def coefficients(self) -> None:
        return None

    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        squared = direct(queries, sources)
        # sqrt has no gradient at 0 (every particle meets itself); a tiny shift keeps gradients finite there.
        safe = xp.where(squared > 0, squared, xp.ones_like(squared))
        distance = xp.where(squared > 0, xp.sqrt(safe), xp.zeros_like(squared))
        affinity = self.phi(distance)
        if tuple(getattr(affinity, "shape", ())) != tuple(distance.shape):
            raise ValueError(
                f"phi must return an affinity for each distance, shape {tuple(distance.shape)}, got {affinity!r:.80}; "
                "where all count alike take kd.Flat()"
            )
        if not bool(xp.all(affinity >= 0)):
            raise ValueError("phi must return non-negative affinities without NaN; check the influence function")
        positive = affinity > 0
        return xp.where(
            positive,
            xp.log(xp.where(positive, affinity, xp.ones_like(affinity))),
            xp.full_like(affinity, -float("inf")),
        )
