"""The door to classical Hegselmann-Krause runs whose equal opinions merge into atoms."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from krause_dynamics.forms.near import line_kernels
from krause_dynamics.forms.near.ball import Ball, effective_radius
from krause_dynamics.forms.near.cloud import Cloud
from krause_dynamics.forms.near.line import SortedLine, symmetry
from krause_dynamics.interaction.neighbourhoods import Within

PER_CALL = 1 << 18  # opinions of the runs in one compiled call, some tenths of a second
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


class Ends(NamedTuple):
    """How many runs on a line ended; arrays (R, S).

    Attributes:
        largest: Opinions in the largest cluster.
        clusters: Number of clusters.
        steps: Steps in which something moved.
        frozen: Whether nothing moves any more.
    """

    largest: np.ndarray
    clusters: np.ndarray
    steps: np.ndarray
    frozen: np.ndarray


def merging_ends(states: np.ndarray, within: Within, tolerances: np.ndarray, max_steps: int) -> Ends:
    """The ends of the merging runs from every row of ``states`` with every radius, some at a time for Ctrl-C.

    Args:
        states: Opinions (S, n), each row sorted, finite float64.
        within: The balls, radii (R,).
        tolerances: Less than this is no motion, (R, S).
        max_steps: Steps at most.
    """
    found = [symmetry(state, np.ones(state.size)) for state in states]
    mirrored, middles = np.array([m for m, _ in found]), np.array([e for _, e in found])
    shape = tolerances.shape
    ends = Ends(np.empty(shape), np.empty(shape, int), np.empty(shape, int), np.empty(shape, bool))
    radii, few = np.atleast_1d(effective_radius(within)), max(1, PER_CALL // states.shape[1])
    for row, start in itertools.product(range(shape[0]), range(0, shape[1], few)):
        part, here = slice(start, start + few), (slice(row, row + 1), slice(start, start + few))
        line_kernels.run_batch(
            states[part], mirrored[part], middles[part], tolerances[here], radii[row : row + 1], max_steps,
            *(kept[here] for kept in ends),
        )  # fmt: skip
    return ends
