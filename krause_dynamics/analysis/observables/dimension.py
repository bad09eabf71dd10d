"""Intrinsic dimension of a cloud."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import Entries, Real, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.analysis.observables._state import weighted

ROWS = 256  # of distances in memory at once


@reads(points=Entries((1, 2)), discarded=Real(0.0, 1.0))
def two_nn(points: Array, *, log_mass: Array | None = None, discarded: float = 0.1) -> float:
    """Intrinsic dimension from the ratio of the two nearest distances of each point (TwoNN).

    In d dimensions with locally constant density ``mu = r_2 / r_1`` has ``P(mu <= t) = 1 - t^-d``; d is the slope
    through the origin of ``-ln(1 - F)`` over ``ln mu``, F = i / n from all n points, the largest ratios left out of the
    *fit* (leaving them out of F, or of a mean of logarithms, biases d by a factor of about 1.3).

    Args:
        points: (n, d), one state; pool several sequences, a few hundred points are needed.
        log_mass: (n,); here only -inf matters.
        discarded: Share of the largest ratios left out of the fit.

    Returns:
        The dimension; NaN with fewer than 3 different points. Equal points count once (repeated tokens).

    Raises:
        ValueError: A batch of states, or a share outside [0, 1).

    Source: Facco et al., Scientific Reports 7 (2017), 12140.
    """
    from scipy.spatial.distance import cdist

    if not 0 <= discarded < 1:
        raise ValueError(f"discarded must be in [0, 1), got {discarded}")
    state = weighted(points, log_mass)
    if points.ndim != 2:
        raise ValueError(f"points must be one state of shape (n, d), got {tuple(points.shape)}; pool with reshape")
    different = np.unique(to_numpy(state.points)[to_numpy(state.present)].astype(np.float64), axis=0)
    n = len(different)
    if n < 3:
        return math.nan
    nearest = np.concatenate(
        [np.partition(cdist(different[i : i + ROWS], different), 2, axis=1)[:, 1:3] for i in range(0, n, ROWS)]
    )
    ratios = np.sort(np.log(nearest[:, 1] / nearest[:, 0]))
    kept = max(1, min(n - 1, math.floor(n * (1 - discarded))))
    x, y = ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    square = float(x @ x)
    return float(x @ y) / square if square > 0 else math.inf
