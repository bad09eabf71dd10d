"""How alike two states of the same points are, up to rotation: successive layers, or two models."""

from __future__ import annotations

from typing import Any

from krause_dynamics._arguments import Entries, reads
from krause_dynamics._array import Array, namespace
from krause_dynamics.analysis.observables._state import mean, ratio, weighted


def linear_cka(x: Array, y: Array, *, debiased: bool = True) -> Array:
    """Linear centred kernel alignment of two states of the same n points.

    Plain: ``|Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)`` of the centred states. It is biased where d > n (independent normal
    clouds with n = 64, d = 576 give 0.90), so by default each of the three terms is the unbiased estimate of HSIC; then
    independent clouds give 0 on average, and values below 0 occur.

    Args:
        x: (..., n, d), n >= 4.
        y: (..., n, d') the same points elsewhere.
        debiased: Use the unbiased estimates.

    Returns:
        (...), at most 1; NaN where one state is constant.

    Raises:
        ValueError: Different numbers of points, or fewer than 4.

    Source: Kornblith et al., 1905.00414, section 3; Song et al., JMLR 13 (2012), 1393, equation 5, for the estimate.
    """
    xp, x, y = _same_points(x, y, least=4)
    grams = [z @ xp.matrix_transpose(z) for z in (x, y)]
    hsic = _unbiased_hsic if debiased else _plain_hsic
    cross, own_x, own_y = (hsic(xp, grams[a], grams[b]) for a, b in ((0, 1), (0, 0), (1, 1)))
    positive = xp.where((own_x > 0) & (own_y > 0), own_x * own_y, xp.zeros_like(own_x))
    return ratio(xp, cross, xp.sqrt(positive), float("nan"))


@reads(x=Entries((2, 3)), y=Entries((2, 3)))
def procrustes_residual(x: Array, y: Array) -> Array:
    """Orthogonal Procrustes residual ``min_{c, Q} |c X Q - Y|_F / |Y|_F = sqrt(1 - s^2)`` of the centred states.

    Q is orthogonal (a common dimension is needed), c a scale, ``s = |X^T Y|_* / (|X|_F |Y|_F)`` with the nuclear norm.

    Args:
        x: (..., n, d).
        y: (..., n, d) the same points elsewhere.

    Returns:
        (...), between 0 (equal up to rotation, reflection, shift and scale) and 1; 0 where y is constant.

    Raises:
        ValueError: Different shapes.

    Source: Schoenemann, Psychometrika 31 (1966), 1; the square is the disparity of ``scipy.spatial.procrustes``.
    """
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x and y must have one dimension, got {tuple(x.shape)} and {tuple(y.shape)}")
    xp, x, y = _same_points(x, y, least=1)
    nuclear = xp.sum(xp.linalg.svdvals(xp.matrix_transpose(x) @ y), axis=-1)
    sizes = xp.sqrt(xp.sum(x * x, axis=(-2, -1)) * xp.sum(y * y, axis=(-2, -1)))
    some = xp.sum(y * y, axis=(-2, -1)) > 0
    explained = ratio(xp, nuclear, sizes, 0.0) ** 2
    left = xp.where(explained < 1, 1 - explained, xp.zeros_like(explained))
    return xp.where(some, xp.sqrt(left), xp.zeros_like(left))


def _same_points(x: Array, y: Array, least: int) -> tuple[Any, Array, Array]:
    """Both states checked and centred."""
    xp = namespace(x=x, y=y)
    first, second = weighted(x), weighted(y)
    n = x.shape[-2]
    if n != y.shape[-2] or n < least:
        raise ValueError(
            f"x and y must hold the same points, at least {least}, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    centred = (state.points - mean(xp, state.share, state.points)[..., None, :] for state in (first, second))
    return xp, *centred


def _plain_hsic(xp: Any, first: Array, second: Array) -> Array:
    return xp.sum(first * second, axis=(-2, -1))


def _unbiased_hsic(xp: Any, first: Array, second: Array) -> Array:
    """``(tr(K L) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'K L1 / (n-2)) / (n (n-3))`` with zero diagonals."""
    n = first.shape[-1]
    place = xp.cumulative_sum(xp.ones_like(first[..., 0]), axis=-1)  # 1, ..., n where the states live
    outside = place[..., :, None] != place[..., None, :]
    first, second = (xp.where(outside, gram, xp.zeros_like(gram)) for gram in (first, second))
    rows, others = xp.sum(first, axis=-1), xp.sum(second, axis=-1)
    total = xp.sum(first * second, axis=(-2, -1)) - 2 * xp.sum(rows * others, axis=-1) / (n - 2)
    return (total + xp.sum(rows, axis=-1) * xp.sum(others, axis=-1) / ((n - 1) * (n - 2))) / (n * (n - 3))
