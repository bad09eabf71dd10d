"""Distances in any dimension: sliced, exact and entropic."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, Entries, Real, Whole, reads
from krause_dynamics._array import Array, as_generator
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.analysis.measures._measure import Measure, two
from krause_dynamics.analysis.measures.line import line_cost, mean_power

TOGETHER = 10  # directions projected at once: 10 doubles a point, whatever their number

ITERATIONS, CLOSE = 20_000, 1e-10  # of Sinkhorn, some six seconds; distance of the marginals at which it ends
PART = 500  # iterations between two looks; a multiple of the ten after which POT compares the marginals


@reads(x=Entries((1, 2)), y=Entries((1, 2)), p=Real(1.0), directions=Whole(most=10**7))
def sliced(
    x: Array,
    y: Array,
    *,
    p: float = 2,
    directions: int = 50,
    rng: int | np.random.Generator = 0,
    x_log_mass: Array | None = None,
    y_log_mass: Array | None = None,
) -> float:
    """Sliced Wasserstein distance ``(mean_u W_p^p(<u, x>, <u, y>))^(1/p)`` over random directions u of the sphere.

    Args:
        x: (n, d) points.
        y: (m, d) points.
        p: Exponent, at least 1.
        directions: How many; the error of the mean falls as its inverse square root (50: some per cent).
        rng: Seed or generator of the directions; one seed gives one distance function, so that series are comparable.
        x_log_mass: (n,) log-masses, by default equal.
        y_log_mass: (m,), likewise.

    Returns:
        The distance; for two points at distance r with p = 2 it is about r / sqrt(d).

    Raises:
        ValueError: No direction, p < 1, NaN, or no mass.

    Source: Bonneel et al., J. Math. Imaging Vis. 51 (2015), 22, definition 3.
    """
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    first, second = two(x, y, x_log_mass, y_log_mass, p)
    unit = as_generator(rng).standard_normal((directions, first.points.shape[1]))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    total = sum(
        _projected_cost(first, second, unit[start : start + TOGETHER], p) for start in range(0, directions, TOGETHER)
    )
    return (total / directions) ** (1 / p)


def _projected_cost(first: Measure, second: Measure, unit: np.ndarray, p: float) -> float:
    """Sum of ``W_p^p`` over a few directions (k, d), from one matrix product each."""
    a, b = unit @ first.points.T, unit @ second.points.T
    if first.mass is not None or second.mass is not None or a.shape != b.shape:
        return sum(line_cost(x, first.mass, y, second.mass, p) for x, y in zip(a, b, strict=True))
    a.sort(axis=1)
    b.sort(axis=1)
    a -= b
    return mean_power(a, p) * len(unit)


@reads(x=Entries((1, 2)), y=Entries((1, 2)), p=Real(1.0))
def exact(
    x: Array, y: Array, *, p: float = 2, x_log_mass: Array | None = None, y_log_mass: Array | None = None
) -> float:
    """Wasserstein distance in any dimension by network simplex (POT): O(n m) memory, for some thousand points.

    Args:
        x: (n, d) points.
        y: (m, d) points.
        p: Exponent of the Euclidean distance, at least 1.
        x_log_mass: (n,) log-masses, by default equal.
        y_log_mass: (m,), likewise.

    Returns:
        ``W_p``.

    Raises:
        ModuleNotFoundError: POT is not installed (extra ``transport``).
        ValueError: p < 1, NaN, or no mass.
    """
    first, second = two(x, y, x_log_mass, y_log_mass, p)
    cost = _pot().emd2(first.share, second.share, _costs(first, second, p), numItermax=10_000_000)
    return float(max(cost, 0.0)) ** (1 / p)


@reads(x=Entries((1, 2)), y=Entries((1, 2)), epsilon=POSITIVE, p=Real(1.0))
def entropic(
    x: Array,
    y: Array,
    *,
    epsilon: float,
    p: float = 2,
    x_log_mass: Array | None = None,
    y_log_mass: Array | None = None,
    progress: bool | Progress = False,
) -> float:
    """Transport cost of the entropic plan, ``(sum_ij P_ij |x_i - y_j|^p)^(1/p)`` (POT, Sinkhorn in the log domain).

    P minimises ``<P, C> + epsilon sum P ln P``. The value lies above `exact` and tends to it as epsilon -> 0; for a
    large epsilon P is the product measure. Not a distance: it does not vanish at x = y.

    Args:
        x: (n, d) points.
        y: (m, d) points.
        epsilon: Regularisation in units of position^p, positive; small ones need many iterations.
        p: Exponent of the Euclidean distance, at least 1.
        x_log_mass: (n,) log-masses, by default equal.
        y_log_mass: (m,), likewise.
        progress: ``True`` draws a bar towards the bound of 20 000 iterations; or a function ``progress(done, total)``.

    Raises:
        ModuleNotFoundError: POT is not installed (extra ``transport``).
        ValueError: epsilon not positive, p < 1, NaN, or no mass.
        RuntimeError: The iterations did not converge within their bound.

    Source: Cuturi, NIPS 2013.
    """
    first, second = two(x, y, x_log_mass, y_log_mass, p)
    costs = _costs(first, second, p)
    with np.errstate(over="ignore"), drawn(progress, "entropic") as bar:  # iterations that run away: reported below
        plan, error = _sinkhorn(first.share, second.share, costs, epsilon, bar)
    if not error <= CLOSE:
        raise RuntimeError(
            f"epsilon = {epsilon:g} is too small for {ITERATIONS} iterations at costs up to {costs.max():.3g}: "
            f"marginals are off by {error:.2g}; take a larger epsilon, or measures.exact for 0"
        )
    return float(np.sum(plan * costs)) ** (1 / p)


def _sinkhorn(
    p: np.ndarray, q: np.ndarray, costs: np.ndarray, epsilon: float, told: Progress
) -> tuple[np.ndarray, float]:
    """The plan and the distance of its marginals, some iterations at a time: each part starts where one ended."""
    potentials = None
    for done in range(0, ITERATIONS, PART):
        told(done, ITERATIONS)
        plan, log = _pot().sinkhorn(
            p, q, costs, reg=epsilon, method="sinkhorn_log", numItermax=PART, stopThr=CLOSE, log=True, warn=False,
            warmstart=potentials,
        )  # fmt: skip
        potentials, error = (log["log_u"], log["log_v"]), float(log["err"][-1])
        if not error > CLOSE:  # NaN ends it as well
            break
    told(ITERATIONS, ITERATIONS)
    return plan, error


def _costs(first: Measure, second: Measure, p: float) -> np.ndarray:
    from scipy.spatial.distance import cdist

    with np.errstate(over="ignore"):
        costs = cdist(first.points, second.points) ** p
    if not np.isfinite(costs).all():
        raise ValueError(f"p must leave the costs |x - y|^p finite, got {p:g}")
    return costs


def _pot() -> Any:
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "measures.exact and measures.entropic need POT: pip install 'krause_dynamics[transport]'; "
            "measures.sliced needs nothing more"
        ) from error
    return ot
