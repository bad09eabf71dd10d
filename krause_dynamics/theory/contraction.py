"""Contraction of one attention layer: bounds of the Dobrushin coefficient from the scores.

tau(A) = max over pairs of rows of their total variation. diam(A X) <= tau(A) diam(X), |lambda_2| <= tau(A),
tau(A B) <= tau(A) tau(B).
"""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Real, Reals
from krause_dynamics.theory._formula import formula


@formula(oscillation=Reals(0.0, math.inf, "[]"))
def softmax_total_variation_bound(oscillation: ArrayLike) -> np.ndarray:
    r"""Largest total variation between softmax rows whose score difference oscillates by D: tanh(D/4).

    TV(softmax(u), softmax(v)) <= tanh(osc(u - v)/4), osc(w) = max w - min w. Equality for u = (1, -1), v = (-1, 1) (D
    = 4).

    Args:
        oscillation: D >= 0, any shape.

    Source: classical (Birkhoff's contraction of positive vectors).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.softmax_total_variation_bound([0.0, 4.0]).round(6).tolist()
        [0.0, 0.761594]
    """
    return np.tanh(oscillation / 4.0)


@formula(scores=Reals(-math.inf, math.inf, "[]", ndim=2))
def score_oscillation(scores: ArrayLike) -> float:
    r"""Largest oscillation of the difference of two rows: max_{i,k} [max_j (s_ij - s_kj) - min_j (s_ij - s_kj)].

    Args:
        scores: shape (n, m), all finite: with a truncated neighbourhood rows may have disjoint support, tau = 1.

    Returns:
        D; infinite when a score is not finite.

    Source: classical (Hilbert's projective metric).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.score_oscillation([[1.0, -1.0], [-1.0, 1.0]])
        4.0
    """
    if not np.all(np.isfinite(scores)):
        return float("inf")
    largest = 0.0
    for row in scores:
        difference = scores - row
        largest = max(largest, float(np.max(difference.max(axis=1) - difference.min(axis=1))))
    return largest


@formula(scores=Reals(-math.inf, math.inf, "[]", ndim=2))
def dobrushin_bound(scores: ArrayLike) -> float:
    r"""Bound of the Dobrushin coefficient of softmax(scores): tanh(D/4), D from `score_oscillation`.

    Args:
        scores: shape (n, m); those that are not finite give the bound 1.

    Source: classical (Dobrushin's coefficient, Birkhoff's contraction).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.dobrushin_bound([[1.0, -1.0], [-1.0, 1.0]]), 6)
        0.761594
    """
    return float(softmax_total_variation_bound(score_oscillation(scores)))


@formula(coupling=POSITIVE, query_diameter=Real(0.0), key_diameter=Real(0.0))
def attention_contraction_bound(*, coupling: float, query_diameter: float, key_diameter: float) -> float:
    r"""Bound of the Dobrushin coefficient before looking at tokens: tanh(a diam(Q) diam(K)/4).

    For scores a <q, k> + (any function of the key) + (any function of the query): D <= |a| diam(Q) diam(K). Softmax: a
    = beta; Gaussian: a = 1/sigma^2; on the unit sphere both diameters are at most 2.

    Args:
        coupling: a > 0; unit: 1/position^2.
        query_diameter: largest distance of two queries; unit: position.
        key_diameter: largest distance of two keys; unit: position.

    Source: derived from `softmax_total_variation_bound`.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.attention_contraction_bound(coupling=1.0, query_diameter=2.0, key_diameter=2.0), 6)
        0.761594
    """
    return float(softmax_total_variation_bound(coupling * query_diameter * key_diameter))
