"""Section 7: long contexts and rank collapse."""

from __future__ import annotations

import math

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def _represented_layer(similarity: float, tokens: float, scaling: float) -> np.ndarray:
    """Outputs (2, 4) of two of n tokens with equal inner products, the n - 2 others being one atom of their mean.

    All others have the same score with each of the two queries, so that only their mean value and their mass count.
    Coordinates: the common part, the two own directions, the mean of the other directions.
    """
    own, common = np.sqrt(1 - similarity), np.sqrt(similarity)
    queries = np.array([[common, own, 0, 0], [common, 0, own, 0]])
    others = np.array([[common, 0, 0, 0]])
    values = np.array([[common, 0, 0, own / np.sqrt(tokens - 2)]])
    return kd.aggregate(
        kd.softmax(scaling * np.log(tokens)),
        queries,
        np.concatenate([queries, others]),
        np.concatenate([queries, values]),
        log_mass=np.array([0.0, 0.0, np.log(tokens - 2)]),
    ).mean


def _cosine(outputs: np.ndarray) -> float:
    first, second = outputs / np.linalg.norm(outputs, axis=-1, keepdims=True)
    return float(first @ second)


@check(
    7,
    source="2510.05554",
    setting="rho = 0.3, n = 200, gamma/gamma_c = 0.5, 1, 1.5",
    tolerance=1e-10,
)
def self_weight() -> Comparison:
    """Self weight around gamma_c = 1/(1 - rho)."""
    n, rho = 200, 0.3
    x = np.linalg.cholesky((1 - rho) * np.eye(n) + rho)
    gammas = theory.critical_scaling(rho) * np.array([0.5, 1.0, 1.5])
    measured = [kd.weights(kd.softmax(g * np.log(n)), x)[5, 5] for g in gammas]
    return compare([theory.self_weight(tokens=n, scaling=g, similarity=rho) for g in gammas], measured)


@check(
    7,
    source="derived; setting of 2510.05554",
    setting="rho = 0.3; n = 100 and 1e12; gamma/gamma_c = 0.5, 1, 1.5",
    tolerance=1e-10,
)
def gram_map() -> Comparison:
    """One-layer Gram map."""
    rho, predicted, measured = 0.3, [], []
    x = np.linalg.cholesky((1 - rho) * np.eye(100) + rho)
    for gamma in theory.critical_scaling(rho) * np.array([0.5, 1.0, 1.5]):
        predicted += [theory.gram_map(similarity=rho, tokens=n, scaling=gamma) for n in (100, 1e12)]
        whole = kd.aggregate(kd.softmax(gamma * np.log(100)), x).mean
        measured += [_cosine(whole[:2]), _cosine(_represented_layer(rho, 1e12, gamma))]
    return compare(predicted, measured)


@check(
    7,
    source="derived",
    setting="rho = 0.4, n = 1e40",
    tolerance=1e-10,
)
def gram_limits() -> Comparison:
    """Limits 1, 4 rho/(1 + 3 rho), rho of the Gram map."""
    rho = 0.4
    gammas = theory.critical_scaling(rho) * np.array([0.5, 1.0, 1.5])
    predicted = [
        theory.gram_map_limit(similarity=rho, scaling=g) for g in (gammas[0], theory.critical_scaling(rho), gammas[2])
    ]
    return compare(predicted, [_cosine(_represented_layer(rho, 1e40, g)) for g in gammas])


@check(
    7,
    source="derived",
    setting="n = 1e24, gamma = 0.25, 0.5, 0.75",
    tolerance=1e-5,
)
def orthogonal_exception() -> Comparison:
    """Orthogonal tokens: 1, 1/2, 0 around gamma = 1/2."""
    gammas = (0.25, 0.5, 0.75)
    return compare(
        [theory.gram_map_limit(similarity=0.0, scaling=g) for g in gammas],
        [_cosine(_represented_layer(0.0, 1e24, g)) for g in gammas],
    )


@check(
    7,
    source="2605.08505",
    setting="uniform keys on S^{d-1}, d = 2, 3; beta of self weight 1/2, n = 250, 1000, 12 draws",
    tolerance=0.15,
    kind="relative",
)
def uniform_keys() -> Comparison:
    """Other critical scale: exponent 2/(d - 1) of n."""
    from scipy.optimize import brentq

    slopes = []
    for d in (2, 3):
        scales = []
        for n in (250, 1000):
            logs = []
            for seed in range(12):
                keys = kd.Sphere().sample(n, d, seed)
                some = keys[:40]

                def excess(log_beta: float, some: np.ndarray = some, keys: np.ndarray = keys) -> float:
                    own = np.diagonal(kd.weights(kd.softmax(np.exp(log_beta)), some, keys))
                    return float(np.median(own) - 0.5)

                logs.append(brentq(excess, 0.0, 25.0, xtol=1e-2))
            scales.append(np.mean(logs))
        slopes.append((scales[1] - scales[0]) / np.log(4.0))
    return compare([np.log(theory.uniform_keys_scaling(tokens=math.e, dimension=d)) for d in (2, 3)], slopes)


@check(
    7,
    source="2103.03404; derived",
    setting="dot product and Gaussian rule, |R| ~ 1e-3; relative remainder",
    tolerance=5e-3,
)
def cubic_collapse() -> Comparison:
    """Cubic collapse R' = R W C."""
    rng = np.random.default_rng(2)
    residual = 1e-3 * rng.normal(size=(40, 3))
    residual -= residual.mean(0)
    offset, errors = rng.normal(size=3), []
    for rule, weight in ((kd.softmax(2.0), 2 * np.eye(3)), (kd.krause(sigma=0.5), 4 * np.eye(3))):
        out = kd.aggregate(rule, offset + residual).mean
        predicted = theory.rank_collapse_step(residual=residual, weight=weight)
        errors.append(np.linalg.norm(out - out.mean(0) - predicted) / np.linalg.norm(predicted))
    return compare([0.0, 0.0], errors)
