"""How far inner products under random values stray from the simplex closure: linear noise about it, of order d^{-1/2}.

The inner products G_ij of n tokens obey dG = F(G) dt + d^{-1/2} dM + O(1/d) in the time of `kd.matrices.gaussian`.
From equiangular tokens the deviation from the closure is Gaussian to leading order, with

    dC/dt = J C + C J^T + Q,    C = d Cov(G),   J the derivative of F,   Q the covariance of M,

all three of them in the algebra of pairs that share two, one or no token (the Johnson scheme), so that three equations
for its three eigenspaces are left: the mean of all pairs, the means of the pairs of one token, the rest.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Real, Whole, within
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory._quadrature import at_times
from krause_dynamics.theory.random_values import heard_by_equiangular

STEP = 1e-30  # of complex differentiation: exact to rounding


@formula(time=Real(0.0), start=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2))
def random_value_deviation(*, time: float, start: float, beta: float, tokens: int) -> float:
    r"""Root mean square deviation of a pair from the simplex closure, times sqrt(d), as d grows.

    The constant of the order d^{-1/2}, for which arXiv 2604.01978 has the bound e^{C T} sqrt(8 T log(2 n^2/delta)) with
    a C that is not given.

    Args:
        time: T >= 0, in the time of `kd.matrices.gaussian`, whose entries have variance 1/d.
        start: common inner product rho(0) in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: n.

    Returns:
        sqrt(d E (G_12 - rho)^2) with rho of `random_value_closure`; exact up to O(1/sqrt d).

    Source: derived (linear noise approximation); setting of arXiv 2604.01978.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.random_value_deviation(time=0.25, start=0.3, beta=1.0, tokens=4), 6)
        0.389661
    """
    n = tokens
    within("start", start, -1.0 / (n - 1), 1.0)
    # Eigenvalues of "the same pair", "sharing a token", "disjoint" on the three eigenspaces, and their dimensions.
    spaces = np.array([[1.0, 2.0 * (n - 2), 0.5 * (n - 2) * (n - 3)], [1.0, n - 4.0, 3.0 - n], [1.0, -2.0, 1.0]])
    pairs = 0.5 * n * (n - 1)
    sizes = np.array([1.0, n - 1.0 if n > 2 else 0.0, 0.5 * n * (n - 3) if n > 2 else 0.0])

    def rate(_: float, state: np.ndarray) -> np.ndarray:
        rho = float(state[0])
        closed, p, c = heard_by_equiangular(rho, beta, n)
        growth = spaces @ _drift_by_pairs(rho, beta, n)
        noise = spaces @ _noise_by_pairs(rho, p, c)
        return np.array([(1.0 - rho) * closed, *(2.0 * growth * state[1:] + noise)])

    end = at_times(rate, np.array([time]), [start, 0.0, 0.0, 0.0], atol=1e-14)[:, -1]
    return float(np.sqrt(max(sizes @ end[1:] / pairs, 0.0)))  # at consensus below what the solver resolves


def _drift_by_pairs(rho: float, beta: float, n: int) -> np.ndarray:
    """Derivative of F_12 = <A_1, A_2> - G_12 (|A_1|^2 + |A_2|^2)/2 by G_12, G_13 and G_34, (3,)."""
    named = min(n, 4)
    count = np.ones(named + (n > named))  # of tokens alike: four with names, and all others
    count[named:] = n - named
    slopes = []
    for k, m in ((0, 1), (0, 2), (2, 3)):
        if max(k, m) >= n:
            slopes.append(0.0)
            continue
        moved = np.zeros((2, len(count)), complex)
        for row in (0, 1):
            if row in (k, m):
                moved[row, m if row == k else k] = 1j * STEP
        scores = beta * (rho + (1.0 - rho) * np.eye(2, len(count)) + moved)
        weights = np.exp(scores - scores.real.max())
        weights = weights / (weights @ count)[:, None]
        heard = rho + (1.0 - rho) * (weights * count) @ weights.T
        heard = heard + 1j * STEP * (np.outer(weights[:, k], weights[:, m]) + np.outer(weights[:, m], weights[:, k]))
        drift = heard[0, 1] - 0.5 * (rho + moved[0, 1]) * (heard[0, 0] + heard[1, 1])
        slopes.append(float(drift.imag) / STEP)
    return np.array(slopes)


def _noise_by_pairs(rho: float, p: float, c: float) -> np.ndarray:
    """Covariance of the noises of G_12 with those of G_12, G_13 and G_34, (3,); p = |A_1|^2, c = <A_1, A_2>."""
    rest = 1.0 - rho
    same = 2.0 * (1.0 - rho**2) * (p - c * rho)
    sharing = rest * rho * (p - 2.0 * c * rho) + c * (1.0 - 2.0 * rho**2 + rho**3)
    return np.array([same, sharing, 4.0 * c * rho * rest**2])
