"""Synchronization and collapse towards one direction or one point."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from krause_dynamics._arguments import Entries, reads
from krause_dynamics._array import Array
from krause_dynamics.analysis.observables._state import Weighted, mean, ratio, weighted
from krause_dynamics.spaces import SPACE, Euclidean, Space

BLOCK = 2**22  # entries of the largest intermediate of `diameter`, 32 MiB in float64


def order_parameter(points: Array, *, log_mass: Array | None = None) -> Array:
    """Order parameter ``R = |sum_i p_i u_i|``, u_i = x_i / |x_i| (Kuramoto's r on the circle).

    1 for one common direction. Random directions give about 1/sqrt(n), so R of different n cannot be compared (use
    `mean_cosine`), and two opposite clusters give 0 (use `krause_dynamics.clusters`).

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.

    Returns:
        (...), between 0 and 1.
    """
    state = weighted(points, log_mass)
    share, unit = state.doubled_share, state.doubled_directions
    length = state.xp.linalg.vector_norm(mean(state.xp, share, unit), axis=-1)
    return state.xp.astype(state.xp.minimum(length, state.xp.ones_like(length)), state.points.dtype)


def mean_cosine(points: Array, *, log_mass: Array | None = None) -> Array:
    """Mean cosine of all pairs of different points, ``c = (|sum u_i|^2 - n) / (n (n - 1))``, at cost O(n d).

    With masses ``c = (R^2 - sum p_i^2) / (1 - sum p_i^2)``, the same for equal ones. Random directions give about 0
    whatever n; the smallest value is -1/(n - 1). One point alone has no pair: NaN.

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.

    Returns:
        (...), between -1/(n - 1) and 1.
    """
    state = weighted(points, log_mass)
    # Sums in float64 with the lengths that the units really have: in float32 equal tokens would pass the bound.
    xp, share = state.xp, state.doubled_share
    unit = state.doubled_directions
    own = xp.sum(share**2 * xp.sum(unit * unit, axis=-1), axis=-1)
    alone = xp.sum(xp.astype(state.present, share.dtype), axis=-1) < 2
    pairs = xp.where(alone, xp.zeros_like(own), 1 - xp.sum(share**2, axis=-1))
    total = xp.sum(mean(xp, share, unit) ** 2, axis=-1)
    cosine = ratio(xp, total - own, pairs, float("nan"))
    return xp.astype(xp.where(cosine > 1, xp.ones_like(cosine), cosine), state.points.dtype)


@reads(space=SPACE)
def dispersion(points: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """Mean squared distance to the mean, ``sum_i p_i |x_i - m|^2`` with ``m = sum_i p_i x_i``.

    That is half the mean squared distance of all pairs, ``sum_ij p_i p_j |x_i - x_j|^2 / 2``, which a space without
    means has as well.

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        space: Its ``distance`` decides, over all pairs, such as `kd.Torus(1.0)`; by default Euclidean.

    Returns:
        (...), at least 0.
    """
    state = weighted(points, log_mass)
    xp = state.xp
    if space is not None:
        terms = [
            xp.sum(state.share[..., rows, None] * state.share[..., None, :] * distances**2, axis=(-2, -1))
            for rows, distances in _pairs(state, space)
        ]
        return sum(terms[1:], terms[0]) / 2
    offset = state.points - mean(xp, state.share, state.points)[..., None, :]
    return xp.sum(state.share * xp.sum(offset * offset, axis=-1), axis=-1)


def norm_ratio(points: Array, token: int = 0, *, log_mass: Array | None = None) -> Array:
    """Norm of one token over the median norm, ``r_t = |x_t| / median_s |x_s|`` (massive activations, 2402.17762).

    Args:
        points: (..., n, d).
        token: Which of the *present* points, in order; 0 is the first real token also under left padding.
        log_mass: (..., n); here only -inf matters: the median is over the present points, whatever their masses.

    Returns:
        (...), at least 0; NaN where all norms but a minority are 0.

    Raises:
        ValueError: A state has no such token.
    """
    state = weighted(points, log_mass)
    xp, present = state.xp, state.present
    count = xp.sum(xp.astype(present, xp.int64), axis=-1, keepdims=True)
    if not 0 <= token < int(xp.min(count)):
        raise ValueError(f"token must be between 0 and {int(xp.min(count)) - 1}, got {token}")
    norms = xp.linalg.vector_norm(state.points, axis=-1)
    ranked = xp.sort(xp.where(present, norms, xp.full_like(norms, float("inf"))), axis=-1)
    middle = [xp.take_along_axis(ranked, index, axis=-1)[..., 0] for index in ((count - 1) // 2, count // 2)]
    rank = xp.cumulative_sum(xp.astype(present, xp.int64), axis=-1)
    here = present & (rank == token + 1)
    chosen = xp.sum(xp.where(here, norms, xp.zeros_like(norms)), axis=-1)
    return ratio(xp, chosen, (middle[0] + middle[1]) / 2, float("nan"))


@reads(positions=Entries((2, 4)), space=SPACE)
def mean_step(positions: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """Mean relative step between successive states, ``sum_i p_i |x_i(l+1) - x_i(l)| / |x_i(l)|``.

    Args:
        positions: (T, ..., n, d), time or layer first.
        log_mass: (..., n), the same at all times. A point at the origin that moves gives infinity.
        space: Its ``difference`` is the step: on a torus the short way. By default Euclidean.

    Returns:
        (T - 1, ...).

    Raises:
        ValueError: Fewer than two states.
    """
    if positions.ndim < 3 or positions.shape[0] < 2:
        raise ValueError(f"positions must have shape (T, ..., n, d) with T >= 2, got {tuple(positions.shape)}")
    state = weighted(positions, log_mass)
    xp = state.xp
    step = xp.linalg.vector_norm((space or Euclidean()).difference(state.points[1:], state.points[:-1]), axis=-1)
    norm = xp.linalg.vector_norm(state.points[:-1], axis=-1)
    relative = xp.where(step > 0, ratio(xp, step, norm, float("inf")), xp.zeros_like(step))
    return xp.sum(xp.where(state.present[1:], state.share[1:] * relative, xp.zeros_like(relative)), axis=-1)


@reads(space=SPACE)
def diameter(points: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """Largest distance between two points, ``max_ij |x_i - x_j|``.

    The pair is found by matrix products in blocks of rows (memory O(n)); its distance is then a direct difference, so
    a consensus gives exactly 0.

    Args:
        points: (..., n, d).
        log_mass: (..., n); here only -inf matters.
        space: Its ``distance`` decides, such as `kd.Torus(1.0)`; by default Euclidean.

    Returns:
        (...), at least 0.
    """
    state = weighted(points, log_mass)
    if space is not None:
        xp, both = state.xp, state.present[..., :, None] & state.present[..., None, :]
        largest = [
            xp.max(xp.where(both[..., rows, :], distances, xp.zeros_like(distances)), axis=(-2, -1))
            for rows, distances in _pairs(state, space)
        ]
        return xp.max(xp.stack(largest), axis=0)
    xp, x, n = state.xp, state.points, state.points.shape[-2]
    centred = x - mean(xp, state.share, x)[..., None, :]
    squares = xp.sum(centred * centred, axis=-1)
    rows = max(1, BLOCK // max(1, n * math.prod(x.shape[:-2])))
    best = xp.full_like(squares[..., 0], -1.0)
    pair = xp.zeros_like(best, dtype=xp.int64)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        squared = squares[..., start:stop, None] + squares[..., None, :]
        squared = squared - 2 * (centred[..., start:stop, :] @ xp.matrix_transpose(centred))
        both = state.present[..., start:stop, None] & state.present[..., None, :]
        flat = xp.reshape(xp.where(both, squared, xp.full_like(squared, -1.0)), (*best.shape, -1))
        largest = xp.max(flat, axis=-1)
        pair = xp.where(largest > best, xp.argmax(flat, axis=-1) + start * n, pair)
        best = xp.maximum(best, largest)
    return xp.linalg.vector_norm(_row(xp, x, pair // n) - _row(xp, x, pair % n), axis=-1)


def _pairs(state: Weighted, space: Space) -> Iterator[tuple[slice, Array]]:
    """Distances of some points to all, (..., rows, n), a few rows at a time."""
    x, n = state.points, state.points.shape[-2]
    space.check_dimension(x.shape[-1])
    rows = max(1, BLOCK // math.prod(x.shape))
    for start in range(0, n, rows):
        part = slice(start, min(start + rows, n))
        yield part, space.distance(x[..., part, None, :], x[..., None, :, :])


def _row(xp: Any, points: Array, index: Array) -> Array:
    """Point ``index`` (...) of each state (..., n, d) -> (..., d)."""
    index = xp.broadcast_to(index[..., None, None], (*points.shape[:-2], 1, points.shape[-1]))
    return xp.take_along_axis(points, index, axis=-2)[..., 0, :]
