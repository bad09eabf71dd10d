"""Section 7: contraction and spectra of attention matrices."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


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
