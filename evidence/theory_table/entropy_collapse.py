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
    setting="beta = 2, 3, 4; quadrature at T = 1e150, 1e300, extrapolated in 1/log T, against the limit",
    tolerance=2e-3,
)
def freezing() -> Comparison:
    """Entropy collapse freezes: participation tends to 1 - sqrt 2/beta above beta = sqrt 2."""
    betas = np.array([2.0, 3.0, 4.0])
    near, far = (np.array([theory.expected_participation(tokens=t, beta=b) for b in betas]) for t in (1e150, 1e300))
    return compare(theory.participation_limit(betas), 2.0 * far - near, f"at beta = 2: {far[0]:.4f} at T = 1e300")


@check(
    7,
    source="2505.24333; Derrida 1981, Ruelle 1987 (largest scores as a Poisson process)",
    setting="beta = 2, 3, 4; 500 largest scores -(beta/sqrt 2) log t_k, t_k Poisson times, and one key for all others",
    tolerance=0.01,  # three deviations of the mean
)
def frozen_scores() -> Comparison:
    """Entropy collapse at T = infinity: softmax over the largest Gaussian scores has participation 1 - sqrt 2/beta."""
    betas, measured = np.array([2.0, 3.0, 4.0]), []
    times = np.cumsum(np.random.default_rng(19).exponential(size=(10_000, 500)), axis=1)
    for beta in betas:
        # The keys beyond the last time T count together, int_T t^{-b} dt = T^{-b} T/(b - 1), each for nothing.
        power, scores = beta / np.sqrt(2.0), -np.log(times[:, [*range(500), -1]])
        log_mass = np.zeros_like(scores)
        log_mass[:, -1] = np.log(times[:, -1] / (power - 1.0))
        weights = kd.weights(kd.softmax(power), np.ones((10_000, 1, 1)), scores[..., None], log_mass=log_mass)
        measured.append(float(np.mean(np.sum(weights[..., :-1] ** 2, axis=-1))))
    return compare(theory.participation_limit(betas), measured)
