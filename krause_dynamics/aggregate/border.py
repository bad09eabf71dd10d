"""Checks made once where arrays come in; nothing behind them asks again."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._array import Array, all_finite, as_floating, is_torch, may_look, to_numpy
from krause_dynamics.interaction import Interaction, Request, reference


def as_points(name: str, x: Any) -> Array:
    """Positions as a floating (..., n, d) array; one dimension (n,) becomes (n, 1).

    Raises:
        TypeError: No real numbers, or a whole run, whose states would be read as runs side by side.
        ValueError: Empty, or a single number.
    """
    if hasattr(x, "final") and hasattr(x, "positions"):
        raise TypeError(f"{name} must be one state or a batch of them, got a {type(x).__name__}; pass run.final")
    points = as_floating(name, x)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim < 2 or points.shape[-1] == 0 or points.shape[-2] == 0:
        raise ValueError(f"{name} must have shape (n,) or (..., n, d) with n, d >= 1, got {tuple(points.shape)}")
    check_some(name, points)
    return points


def check_some(name: str, points: Array) -> None:
    """A batch holds at least one run.

    Raises:
        ValueError: None.
    """
    if 0 in tuple(points.shape):
        raise ValueError(f"{name} must hold at least one run in its leading axes, got shape {tuple(points.shape)}")


def check_parameters(interaction: Interaction, request: Request) -> None:
    """beta, sigma and radius are one number, or one per listener, per head, per run.

    Raises:
        ValueError: A parameter that does not broadcast against (*batch, n).
    """
    for name, value in interaction.arrays.items():
        given, shape = tuple(value.shape), tuple(request.queries.shape[:-1])
        if not _broadcasts(given, shape):
            raise ValueError(f"{name} must be a number or broadcast against (*batch, n) = {shape}, got {given}")


def check_coefficients(interaction: Interaction, request: Request) -> None:
    """Scores stay within the dtype that computes them, whatever the form: infinity minus infinity is NaN.

    Raises:
        ValueError: A parameter, or positions, at which they could leave it.
    """
    q, score, form = request.queries, interaction.score, interaction.score.coefficients()
    if form is None or score.is_flat or (type(q) is not np.ndarray and not may_look(q)):
        return
    steepest = 0.0
    for c in form:
        if isinstance(c, int | float):
            steepest = max(steepest, abs(c))
        elif may_look(c):
            steepest = max(steepest, float(np.max(np.abs(to_numpy(c)), initial=0.0)))
    dtype = request.xp.float32 if q.dtype.itemsize < 4 else q.dtype
    largest, size = float(request.xp.finfo(dtype).max), 0.0
    for x in (q,) if request.sources is q else (q, request.sources):
        there = x if request.log_mass is None or x is not request.sources else reference.present(request, x)
        there = there if type(there) is np.ndarray else there.detach()
        size = max(size, float(abs(there).max()))
    # |x - y|^2 is at most 4 d times the square of the largest coordinate.
    if steepest < largest and size < (largest / 4 / q.shape[-1] / max(steepest, 1.0)) ** 0.5:
        return
    given = ", ".join(f"{name}={x!r}" for name, x in vars(score).items())
    raise ValueError(
        f"scores must stay below {largest:.1e}, the largest number of {q.dtype}, got {given} at positions of up to "
        f"{size:.1e}; rescale positions and parameter, or compute in float64"
    )


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    # From the right, as arrays broadcast; one may have more leading axes than the other.
    aligned = zip(reversed(given), reversed(shape), strict=False)
    return not any(g not in (1, s) and (s != 1 or axis == 0) for axis, (g, s) in enumerate(aligned))


def check_finite(request: Request) -> None:
    """NaN would spread through every mean; padding (log-mass -inf) may hold anything.

    Raises:
        ValueError: NaN or infinity where there is mass.
    """
    if is_torch(request.queries) and request.queries.device.type != "cpu":
        return  # asking a GPU for the answer would stall it at every call
    check_some("queries", request.queries)
    _check_points(request, "queries", request.queries)
    if request.sources is not request.queries:
        _check_points(request, "sources", request.sources)
    if request.values is not request.sources:
        _check_points(request, "values", request.values)
    check_masses(request.log_mass)


def _check_points(request: Request, name: str, x: Array) -> None:
    padded = request.log_mass is not None and (name != "queries" or x is request.sources)
    if not all_finite(reference.present(request, x) if padded else x):
        raise ValueError(f"{name} must be finite, got NaN or infinity; set log_mass=-inf for padding")


def check_masses(log_mass: Array | None) -> None:
    """A single NaN or infinite mass would turn every mean that hears it into NaN.

    Raises:
        ValueError: If ``log_mass`` holds NaN or +infinity.
    """
    if log_mass is not None and not bool((log_mass < float("inf")).all()):
        raise ValueError("log_mass must hold numbers or -inf (padding), got NaN or +infinity; equal masses: None")
