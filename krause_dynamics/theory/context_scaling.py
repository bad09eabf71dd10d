"""Long contexts: how fast the inverse temperature has to grow with the number of tokens, and rank collapse.

With all pairwise inner products equal to rho and beta = gamma log n, attention changes from uniform to self-attending
at gamma_c = 1/(1 - rho) (arXiv 2510.05554).
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Real, Reals, Whole, within
from krause_dynamics.theory._angles import SINGLE
from krause_dynamics.theory._formula import formula


@formula(similarity=Real(-1.0, 1.0))
def critical_scaling(similarity: float) -> float:
    r"""gamma_c = 1/(1 - rho): the self weight tends to 0, 1/2, 1 below, at, above it as n grows, beta = gamma log n.

    The collapse of angles in one layer has the same threshold only for rho > 0; see
    `orthogonal_critical_scaling`.

    Args:
        similarity: common inner product rho of unit vectors, in [-1, 1).

    Source: arXiv 2510.05554.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.critical_scaling(0.3), 6)
        1.428571
    """
    return 1.0 / (1.0 - similarity)


def orthogonal_critical_scaling() -> float:
    r"""1/2: at rho = 0 the inner product after a layer tends to 1, 1/2, 0 below, at, above gamma = 1/2, not 1.

    Source: derived; the exception rho = 0 of arXiv 2510.05554.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.orthogonal_critical_scaling()
        0.5
    """
    return 0.5


@formula(tokens=Real(1.0), scaling=Real(), similarity=Real(-1.0, 1.0, "[]"))
def self_weight(*, tokens: float, scaling: float, similarity: float) -> float:
    r"""Weight of a token on itself: 1/(1 + (n-1) n^{-gamma (1 - rho)}), beta = gamma log n.

    Args:
        tokens: n; floats such as 1e30 are accepted, the formula needs no tokens in memory.
        scaling: gamma.
        similarity: common inner product rho.

    Source: arXiv 2510.05554.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.self_weight(tokens=1000, scaling=1.5, similarity=0.3), 6)
        0.585741
    """
    return 1.0 if tokens == 1.0 else _own_and_others(tokens, scaling, similarity)[0]


def _own_and_others(tokens: float, scaling: float, similarity: float) -> tuple[float, float]:
    """Weight on oneself and on all others; in logarithms, as n^... may be no float, and each is small without loss."""
    log_others = np.log(tokens - 1.0) - scaling * (1.0 - similarity) * np.log(tokens)
    return float(np.exp(-np.logaddexp(0.0, log_others))), float(np.exp(-np.logaddexp(0.0, -log_others)))


@formula(similarity=Real(-1.0, 1.0, "()"), tokens=Real(2.0), scaling=Real())
def gram_map(*, similarity: float, tokens: float, scaling: float) -> float:
    r"""Inner product (cosine) of two outputs of one attention layer without residual, equal inner products rho.

    rho' = (1 + (n-1) rho - s (1-rho)) / (1 + (n-1) rho + (n-1) s (1-rho)),   s = (p - q)^2,

    p the self weight, q = (1-p)/(n-1) the weight of each other. Limits n -> infinity: 1, 4 rho/(1 + 3 rho), rho below,
    at, above gamma_c, for rho > 0.

    Args:
        similarity: rho in (-1/(n-1), 1).
        tokens: n >= 2, may be a float.
        scaling: gamma of beta = gamma log n.

    Source: derived, setting of arXiv 2510.05554.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.gram_map(similarity=0.3, tokens=100, scaling=1.0), 6)
        0.920664
    """
    n = tokens
    rho = within("similarity", similarity, -1.0 / (n - 1.0), 1.0)
    own, others = _own_and_others(n, scaling, rho)
    s, left = (own - others / (n - 1.0)) ** 2, others * n / (n - 1.0)  # p - q = 1 - left
    common = 1.0 + (n - 1.0) * rho
    # common - s (1 - rho) without cancellation: 1 - s = left (2 - left).
    return (left * (2.0 - left) + rho * (n - 1.0 + s)) / (common + (n - 1.0) * s * (1.0 - rho))


@formula(similarity=Real(0.0, 1.0), scaling=Real())
def gram_map_limit(*, similarity: float, scaling: float) -> float:
    r"""Limit of `gram_map` as n grows: 1, 4 rho/(1 + 3 rho), rho (rho > 0); 1, 1/2, 0 around 1/2 at rho = 0.

    Args:
        similarity: common inner product rho in [0, 1).
        scaling: gamma of beta = gamma log n.

    Source: derived; setting of arXiv 2510.05554.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.gram_map_limit(similarity=0.4, scaling=1.0)
        1.0
    """
    rho = similarity
    threshold = critical_scaling(rho) if rho > 0.0 else orthogonal_critical_scaling()
    if np.isclose(scaling, threshold, rtol=1e-12):
        return 4.0 * rho / (1.0 + 3.0 * rho) if rho > 0.0 else 0.5
    return 1.0 if scaling < threshold else rho


@formula(tokens=Real(1.0), dimension=Whole(2))
def uniform_keys_scaling(*, tokens: float, dimension: int) -> float:
    r"""Scale n^{2/(d-1)} of beta at which attention localises for independent keys uniform on S^{d-1}.

    The squared distance to the nearest of n keys is of order n^{-2/(d-1)}. A power of n, not log n: inner products are
    not equal here.

    Args:
        tokens: n >= 1 keys; may be a float.
        dimension: d >= 2, keys on the unit sphere of R^d.

    Source: arXiv 2605.08505.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.uniform_keys_scaling(tokens=1000, dimension=3)
        1000.0
    """
    return float(tokens ** (2.0 / (dimension - 1)))


@formula(residual=Reals(ndim=2), weight=Reals(ndim=2))
def rank_collapse_step(*, residual: np.ndarray, weight: np.ndarray) -> np.ndarray:
    r"""Leading order of one layer of pure attention near rank one: R' = R W C,  C = R^T R/n.

    X = 1 m^T + R with 1^T R = 0 and scores x_i^T W x_j; the output is again rank one up to R' + o(|R|^3), after
    centring of its columns. The Gaussian rule has W = I/sigma^2. Collapse is cubic: |R'| = O(|R|^3).

    Args:
        residual: R, shape (n, d), columns summing to 0.
        weight: W, shape (d, d).

    Raises:
        ValueError: columns of ``residual`` do not sum to zero.

    Source: cubic bound, arXiv 2103.03404; leading term derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> answer = theory.rank_collapse_step(residual=[[0.1, 0.0], [-0.1, 0.0]], weight=[[1.0, 0.0], [0.0, 1.0]])
        >>> answer.round(6).tolist()
        [[0.001, 0.0], [-0.001, 0.0]]
    """
    r, d = residual, residual.shape[1]
    if weight.shape != (d, d):
        raise ValueError(f"weight must be (d, d) = ({d}, {d}) for residual (n, d), got shape {weight.shape}")
    if np.max(np.abs(r.sum(axis=0))) > SINGLE * max(1.0, float(np.abs(r).sum())):
        raise ValueError("residual must have columns that sum to zero; subtract the mean token first")
    return r @ weight @ (r.T @ r) / r.shape[0]
