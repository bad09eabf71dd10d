"""Attention at low temperature, to first order in 1/beta: how far tokens lag behind the flow of each by itself."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.consensus_flow import check_state

NODES, PIECE, MOST_PIECES = 40, 10.0, 3  # Gauss-Legendre in time, on pieces in which nothing grows by more than e^10


@formula(times=Reals(0.0, ndim=1), start=Reals(ndim=2), value=Reals(ndim=2))
def low_temperature_lag(*, times: ArrayLike, start: np.ndarray, value: np.ndarray) -> np.ndarray:
    r"""Limit of beta (x(t) - `low_temperature_flow`) for large beta, tokens spread evenly over the sphere, SA.

    A token of a law of density rho hears x + (grad log rho - (d - 1) x/2)/beta to first order, and rho is the image of
    the uniform law under e^{V u}: grad log rho = -d P e^{-V^T u} x(0) |e^{V u} x(0)| at x(u). Each such push is carried
    along by the flow:

        lag(t) = P int_0^t e^{V (t-u)} P V (grad log rho - (d - 1) x/2)(u) / |e^{V (t-u)} x(u)| du.

    Args:
        times: t >= 0, shape (t,), up to 30/|V|: the law must still be a density on the scale beta^{-1/2}.
        start: unit vectors x_i(0), shape (n, d), of a law that is uniform on the sphere.
        value: V, shape (d, d).

    Returns:
        Tangent vectors at `low_temperature_flow`, shape (t, n, d): the constant of the order 1/beta, for which arXiv
        2605.10931 bounds by C sqrt(log(beta + 1)/beta) e^{C t} with a C that is not given.

    Raises:
        ValueError: V that is not (d, d), a start that is no unit vector, or a time beyond 30/|V|.

    Source: derived (Laplace's method); setting of arXiv 2605.10931 and 2509.25040.

    Examples:
        >>> from krause_dynamics import theory
        >>> lag = theory.low_temperature_lag(times=[0.25], start=[[0.6, 0.8]], value=[[1.0, 0.0], [0.0, -0.5]])
        >>> lag.round(6).tolist()
        [[[-0.04599, 0.050187]]]
    """
    x0 = check_state("start", start, value)
    longest = PIECE * MOST_PIECES / max(float(np.linalg.norm(value, 2)), 1e-300)
    if times.max() > longest:
        raise ValueError(f"times must be at most 30/|V| = {longest:g}, got {float(times.max()):g}")
    return np.stack([_lag(float(time), x0, value) for time in times])


def _lag(time: float, x0: np.ndarray, value: np.ndarray) -> np.ndarray:
    from scipy.linalg import expm

    d = len(value)
    pieces = max(1, math.ceil(time * float(np.linalg.norm(value, 2)) / PIECE))
    node, weight = np.polynomial.legendre.leggauss(NODES)
    moments = (np.arange(pieces)[:, None] + 0.5 * (node + 1.0)).ravel() * (time / pieces)
    total = np.zeros_like(x0)
    for u, share in zip(moments, np.tile(0.5 * time / pieces * weight, pieces), strict=True):
        grown = x0 @ expm(value * u).T
        length = np.linalg.norm(grown, axis=1, keepdims=True)
        x = grown / length
        slope = -d * _tangent(x, x0 @ expm(-value * u) * length)  # e^{-V^T u} x0, in rows
        push = _tangent(x, (slope - 0.5 * (d - 1) * x) @ value.T)
        onward = expm(value * (time - u)).T
        total += share * (push @ onward) / np.linalg.norm(x @ onward, axis=1, keepdims=True)
    end = x0 @ expm(value * time).T
    return _tangent(end / np.linalg.norm(end, axis=1, keepdims=True), total)


def _tangent(x: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors - np.sum(vectors * x, axis=1, keepdims=True) * x)
