"""Bipartite consensus: tokens at v and at -v, an eigenvector of the value matrix, and when both ends together hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import ArrayLike, Real, Reals
from krause_dynamics.theory._formula import formula


class BipartiteRates(NamedTuple):
    """Eigenvalues of SA at a share m of the tokens at v and 1 - m at -v; stable where all are negative.

    Attributes:
        first: Of tokens at v against one another, in every direction.
        second: Of tokens at -v against one another.
        ends: Of the two ends as wholes, shape (k, 2): a pair for each other eigenvalue of V, rising.
    """

    first: float
    second: float
    ends: np.ndarray


@formula(eigenvalue=Real(), others=Reals(ndim=1), beta=Real(), mass=Real(0.0, 1.0, "()"))
def bipartite_rates(*, eigenvalue: float, others: ArrayLike, beta: float, mass: float = 0.5) -> BipartiteRates:
    r"""Rates of SA with a value matrix at bipartite consensus along an eigenvector v, V v = lambda v.

    Tokens at v give their end the weight a = m e^b/(m e^b + (1-m) e^{-b}), those at -v theirs c, likewise with 1 - m:

        inside an end   -lambda (2a - 1),  -lambda (2c - 1)
        the two ends    eigenvalues of [[mu a - lambda (2a-1), mu (1-a)], [mu (1-c), mu c - lambda (2c-1)]]

    for every other eigenvalue mu of V. Equal halves: mu - lambda tanh b and (mu - lambda) tanh b, so that with
    b, lambda > 0 it is stable, beside consensus, iff **mu < lambda tanh b** for all mu: two attractors.
    With V = I (mu = lambda) the two ends always meet, as `antipodal_rates` says of USA.

    Args:
        eigenvalue: lambda, of the axis v on which the tokens stand.
        others: the other eigenvalues mu of V, shape (k,), real.
        beta: inverse temperature b, any sign.
        mass: m, share of the tokens at v, in (0, 1).

    Returns:
        A `BipartiteRates`, per unit of time of SA.

    Source: bipartite consensus along eigenvectors, arXiv 2511.11553; rates derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.bipartite_rates(eigenvalue=1.0, others=[0.5], beta=1.0).ends.round(6).tolist()
        [[-0.380797, -0.261594]]
    """
    first, second = np.tanh(beta + 0.5 * np.log(mass / (1.0 - mass)) * np.array([1.0, -1.0]))
    own, other = 0.5 * (1.0 + first), 0.5 * (1.0 + second)
    # Trace and determinant of the two by two matrix; its off-diagonal product is not negative, so that both are real.
    one, two = others * own - eigenvalue * first, others * other - eigenvalue * second
    half = np.sqrt(0.25 * (one - two) ** 2 + others**2 * (1.0 - own) * (1.0 - other))
    middle = 0.5 * (one + two)
    return BipartiteRates(
        float(-eigenvalue * first), float(-eigenvalue * second), np.stack([middle - half, middle + half], axis=-1)
    )
