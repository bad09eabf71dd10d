"""The door to classical Hegselmann-Krause runs whose equal opinions merge into atoms."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.near.ball import Ball, effective_radius
from krause_dynamics.forms.near.cloud import Cloud
from krause_dynamics.forms.near.line import SortedLine
from krause_dynamics.interaction.neighbourhoods import Within

MergingRun = SortedLine | Cloud


def merging_run(x: np.ndarray, within: Within, tolerance: float, *, masses: np.ndarray | None = None) -> MergingRun:
    """The synchronous rule ``x_i <- mean of those in the ball``, own opinion counted, many steps at once.

    Both kinds of run answer to ``advance(steps)``, ``steps``, ``frozen``, ``positions``, ``atoms``, ``masses``,
    ``owner``, ``arrays()`` and ``restore(arrays, steps)``.

    Args:
        x: Opinions (n, d), finite float64; with d = 1 the run is a `SortedLine` (positions and atoms are flat), else a
            `Cloud`.
        within: The ball, with one radius.
        tolerance: Less than this is no motion; in units of position.
        masses: Weights (n,), positive; by default 1.

    Raises:
        ValueError: A radius for each agent.
    """
    if np.ndim(within.radius):
        raise ValueError(f"within must have one radius for all, got shape {np.shape(within.radius)}; use kd.aggregate")
    if x.shape[1] == 1:
        return SortedLine(x[:, 0], float(effective_radius(within)), tolerance, masses=masses)
    ball = Ball.of(within, np.atleast_1d(np.asarray(within.radius, np.float64)), x.shape[1])
    return Cloud(x, ball, tolerance, masses=masses)
