"""Attention with a perceptron on the circle: how strong the perceptron must be to hold clusters apart."""

from __future__ import annotations

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
