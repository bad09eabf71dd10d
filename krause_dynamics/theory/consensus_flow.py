"""Where a consensus of tokens goes on the sphere: Oja's flow of the value matrix."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals
from krause_dynamics.theory._angles import unit_vectors
from krause_dynamics.theory._formula import formula

FADING, MOST_PIECES = 300.0, 10_000  # of a piece, in powers of e; then the end is reached


@formula(times=Reals(ndim=1), start=Reals(ndim=1), value=Reals(ndim=2))
def consensus_flow(*, times: ArrayLike, start: np.ndarray, value: np.ndarray) -> np.ndarray:
    r"""Position of tokens that agree, x' = V x - <x, V x> x: x(t) = e^{V t} x(0)/|e^{V t} x(0)|.

    Symmetric V takes them to its top eigenvector at the rate of the gap; a skew V turns them for ever.

    Args:
        times: t, shape (t,).
        start: unit vector x(0), shape (d,).
        value: V, shape (d, d).

    Returns:
        Shape (t, d).

    Raises:
        ValueError: V that is not (d, d), or a start that is no unit vector.

    Source: classical (Oja 1982); consensus of attention in arXiv 2511.11553.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.consensus_flow(times=[0.0, 1.0], start=[0.6, 0.8], value=[[1.0, 0.0], [0.0, 0.0]]).round(6).tolist()
        [[0.6, 0.8], [0.897811, 0.440381]]
    """
    return directions(times, check_state("start", start[None], value), value)[:, 0]


def directions(times: np.ndarray, starts: np.ndarray, value: np.ndarray) -> np.ndarray:
    """e^{V t} x/|e^{V t} x| for unit vectors x (n, d): (t, n, d)."""
    from scipy.linalg import expm

    # The largest growth is taken out: only directions matter. A start that has no share in it fades all the same, so
    # that long times are taken in pieces, each of which leaves a length that floats hold.
    growths = np.linalg.eigvals(value).real
    shifted = value - np.eye(len(value)) * growths.max()
    fading = float(np.ptp(growths))

    def at(time: float) -> np.ndarray:
        pieces = max(1, math.ceil(min(abs(time) * fading / FADING, MOST_PIECES)))
        move, x = expm(time / pieces * shifted), starts
        for _ in range(pieces):
            x = x @ move.T
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return x

    return np.stack([at(float(time)) for time in times])


@formula(position=Reals(ndim=1), value=Reals(ndim=2))
def consensus_attraction(*, position: np.ndarray, value: np.ndarray) -> float:
    r"""Rate at which tokens near a consensus x approach one another under SA with a value matrix: <x, V x>.

    Whatever the temperature and the number of tokens. A skew V neither draws together nor apart, and where the
    symmetric part of V is negative along x, consensus repels. 1 - <x_i, x_j> falls twice as fast; V = I gives
    `consensus_rate`.

    Args:
        position: unit vector x on which tokens agree, shape (d,).
        value: V, shape (d, d).

    Raises:
        ValueError: V that is not (d, d), or a position that is no unit vector.

    Source: derived; consensus along eigenvectors and skew V in arXiv 2511.11553.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.consensus_attraction(position=[1.0, 0.0], value=[[0.5, -1.0], [1.0, 0.0]])
        0.5
    """
    x = check_state("position", position[None], value)[0]
    return float(x @ value @ x)


def check_state(name: str, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Unit vectors x (n, d), for a matrix that takes them."""
    d = x.shape[1]
    if value.shape != (d, d):
        raise ValueError(f"value must be (d, d) = ({d}, {d}) for {name} of dimension {d}, got shape {value.shape}")
    return unit_vectors(name, x)
