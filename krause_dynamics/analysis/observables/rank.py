"""Distance to rank one and soft ranks of the matrix of points (rows are points, weighted by ``sqrt(p_i)``).

All ranks are capped by min(n, d): compare states of one n only, or say n beside the number.
"""

from __future__ import annotations

from typing import Any

from krause_dynamics._array import Array, is_torch, like, namespace, to_numpy
from krause_dynamics.analysis.observables._state import Weighted, mean, ratio, weighted

ROUNDINGS = 4.0  # of the dtype, relative to the norm: what a difference of nearly equal numbers may keep


def residual(points: Array, *, log_mass: Array | None = None) -> Array:
    """Frobenius residual ``r = |X - 1 m^T|_F / |X|_F`` with m the mean row, which is the exact minimiser: r <= 1.

    With masses both norms weight row i by p_i. A cloud at the origin gives 0.

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.

    Returns:
        (...), between 0 (all points equal) and 1 (mean at the origin).
    """
    state = weighted(points, log_mass)
    xp, x = state.xp, state.points
    offset = x - mean(xp, state.share, x)[..., None, :]
    spread = xp.sum(state.share * xp.sum(offset * offset, axis=-1), axis=-1)
    total = xp.sum(state.share * xp.sum(x * x, axis=-1), axis=-1)
    return xp.sqrt(ratio(xp, spread, total, 0.0))


def residual_composite(points: Array, *, log_mass: Array | None = None) -> Array:
    """Residual in the composite norm of Dong et al., ``r = |X - 1 m^T|_{1,inf} / |X|_{1,inf}``.

    ``|A|_{1,inf} = sqrt(|A|_1 |A|_inf)``: largest column sum times largest row sum of absolute values, square root
    included. m is the mean row, an upper bound of the paper's minimum over m, so r may exceed 1.

    Args:
        points: (..., n, d).
        log_mass: (..., n); here only -inf matters: a norm counts rows, not masses.

    Returns:
        (...), at least 0.

    Source: 2103.03404, section 2 (norm and residual).
    """
    state = weighted(points, log_mass)
    xp, x = state.xp, state.points
    present = xp.astype(state.present, x.dtype)
    equal = present / xp.sum(present, axis=-1, keepdims=True)
    offset = (x - mean(xp, equal, x)[..., None, :]) * present[..., None]
    return xp.sqrt(ratio(xp, _product(xp, offset), _product(xp, x), 0.0))


def _product(xp: Any, matrix: Array) -> Array:
    """``|A|_1 |A|_inf``, (..., n, d) -> (...)."""
    size = abs(matrix)
    columns = xp.max(xp.sum(size, axis=-2), axis=-1)
    return columns * xp.max(xp.sum(size, axis=-1), axis=-1)


def singular_values(points: Array, *, log_mass: Array | None = None, centred: bool = False) -> Array:
    """Singular values of the rows ``sqrt(p_i) x_i``, largest first; ``sum s^2`` is the mean squared norm.

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first (s^2 are then the variances along the principal axes); values of the
            size of the subtraction's rounding are set to 0.

    Returns:
        (..., min(n, d)).
    """
    return _spectrum(weighted(points, log_mass), centred)


def _spectrum(state: Weighted, centred: bool) -> Array:
    xp, x = state.xp, state.points
    root = xp.sqrt(state.share)[..., None]
    if not centred:
        return _values(xp, root * x)
    values = _values(xp, root * (x - mean(xp, state.share, x)[..., None, :]))
    # What subtracting the mean leaves of equal points is rounding, not a direction.
    rounding = ROUNDINGS * xp.finfo(x.dtype).eps * xp.sqrt(xp.sum((root * x) ** 2, axis=(-2, -1)))
    return xp.where(values > rounding[..., None], values, xp.zeros_like(values))


def _values(xp: Any, matrix: Array) -> Array:
    """Singular values, largest first.

    In float32 from the float64 Gram matrix of the shorter side: its rounding, 1e-8 of the largest value, is below
    float32's own, and hidden states of wide models take a tenth of the time. In float64 it would cost half the digits.
    """
    if matrix.dtype != xp.float32:
        return xp.linalg.svdvals(matrix)
    if is_torch(matrix) and matrix.device.type == "cpu" and not matrix.requires_grad:
        # numpy's product of a matrix with itself and its eigenvalues take half the time of torch's (measured).
        plain = to_numpy(matrix)
        return like(_values(namespace(matrix=plain), plain), matrix)
    exact = xp.astype(matrix, xp.float64)
    turned = xp.linalg.matrix_transpose(exact)
    gram = exact @ turned if matrix.shape[-2] <= matrix.shape[-1] else turned @ exact
    return xp.astype(of_gram(gram), xp.float32)


