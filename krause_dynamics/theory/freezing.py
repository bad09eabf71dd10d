"""Discrete Hegselmann-Krause in one dimension: freezing times, branch points, stability of two clusters.

Opinions move to the mean of those within the closed radius, all at once. Lengths are in units of the radius.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import LARGEST, POSITIVE, ArrayLike, Real, Reals, Whole
from krause_dynamics.theory._formula import formula

#: Freezing times of the dumbbell start with 3n + 1 agents (n at -1/n, one at each of 0..n, n at n + 1/n).
#: f_1(n) grows at least like n^2: Wedin and Hegarty, arXiv 1406.0769.
DUMBBELL_FREEZING_TIMES = {2: 8, 3: 9, 4: 12}

#: Interval lengths L/R of an equally spaced start, odd n: consensus below the first, three clusters between the two,
#: consensus again above the second. Lorenz 2006; Wedin arXiv 2107.12906. Printed to two digits.
CONSENSUS_BRANCH_POINTS = (5.23, 5.67)

#: Interval length L/R at which the continuous-time models lose consensus, uniform density, odd n -> infinity. Computed
#: with this package (quantiles, n up to 32 001, drifting by 0.005 from n = 2001 on); not from the literature.
CONTINUOUS_BRANCH_POINTS = {"normalised": 4.69, "per_capita": 4.55}

#: Interval length L/R above which consensus is lost for good, as published. Equally spaced starts of 30 001 to
#: 1 000 001 agents split already between 6.70 and 6.72 (`phase_diagrams.branch_point(6.69, 6.73)`, notebook 04).
CONSENSUS_LOST = 6.84

#: Radius, on [0, 1], with P(consensus) = 1/2 for N = 1000 independent uniform opinions: (value, half width).
RANDOM_START_THRESHOLD = (0.2125, 0.003)

#: Number of clusters of the discrete map for a uniform density on [0, L], n -> infinity.
UNIFORM_DENSITY_CLUSTERS = {3.0: 1, 7.5: 3, 8.0: 3, 12.0: 5, 16.0: 7}


@formula(agents=Whole(2, 10**100))  # exact: no floats
def equally_spaced_freezing_time(agents: int) -> int:
    r"""Steps until n agents with gaps equal to the radius stop: T(6k + r) = 5k + (1, 1, 1, 2, 5, 6)[r], n >= 2.

    The largest t at which positions at t and t - 1 differ, in exact arithmetic, closed ball. Refines 5n/6 + O(1).

    Args:
        agents: n >= 2.

    Source: Hegarty and Wedin, arXiv 1406.0819; the exact form is computed.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.equally_spaced_freezing_time(36)
        31
    """
    k, r = divmod(agents, 6)
    return 5 * k + (1, 1, 1, 2, 5, 6)[r]


@formula(agents=Whole(2, LARGEST))
def equally_spaced_final_sizes(agents: int) -> list[int]:
    r"""Cluster sizes from gaps equal to the radius: 3, ..., 3, (n mod 6), 3, ..., 3, left to right.

    Every five steps one triple leaves each end, so triples sit symmetrically about the middle group; for n divisible
    by 6 there is no middle group.

    Args:
        agents: n >= 2.

    Source: Hegarty and Wedin, arXiv 1406.0819.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.equally_spaced_final_sizes(14)
        [3, 3, 2, 3, 3]
    """
    k, r = divmod(agents, 6)
    return [3] * k + ([r] if r else []) + [3] * k


@formula(mass_a=POSITIVE, mass_b=POSITIVE)
def two_cluster_stability_distance(*, mass_a: float, mass_b: float) -> float:
    r"""Smallest stable separation of two clusters: 1 + min(W_A, W_B)/max(W_A, W_B), in units of the radius.

    Beyond it an agent of vanishing weight put between the two cannot pull them together.

    Args:
        mass_a: weight W_A > 0 of one cluster, in any unit.
        mass_b: weight W_B > 0 of the other, in the same unit.

    Source: Blondel, Hendrickx and Tsitsiklis 2009, arXiv 0807.2028.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.two_cluster_stability_distance(mass_a=3.0, mass_b=2.0), 6)
        1.666667
    """
    return 1.0 + min(mass_a, mass_b) / max(mass_a, mass_b)


@formula(times=Reals(), start=Real(0.0))
def full_range_variance(*, times: ArrayLike, start: float) -> np.ndarray:
    r"""Var(t) = Var(0) e^{-2t} when the radius exceeds the diameter (continuous time, normalised or per capita).

    Both forms agree there, as everyone hears everyone; in discrete time consensus is reached in one step.

    Args:
        times: t, any shape.
        start: Var(0) >= 0; unit: position^2.

    Source: exact; everybody moves towards the mean at rate 1.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.full_range_variance(times=[0.0, 1.0], start=0.5).round(6).tolist()
        [0.5, 0.067668]
    """
    return start * np.exp(-2.0 * times)


@formula(radius=POSITIVE, density=POSITIVE)
def edge_speed(radius: float, *, density: float = 1.0) -> float:
    r"""Initial speed of the edge of a uniform density, un-normalised: rho0 R^2/2.

    Args:
        radius: confidence radius R; unit: position.
        density: rho0, mass per unit of position.

    Source: derived: the integral of z over (0, R).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.edge_speed(1.0)
        0.5
    """
    return density * radius**2 / 2.0


@formula(radius=POSITIVE)
def edge_jump(radius: float) -> float:
    r"""First move of the edge in the discrete map: R/2, the mean of a one-sided neighbourhood.

    Args:
        radius: confidence radius R; unit: position.

    Source: derived: the mean of (0, R).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.edge_jump(1.0)
        0.5
    """
    return radius / 2.0


@formula(position=Reals(), radius=POSITIVE)
def density_after_one_step(position: ArrayLike, *, radius: float = 1.0) -> np.ndarray:
    r"""Density of a half-line [0, inf) of density 1 after one discrete step: 0, then 2 on (R/2, R), then 1.

    x < R moves to (x + R)/2, so [0, R] is squeezed into [R/2, R]; x >= R stays.

    Args:
        position: distance from the original edge, any shape; unit: position.
        radius: confidence radius R; unit: position.

    Source: derived: the slope of (x + R)/2.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.density_after_one_step([0.2, 0.7, 1.5]).round(6).tolist()
        [0.0, 2.0, 1.0]
    """
    x = position / radius
    return np.where(x < 0.5, 0.0, np.where(x < 1.0, 2.0, 1.0))
