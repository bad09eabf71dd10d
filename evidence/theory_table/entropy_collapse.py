"""Section 7: attention of Gaussian scores as a random energy model."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def measured_participation(tokens: int, beta: float, draws: int, seed: int = 0) -> float:
    """Mean of sum a^2 over queries that score independent normal keys."""
    keys = np.random.default_rng(seed).standard_normal((draws, tokens, 1))
    weights = kd.weights(kd.softmax(beta * np.sqrt(np.log(tokens))), np.ones((draws, 1, 1)), keys)
    return float(np.mean(np.sum(weights**2, axis=-1)))


@check(
    7,
    source="derived; setting of 2505.24333",
    setting="T = 100, 400; beta = 1, 2, 4; 8000 queries",
    tolerance=0.015,  # four deviations of the mean
)
def participation() -> Comparison:
    """Entropy collapse: participation of Gaussian scores beta sqrt(log T) g at finite T."""
    cases = [(t, b) for t in (100, 400) for b in (1.0, 2.0, 4.0)]
    predicted = [theory.expected_participation(tokens=t, beta=b) for t, b in cases]
    return compare(predicted, [measured_participation(t, b, 8000) for t, b in cases])


@check(
    7,
    source="2505.24333",
    setting="beta = 2, 3, 4; quadrature at T = 1e150, 1e300, extrapolated in 1/log T",
    tolerance=2e-3,
)
def freezing() -> Comparison:
    """Entropy collapse freezes: participation tends to 1 - sqrt 2/beta above beta = sqrt 2."""
    betas = np.array([2.0, 3.0, 4.0])
    near, far = (np.array([theory.expected_participation(tokens=t, beta=b) for b in betas]) for t in (1e150, 1e300))
    return compare(theory.participation_limit(betas), 2.0 * far - near, f"at beta = 2: {far[0]:.4f} at T = 1e300")