def of_gram(gram: Array) -> Array:
    """Singular values, largest first, from inner products (..., k, k) in float64."""
    xp = namespace(gram=gram)
    squares = xp.flip(xp.linalg.eigvalsh(gram), axis=-1)
    return xp.sqrt(xp.where(squares > 0, squares, xp.zeros_like(squares)))


def effective_rank(points: Array, *, log_mass: Array | None = None, centred: bool = False) -> Array:
    """Effective rank ``exp(-sum_k p_k ln p_k)`` with ``p = s / sum s`` (singular values, *not* squared).

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first.

    Returns:
        (...), between 1 and min(n, d); 0 for a zero matrix.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007, definition 1.
    """
    state = weighted(points, log_mass)
    return exp_entropy(state.xp, _spectrum(state, centred))


def matrix_entropy(points: Array, *, log_mass: Array | None = None, centred: bool = False) -> Array:
    """Matrix entropy ``-sum_k p_k ln p_k`` with ``p = s^2 / sum s^2`` (squared singular values; nats).

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first.

    Returns:
        (...), between 0 and ln min(n, d); -inf for a zero matrix, the logarithm of rank 0.

    Source: 2510.06477 (von Neumann entropy of the normalised Gram matrix).
    """
    state = weighted(points, log_mass)
    xp, values = state.xp, _spectrum(state, centred)
    rank = exp_entropy(xp, values**2)
    safe = xp.where(rank > 0, rank, xp.ones_like(rank))
    return xp.where(rank > 0, xp.log(safe), xp.full_like(rank, -float("inf")))


def stable_rank(points: Array, *, log_mass: Array | None = None, centred: bool = False) -> Array:
    """Stable rank ``sum s^2 / s_1^2`` (squared Frobenius over squared spectral norm).

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first.

    Returns:
        (...), between 1 and min(n, d); 0 for a zero matrix.
    """
    xp, squares = _squares(points, log_mass, centred)
    return xp.sum(squares, axis=-1)


def participation_ratio(points: Array, *, log_mass: Array | None = None, centred: bool = True) -> Array:
    """Participation ratio ``(sum s^2)^2 / sum s^4``, of the centred matrix unless told otherwise.

    Args:
        points: (..., n, d).
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first.

    Returns:
        (...), between 1 and min(n, d); 0 for a zero matrix.
    """
    xp, squares = _squares(points, log_mass, centred)
    return ratio(xp, xp.sum(squares, axis=-1) ** 2, xp.sum(squares**2, axis=-1), 0.0)


def numerical_rank(
    points: Array, *, tolerance: float | None = None, log_mass: Array | None = None, centred: bool = False
) -> Array:
    """Number of singular values above ``tolerance * s_1``.

    Args:
        points: (..., n, d).
        tolerance: Relative to the largest; default ``max(n, d) * eps`` of the dtype, the rounding of the values.
        log_mass: (..., n), see `krause_dynamics.observables`.
        centred: Subtract the mean point first.

    Returns:
        (...), integers between 0 and min(n, d).
    """
    state = weighted(points, log_mass)
    xp, values = state.xp, _spectrum(state, centred)
    if tolerance is None:
        tolerance = max(points.shape[-2:]) * float(xp.finfo(values.dtype).eps)
    return xp.sum(xp.astype(values > tolerance * values[..., :1], xp.int64), axis=-1)


def _squares(points: Array, log_mass: Array | None, centred: bool) -> tuple[Any, Array]:
    """``(s_k / s_1)^2``, scaled so that no power overflows or vanishes; 0 for a zero matrix."""
    state = weighted(points, log_mass)
    xp, values = state.xp, _spectrum(state, centred)
    return xp, ratio(xp, values, xp.broadcast_to(values[..., :1], values.shape), 0.0) ** 2


def exp_entropy(xp: Any, values: Array) -> Array:
    """Of a spectrum: ``exp(-sum p ln p)`` with ``p = v / sum v`` over the last axis; 0 where all v are 0."""
    share = ratio(xp, values, xp.broadcast_to(xp.sum(values, axis=-1, keepdims=True), values.shape), 0.0)
    safe = xp.where(share > 0, share, xp.ones_like(share))
    rank = xp.exp(-xp.sum(share * xp.log(safe), axis=-1))
    return xp.where(xp.sum(values, axis=-1) > 0, rank, xp.zeros_like(rank))
