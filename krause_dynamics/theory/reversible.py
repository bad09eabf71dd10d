"""Attention with symmetric scores is a reversible Markov chain: its stationary law, and a floor under its weights."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Real, Reals, Whole
from krause_dynamics.theory._angles import SINGLE
from krause_dynamics.theory._formula import formula


@formula(scores=Reals(ndim=2))
def reversible_law(scores: np.ndarray) -> np.ndarray:
    r"""Stationary law of softmax(s) with s_ij = s_ji: pi_i = Z_i/sum_k Z_k, Z_i = sum_j e^{s_ij}.

    pi_i a_ij = e^{s_ij}/sum Z is symmetric (detailed balance), so that all eigenvalues of the weights are real. Equal
    queries and keys have symmetric scores, and keep them when rotary positions turn both.

    Args:
        scores: s, symmetric, shape (n, n), finite.

    Returns:
        pi, shape (n,), sums to 1.

    Raises:
        ValueError: scores that are not symmetric.

    Source: classical; reversible kernel of arXiv 2607.24502 (rotary positions).

    Examples:
        >>> import numpy as np
        >>> from krause_dynamics import theory
        >>> theory.reversible_law([[0.0, np.log(2.0)], [np.log(2.0), 0.0]]).tolist()
        [0.5, 0.5]
    """
    n = len(scores)
    if scores.shape != (n, n) or np.max(np.abs(scores - scores.T)) > SINGLE * max(1.0, float(np.max(np.abs(scores)))):
        raise ValueError(f"scores must be symmetric (n, n), got shape {scores.shape}; equal queries and keys are")
    log_sums = np.logaddexp.reduce(scores, axis=1)
    law = np.exp(log_sums - log_sums.max())
    return law / law.sum()


@formula(tokens=Whole(), beta=Real(0.0))
def weight_floor(*, tokens: int, beta: float) -> float:
    r"""Least weight of softmax attention between unit vectors: 1/(1 + (n - 1) e^{2 b}), whatever turns them.

    Scores b <q_i, k_j> lie in [-b, b]. Doeblin: every eigenvalue but 1 has |lambda| <= 1 - n times the floor.

    Args:
        tokens: n.
        beta: inverse temperature b >= 0.

    Source: derived; floor of arXiv 2607.24502. Equality: one key opposite to the query and all others at it.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.weight_floor(tokens=10, beta=1.0), 6)
        0.014814
    """
    if tokens == 1:
        return 1.0
    return float(np.exp(-np.logaddexp(0.0, np.log(tokens - 1.0) + 2.0 * beta)))
