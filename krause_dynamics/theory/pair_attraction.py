"""Two tokens under USA on the sphere: at which angle they pull hardest."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals
from krause_dynamics.theory._formula import formula


@formula(beta=Reals(0.0))
def strongest_attraction_angle(beta: ArrayLike) -> np.ndarray:
    r"""Angle at which the pull e^{b cos phi} sin phi of USA is largest: arccos((sqrt(1 + 4 b^2) - 1)/(2 b)).

    The energy e^{b cos phi} is concave in the angle below it and convex above. About b^{-1/2} for large b; 90 degrees
    at b = 0.

    Args:
        beta: inverse temperature b >= 0, any shape.

    Returns:
        Angles in radians, shape of ``beta``.

    Source: the angle of arXiv 2601.21366 (atoms of attention with a perceptron); root of b cos^2 phi + cos phi - b.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.strongest_attraction_angle([1.0, 25.0]).round(6).tolist()
        [0.904557, 0.199327]
    """
    # Cosine (sqrt(1 + 4 b^2) - 1)/(2 b) and sine sqrt(cosine/b), both without cancellation.
    rest = 1.0 + np.hypot(1.0, 2.0 * beta)
    return np.arctan2(np.sqrt(2.0 / rest), 2.0 * beta / rest)
