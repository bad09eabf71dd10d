"""Hard attention (temperature zero) and how long a cluster holds at low temperature.

Each token follows the token that it scores highest. With vertices of a polytope on the unit sphere it is the
Frank-Wolfe method: a token keeps its vertex for ever. Keys drawn by the Gumbel trick at a finite temperature leave it.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Real, Reals, Whole
from krause_dynamics.theory._angles import unit_vectors, versine
from krause_dynamics.theory._formula import formula


@formula(times=Reals(0.0, ndim=1), start=Reals(ndim=2), vertices=Reals(ndim=2))
def hard_attention_positions(*, times: ArrayLike, start: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    r"""Tokens under x' = v - x with v the vertex of largest <x, v>: x(t) = e^{-t} x(0) + (1 - e^{-t}) v.

    The vertex never changes: <x(t), v - w> = e^{-t} <x(0), v - w> + (1 - e^{-t})(1 - <v, w>) >= 0.

    Args:
        times: t >= 0, shape (t,).
        start: x(0) inside the hull of the vertices, shape (n, d).
        vertices: unit vectors, shape (k, d); they stand still.

    Returns:
        Shape (t, n, d).

    Raises:
        ValueError: vertices that are not unit vectors, or of another dimension.

    Source: arXiv 2508.09628.

    Examples:
        >>> from krause_dynamics import theory
        >>> ends = [[1.0, 0.0], [-1.0, 0.0]]
        >>> answer = theory.hard_attention_positions(times=[1.0], start=[[0.2, 0.0]], vertices=ends)
        >>> answer.round(6).tolist()
        [[[0.705696, 0.0]]]
    """
    if vertices.shape[1] != start.shape[1]:
        raise ValueError(f"vertices must have the dimension {start.shape[1]} of start, got shape {vertices.shape}")
    vertices = unit_vectors("vertices", vertices)
    chosen = vertices[np.argmax(start @ vertices.T, axis=1)]
    left = np.exp(-times)[:, None, None]
    return left * start + (1.0 - left) * chosen


@formula(clusters=Whole(2, 10**6), beta=Real(0.0))
def polygon_exit_probability(*, clusters: int, beta: float) -> float:
    r"""Probability that a token on a vertex of a regular polygon draws another vertex: p = S/(1 + S).

    S = sum_{j=1}^{k-1} exp(-beta (1 - cos 2 pi j/k)). With a new draw at every layer the exit time is geometric with
    this p: its median grows like exp(beta (1 - cos 2 pi/k)).

    Args:
        clusters: k vertices, of equal mass.
        beta: inverse temperature.

    Source: arXiv 2508.09628 (Gumbel noise).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.polygon_exit_probability(clusters=6, beta=4.0), 6)
        0.216279
    """
    angle = 2.0 * np.pi * np.arange(1, clusters) / clusters
    total = float(np.exp(-beta * versine(angle)).sum())
    return total / (1.0 + total)
