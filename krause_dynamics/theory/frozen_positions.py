"""Tokens with a position that never moves: they do not collapse, but each goes to a function of its position."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import POSITIVE, Real
from krause_dynamics.theory._formula import formula


@formula(beta=POSITIVE, strength=Real(0.0), opening=Real(0.0, 0.5 * math.pi, "()"))
def frozen_position_angle(*, beta: float, strength: float, opening: float) -> float:
    r"""Where tokens of two frozen positions end: at +theta and -theta on the circle, 0 < theta < opening.

    Half of the tokens carry the position a (cos phi, sin phi), half a (cos phi, -sin phi), and
    x_i' = P_i (1/n) sum_j e^{b <y_i, y_j>} y_j with y = x + position climbs sum_ij e^{b <y_i, y_j>}. Its maximum among
    x = (cos theta, +- sin theta) is a push-forward of the law of positions, theta a root of

        a sin(phi - theta) e^{b (s - c)} = sin 2 theta + a sin(phi + theta),
        s = 1 + a^2 + 2 a cos(theta - phi),   c = cos 2 theta + a^2 cos 2 phi + 2 a cos(theta + phi).

    The left side is larger at 0 and smaller at phi for every a > 0: no collapse, however weak the positions.

    Args:
        beta: inverse temperature b > 0.
        strength: a >= 0, length of the positions; without them (0) tokens meet.
        opening: phi in (0, pi/2), in radians; half of the angle between the two positions.

    Returns:
        theta in radians; the maximiser of the energy where the equation has several roots.

    Source: push-forward and escape from collapse by auxiliary variables, arXiv 2605.30229; the two-group case derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.frozen_position_angle(beta=2.0, strength=0.5, opening=1.0), 6)
        0.995201
    """
    from scipy.optimize import brentq

    if strength == 0.0:
        return 0.0

    place = strength * math.sin(opening)

    def pull(theta: float) -> float:
        # Left side less right side, over e^{b (s - c)}, with s - c = 2 (sin theta + a sin phi)^2; two equal forms, each
        # without cancellation where it is taken.
        far = 2.0 * beta * (math.sin(theta) + place) ** 2
        if far < 0.5:
            apart = -2.0 * strength * math.cos(opening) * math.sin(theta) - math.exp(-far) * math.sin(2.0 * theta)
            return apart - math.expm1(-far) * strength * math.sin(opening + theta)
        back = math.sin(2.0 * theta) + strength * math.sin(opening + theta)
        return strength * math.sin(opening - theta) - math.exp(-far) * back

    grid = np.linspace(0.0, opening, 2001)
    # The energy e^{b s} + e^{b c}, logarithm less that of a constant.
    own = 2.0 * strength * np.cos(grid - opening)
    energy = beta * own + np.log1p(np.exp(-2.0 * beta * (np.sin(grid) + place) ** 2))
    best = int(np.argmax(energy))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    if not pull(low) > 0.0 > pull(high):  # an end at which the pull is 0 to rounding
        low, high = 0.0, opening
    if not pull(low) > 0.0:
        return 0.0
    return opening if not pull(high) < 0.0 else float(brentq(pull, low, high, xtol=1e-300, rtol=1e-14))
