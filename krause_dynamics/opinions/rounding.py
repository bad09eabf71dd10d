"""Pairs that only rounding can admit or refuse: lattices whose spacing is the radius."""

from __future__ import annotations

import warnings

import numpy as np

from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.forms.near.near_means import Entry, flat_means
from krause_dynamics.interaction import Within

SAMPLE = 2048  # agents whose pairs are counted; a share needs no more
SHARE = 0.01  # of the near pairs, from which on a warning is due


class RoundingWarning(UserWarning):
    """Many decisions of a run hang on the last bit of a difference."""


def share_at_radius(x: np.ndarray, within: Within) -> tuple[float, bool]:
    """Share of the pairs up to the radius that lie within rounding of it, and whether they are decided both ways.

    Args:
        x: (n, d) opinions.
        within: The ball, with one radius.

    Returns:
        The share among pairs at most a rounding farther than the radius, and whether the direct differences admit some
        of those at the radius and refuse others. On integer positions with radius 1 the share is large but every
        decision is exact, so the second is False.
    """
    radius = float(within.radius)
    if x.shape[0] < 2 or not np.isfinite(radius):
        return 0.0, False
    sample = x[:: max(1, x.shape[0] // SAMPLE)]
    rounding = 4 * np.finfo(float).eps * np.maximum(radius, np.abs(sample).max(axis=1))
    rounding = np.minimum(rounding, 0.5 * radius)  # where floats are coarser than the radius nothing can be said
    radii = (radius - rounding, np.array([radius]), radius + rounding)
    below, admitted, upto = (int(heard_by(sample, x, Ball.of(within, r, x.shape[1])).sum()) for r in radii)
    near, pairs = upto - below, upto - sample.shape[0]
    return (near / pairs if pairs > 0 else 0.0), 0 < admitted - below < near


def warn_of_rounding(share: float, both_ways: bool) -> None:
    """Say it when more than one pair in a hundred is decided by rounding."""
    if both_ways and share > SHARE:
        warnings.warn(
            f"{share:.0%} of the pairs up to the radius lie within rounding of it and are decided by the last bit; let "
            "spacing and radius be exact (integers and radius 1, not 0.1 i and 0.1), or change the radius a little",
            RoundingWarning,
            stacklevel=3,
        )


def heard_by(queries: np.ndarray, x: np.ndarray, ball: Ball) -> np.ndarray:
    """How many of the opinions ``x`` (n, d) each of the queries (m, d) has in its ball, (m,)."""
    mass, own = np.ones(x.shape[0]), np.full(queries.shape[0], -1)
    return np.rint(flat_means(Entry(queries, x, np.zeros((x.shape[0], 1)), mass, ball, own), mass)[1]).astype(np.int64)
