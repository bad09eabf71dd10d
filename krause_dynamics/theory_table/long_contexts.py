"""Section 7: long contexts, rank collapse, spectra of attention matrices."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from krause_dynamics import theory
from krause_dynamics.theory_table._row import Comparison, check, compare


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
    return compare([theory.self_weight(n, g, rho) for g in gammas], measured)


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
        predicted += [theory.gram_map(rho, n, gamma) for n in (100, 1e12)]
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
    predicted = [theory.gram_map_limit(rho, g) for g in (gammas[0], theory.critical_scaling(rho), gammas[2])]
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
        [theory.gram_map_limit(0.0, g) for g in gammas], [_cosine(_represented_layer(0.0, 1e24, g)) for g in gammas]
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
    return compare([np.log(theory.uniform_keys_scaling(np.e, d)) for d in (2, 3)], slopes)


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
        predicted = theory.rank_collapse_step(residual, weight)
        errors.append(np.linalg.norm(out - out.mean(0) - predicted) / np.linalg.norm(predicted))
    return compare([0.0, 0.0], errors)


def _coefficient(matrix: np.ndarray) -> float:
    return float(0.5 * np.abs(matrix[:, None] - matrix[None]).sum(-1).max())


@check(
    7,
    source="classical",
    setting="softmax of 20 random clouds; largest excess over the bound",
    tolerance=1e-12,
    kind="at most",
)
def dobrushin() -> Comparison:
    """Dobrushin: diameter, second eigenvalue, products."""
    rng, bounds, measured = np.random.default_rng(0), [], []
    for _ in range(20):
        x = rng.normal(size=(12, 3))
        a, b = (kd.weights(kd.softmax(beta), x) for beta in (0.3, 1.0))
        tau = _coefficient(a)
        scalar = x[:, 0]
        bounds += [tau * np.ptp(scalar), tau, tau * _coefficient(b), theory.dobrushin_bound(0.3 * x @ x.T)]
        measured += [np.ptp(a @ scalar), np.sort(np.abs(np.linalg.eigvals(a)))[-2], _coefficient(a @ b), tau]
    return compare(bounds, measured)


@check(7, source="classical", setting="scores (1, -1), (-1, 1)", tolerance=1e-12)
def dobrushin_equality() -> Comparison:
    """Dobrushin: equality tanh(osc/4)."""
    x = np.array([[1.0], [-1.0]])
    return compare(theory.softmax_total_variation_bound(4.0), _coefficient(kd.weights(kd.softmax(1.0), x)))


@check(
    7,
    source="classical; 2602.11534 app. C.1",
    setting="1-3 groups out of reach, and one that only listens",
    tolerance=0.0,
)
def unit_eigenvalues() -> Comparison:
    """Multiplicity of eigenvalue 1 = closed classes."""
    rng, measured = np.random.default_rng(3), []
    for groups in (1, 2, 3):
        centres = 10.0 * np.arange(groups)
        x = (centres[:, None] + rng.uniform(0, 1, (groups, 8))).reshape(-1, 1)
        rule = kd.krause(sigma=0.4, neighbourhood=kd.Within(2.0))
        spectrum = np.linalg.eigvals(kd.weights(rule, x))
        measured.append(np.sum(np.abs(spectrum - 1) < 1e-9))
    # Two closed classes and a transient group that hears both: still multiplicity two.
    adjacency = np.kron(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]]), np.ones((4, 4)))
    spectrum = np.linalg.eigvals(kd.weights(kd.softmax(1.0, kd.Graph(adjacency)), rng.normal(size=(12, 2))))
    return compare([1, 2, 3, 2], [*measured, np.sum(np.abs(spectrum - 1) < 1e-9)])


@check(
    7,
    source="derived",
    setting="softmax, n = 12",
    tolerance=1e-12,
)
def causal_spectrum() -> Comparison:
    """Causal spectrum = self weights; powers tend to the first token."""
    from scipy.linalg import eigvals

    x = np.random.default_rng(1).normal(size=(12, 3))
    matrix = kd.weights(kd.softmax(0.5, kd.Causal()), x)
    # Small perturbations move eigenvalues of non-normal matrices; solve det(A - a_ii) = 0 instead for each self weight.
    own = np.diagonal(matrix)
    residual = [np.linalg.svd(matrix - a * np.eye(12), compute_uv=False)[-1] for a in own]
    power = np.linalg.matrix_power(matrix, 4000)
    spread = np.max(np.abs(np.sort(eigvals(matrix).real) - np.sort(own)))
    return compare(
        np.zeros(12 + 12),
        np.concatenate([residual, np.abs(power - np.eye(12)[0]).max(1)]),
        f"eigvals differ by {spread:.0e}",
    )


@check(
    7,
    source="exact",
    setting="3 supports; largest difference of weights",
    tolerance=1e-12,
)
def key_bias() -> Comparison:
    """Gaussian rule = dot product with key bias."""
    x, differences = np.random.default_rng(5).normal(size=(30, 4)), []
    bias = -0.5 * np.sum(x**2, axis=1) / 0.8**2
    for support in (kd.Everyone(), kd.Causal(), kd.Within(2.0)):
        gaussian = kd.weights(kd.krause(sigma=0.8, neighbourhood=support), x)
        differences.append(np.abs(gaussian - kd.weights(kd.softmax(0.8**-2, support), x, log_mass=bias)).max())
    return compare(np.zeros(3), differences)
