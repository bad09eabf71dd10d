"""The staircase of metastable clusters: which pair merges next, when, and where."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Reals
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.lifetimes import cluster_lifetime


@formula(angles=Reals(ndim=1, rising=True), beta=POSITIVE)
def merging_times(*, angles: ArrayLike, beta: float) -> np.ndarray:
    r"""Times at which clusters of equal mass on the circle merge one after the other under SA, for large beta.

    The two nearest merge first, after `cluster_lifetime`, while all others stand still, as speeds of other pairs are
    smaller by e^{-beta (difference of cosines)}; then the next two. The heavier of a pair moves less: with masses p and
    1 - p the first goes the share of the way int (1-p)/(p + (1-p) e) / [(1-p)/(p + (1-p) e) + p/(1-p + p e)], e the
    affinity exp(beta (cos phi - 1)) on the way. Energies climb from saddle to saddle, in times e^{c beta}.

    Args:
        angles: Where the clusters stand, in radians, rising, shape (k,), k >= 2, over less than half a turn.
        beta: inverse temperature > 0; gaps of 1 and 2 give 2 % at 4 and 0.3 % at 6, gaps that are nearly equal more.

    Returns:
        Shape (k - 1,), rising: when the angle of each merging pair has halved; infinite beyond the range of floats.

    Raises:
        ValueError: one cluster alone, two in one place, or clusters over half a turn or more.

    Source: derived from `cluster_lifetime`; slow times of saddle-to-saddle dynamics conjectured in general, two
        clusters in arXiv 2410.06833.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.merging_times(angles=[0.0, 1.0, 3.0], beta=6.0).round(3).tolist()
        [2.544, 6232.101]
    """
    gaps = np.diff(angles)
    if len(gaps) == 0 or gaps.min() <= 0.0 or gaps.sum() >= math.pi:
        raise ValueError(f"angles must be of two or more clusters apart, over less than pi in all, got {angles!r}")
    places, masses = [float(angle) for angle in angles], [1.0] * len(angles)
    times = [0.0]
    while len(places) > 1:
        waits = []
        for first in range(len(places) - 1):
            gap, share = places[first + 1] - places[first], masses[first] / (masses[first] + masses[first + 1])
            waits.append(cluster_lifetime(beta=beta, angle=gap, mass=share))
        first = int(np.argmin(waits))
        gap, share = places[first + 1] - places[first], masses[first] / (masses[first] + masses[first + 1])
        times.append(times[-1] + waits[first])
        places[first : first + 2] = [places[first] + _way(gap, share, beta)]
        masses[first : first + 2] = [masses[first] + masses[first + 1]]
    return np.array(times[1:])


def _way(gap: float, share: float, beta: float) -> float:
    """How far the first of two clusters goes until they meet."""
    from scipy.integrate import quad

    def part(angle: float) -> float:
        affinity = math.exp(-beta * versine(angle))
        first = (1.0 - share) / (share + (1.0 - share) * affinity)
        second = share / (1.0 - share + share * affinity)
        return first / (first + second)

    return float(quad(part, 0.0, gap, epsrel=1e-10)[0])
