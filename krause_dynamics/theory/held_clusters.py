"""Attention with a perceptron on the circle: how strong the perceptron must be to hold clusters apart."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import Real, Whole
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.clusters_on_circle import regular_cluster_eigenvalues


@formula(clusters=Whole(1, 10_000), beta=Real())
def holding_strength(*, clusters: int, beta: float) -> float:
    r"""Least strength s of a field -s sin(m theta) beside USA at which m equal clusters on the circle are stable.

    theta_i' = (1/n) sum_j f(theta_j - theta_i) - s sin(m theta_i), f(x) = e^{b cos x} sin x. The field moves every
    eigenvalue of `regular_cluster_eigenvalues` down by m s, so that s = max(eigenvalues, 0)/m. Two clusters: e^{-b}/2,
    so that an antipodal pair is held by weights as small as one likes; as long as few clusters share the circle, s is
    exponentially small; it is largest for about 2.9 sqrt(b) clusters.

    Args:
        clusters: m >= 1, at angles 2 pi a/m in radians.
        beta: inverse temperature b, any sign.

    Returns:
        s, in radians per unit of time of USA; 0 where the clusters need no help.

    Source: derived; setting of arXiv 2601.21366 (attention with a perceptron, whose stationary laws are atoms).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.holding_strength(clusters=2, beta=3.0), 6)  # e^{-3}/2
        0.024894
    """
    moving, splitting = regular_cluster_eigenvalues(clusters=clusters, beta=beta)
    return max([0.0, splitting, *map(float, moving)]) / clusters


@formula(clusters=Whole(1, 10_000), beta=Real(), threshold=Real(-1.0, 1.0))
def neuron_holding_strength(*, clusters: int, beta: float, threshold: float = 0.0) -> float:
    r"""Least strength s of a perceptron of m neurons beside USA at which m equal clusters on the circle are stable.

    x_i' = USA + s P_i sum_a max(<w_a, x_i> - c, 0) w_a, a neuron in the direction w_a of each cluster. At a cluster
    this field has slope -s kappa, kappa = sum of cos 2 x_a - c cos x_a over the neurons with cos x_a > c (half of those
    with cos x_a = c, which wake on one side), and s = max(eigenvalues of `regular_cluster_eigenvalues`, 0)/kappa. A
    threshold above cos(2 pi/m) lets every cluster hear its own neuron alone: kappa = 1 - c.

    Args:
        clusters: m >= 1, at angles 2 pi a/m in radians.
        beta: inverse temperature b, any sign.
        threshold: c in [-1, 1), the negative bias of the neurons.

    Returns:
        s, per unit of time of USA; 0 where the clusters need no help, infinite where the neurons do not hold them.

    Source: derived; attention beside a perceptron with ReLU, as in arXiv 2601.21366.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.neuron_holding_strength(clusters=2, beta=3.0, threshold=0.5), 6)  # e^{-3}/(1 - c)
        0.099574
    """
    needed = clusters * holding_strength(clusters=clusters, beta=beta)
    if needed == 0.0:
        return 0.0
    angle = 2.0 * np.pi * np.arange(clusters) / clusters
    above = np.cos(angle) - threshold
    awake = np.where(np.abs(above) < 1e-12, 0.5, above > 0.0)
    slope = float(awake @ (np.cos(2.0 * angle) - threshold * np.cos(angle)))
    return needed / slope if slope > 1e-12 else math.inf
