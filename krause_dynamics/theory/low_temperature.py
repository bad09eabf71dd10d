"""Attention at low temperature: every token hears its own neighbourhood, so that each follows the value matrix alone.

With n tokens and an inverse temperature that grows with n (moderate interaction) there are three times apart from each
other: tokens align with the leading directions of V, then gather in clusters, then clusters merge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Real, Reals, Whole
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.consensus_flow import check_state, directions
from krause_dynamics.theory.lifetimes import cluster_lifetime
from krause_dynamics.theory.modes import mode_growth, winning_mode


@formula(times=Reals(ndim=1), start=Reals(ndim=2), value=Reals(ndim=2))
def low_temperature_flow(*, times: ArrayLike, start: np.ndarray, value: np.ndarray) -> np.ndarray:
    r"""Tokens of SA at infinite beta, each by itself: x_i(t) = e^{V t} x_i(0)/|e^{V t} x_i(0)|.

    A token hears only those within about beta^{-1/2}, so that its mean is V x_i up to O(1/beta) where tokens are dense.
    Their law is the push-forward of the start by this map; a symmetric V takes it to its leading directions.

    Args:
        times: t, shape (t,).
        start: unit vectors x_i(0), shape (n, d).
        value: V, shape (d, d).

    Returns:
        Unit vectors, shape (t, n, d).

    Raises:
        ValueError: V that is not (d, d), or a start that is no unit vector.

    Source: arXiv 2605.10931 (projected push-forward, W2 at most C sqrt(log(beta + 1)/beta) e^{C t} + e^{-c t} away,
        without values of C and c); 2509.25040 (fast phase). The order 1/beta is derived and measured.

    Examples:
        >>> from krause_dynamics import theory
        >>> x = theory.low_temperature_flow(times=[0.0, 40.0], start=[[0.6, 0.8]], value=[[1.0, 0.0], [0.0, 0.0]])
        >>> x.round(6).tolist()
        [[[0.6, 0.8]], [[1.0, 0.0]]]
    """
    return directions(times, check_state("start", start, value), value)


class ModerateTimes(NamedTuple):
    """Three times of attention at large beta, in units of time of SA.

    Attributes:
        alignment: In which parts outside the leading directions of V fall by e.
        clustering: In which the fastest wave of a uniform law on the leading circle grows by e.
        merging: In which two clusters of half the mass each close to half their angle.
    """

    alignment: float
    clustering: float
    merging: float


@formula(beta=POSITIVE, gap=POSITIVE, angle=Real(0.0, math.pi, "()"))
def moderate_times(*, beta: float, gap: float, angle: float = 0.5 * math.pi) -> ModerateTimes:
    r"""Times of the three phases of SA at large beta: 1/gap, 1/max_l (rate of degree l), lifetime of two clusters.

    The first does not depend on beta, the second tends to e/2 = 1.36 (in units in which V is 1 on the leading circle)
    once waves of length beta^{-1/2} are there, the third grows like exp(beta (1 - cos angle)).

    Args:
        beta: inverse temperature > 0.
        gap: 1 - mu, with mu the largest eigenvalue of V outside the leading plane, on which V is 1.
        angle: between two clusters, in radians, in (0, pi).

    Returns:
        A `ModerateTimes`; ``merging`` is infinite where it is beyond the range of floats.

    Source: phases of arXiv 2509.25040; the times are those of `consensus_flow`, `mode_growth`, `cluster_lifetime`.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(time, 3) for time in theory.moderate_times(beta=16.0, gap=0.5)]
        [2.0, 1.4, 279969.878]
    """
    rate = float(mode_growth(degree=winning_mode(beta), beta=beta, dimension=2))
    return ModerateTimes(1.0 / gap, 1.0 / rate, cluster_lifetime(beta=beta, angle=angle))


@formula(tokens=Whole())
def low_temperature_consensus_probability(tokens: int) -> float:
    r"""Probability 2^{1 - n} that tokens end in consensus and not in two antipodal clusters, at low temperature.

    V is symmetric with one largest eigenvalue > 0: each token goes to the nearer end of that axis
    (`low_temperature_flow`), and both ends together are stable (`bipartite_rates`). Starts are independent, with a law
    that is even.

    Args:
        tokens: n.

    Source: derived; setting of arXiv 2511.11553 (bipartite consensus).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.low_temperature_consensus_probability(3)
        0.25
    """
    return math.ldexp(1.0, 1 - tokens)
