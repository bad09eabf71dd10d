"""Polygons: n tokens at equal angles on the circle under a value matrix that turns, and when they attract."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import Flag, Real, Whole
from krause_dynamics.theory._formula import formula


class PolygonRates(NamedTuple):
    """A regular polygon under a value matrix: how fast it turns, and what a displacement does to it.

    Attributes:
        speed: Of its turning, in radians per unit of time.
        modes: Complex eigenvalues of the modes p = 1..n-1, shape (n-1,); it attracts where all real parts are negative.
    """

    speed: float
    modes: np.ndarray


@formula(tokens=Whole(2, 4000), beta=Real(), turn=Real(), normalised=Flag())
def polygon_rates(*, tokens: int, beta: float, turn: float = 0.0, normalised: bool = True) -> PolygonRates:
    r"""Turning and spectrum of n tokens at angles 2 pi a/n under attention with V = rotation by ``turn``.

    theta_i' = sum_j w(theta_j - theta_i) sin(theta_j - theta_i + turn), w(x) = e^{b cos x}/n (USA) or /Z_i (SA):

        speed = sin(turn) sum_a w_a cos x_a,   lambda_p = sum_a f'(x_a) (e^{i p x_a} - 1),   x_a = 2 pi a/n

    with f'(x) = w [cos(x + turn) - b sin x sin(x + turn)], plus w b speed sin x under SA. A skew V (turn = pi/2) has
    imaginary eigenvalues only: it neither draws polygons together nor apart. Three tokens: consensus attracts where
    cos(turn) > 0 (`consensus_attraction`), and for b > -2/3 the triangle exactly where cos(turn) < 0; for b < -2/3 both
    attract where cos(turn) > 0.

    Args:
        tokens: n >= 2, one on each vertex.
        beta: inverse temperature b, any sign.
        turn: angle of the rotation V, in radians; 0 is V = I, pi is V = -I.
        normalised: True for SA, False for USA.

    Returns:
        A `PolygonRates`.

    Source: polygons as attractors, arXiv 2511.11553 (multistability); rates derived.

    Examples:
        >>> import math
        >>> from krause_dynamics import theory
        >>> theory.polygon_rates(tokens=3, beta=1.0, turn=math.pi, normalised=False).modes.real.round(6).tolist()
        [-0.758163, -0.758163]
    """
    angle = 2.0 * np.pi * np.arange(tokens) / tokens
    exponent = beta * np.cos(angle)
    weight = np.exp(exponent - (exponent.max() if normalised else 0.0))
    weight = weight / (weight.sum() if normalised else tokens)
    speed = float(np.sin(turn) * (weight @ np.cos(angle)))
    slope = weight * (np.cos(angle + turn) - beta * np.sin(angle) * np.sin(angle + turn))
    if normalised:
        slope = slope + weight * beta * speed * np.sin(angle)
    modes = np.arange(1, tokens)[:, None]
    return PolygonRates(speed, np.sum(slope * np.expm1(1j * modes * angle), axis=1))
