"""Sections 2, 7 and 11: energies of several heads, spectra of random attention, synchronisation by common noise."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.random_values import STEP, measured_exponent, one_layer
from krause_dynamics import theory

ALONE = kd.Interaction(kd.Flat(), kd.Window(1))


@check(
    11,
    source="2604.01978; derived",
    setting="u = 0.5, -0.3; d = 2, 8; drift and variance of u over 10 000 layers of time 1e-4",
    tolerance=0.17,  # five standard errors of a variance of 1.7
)
def common_noise() -> Comparison:
    """Tokens that hear only themselves: du = -u (1 - u^2) dt + sqrt 2 (1 - u^2) dB in every dimension."""
    predicted, measured = [], []
    for d in (2, 8):
        for u in (0.5, -0.3):
            x = np.zeros((2, d))
            x[0, 0], x[1, :2] = 1.0, (u, np.sqrt(1.0 - u * u))
            y = one_layer(x, ALONE, 5000, 7)
            change = np.sum(y[:, 0] * y[:, 1], axis=-1) - u
            measured += [change.mean() / STEP, change.var() / STEP]
            predicted += [float(moment) for moment in theory.common_noise_moments(u)]
    return compare(predicted, measured)


@check(
    11,
    source="2604.26898; derived",
    setting="d = 2, 3, 8; 20 000 layers of time 1e-4 from 1 - u = 1e-6",
    tolerance=0.15,
)
def synchronisation_by_noise() -> Comparison:
    """Synchronisation by common noise: without attention 1 - u falls with exponent -2 in every dimension."""
    return compare([theory.common_noise_exponent()] * 3, [measured_exponent(ALONE, d, 1.0) for d in (2, 3, 8)])


@check(
    7,
    source="2410.07799; Bai & Yin",
    setting="n = 300, 1200; scores of deviation 0.3, 0.6; second singular value of the weights",
    tolerance=0.06,
    kind="relative",
)
def random_attention() -> Comparison:
    """Width collapse: the bulk of random attention is 2 sqrt((e^{s^2} - 1)/n) wide, one direction stands at 1."""
    predicted, measured = [], []
    for n in (300, 1200):
        for s in (0.3, 0.6):
            scores = s * np.random.default_rng(9).standard_normal((n, n))
            weights = kd.weights(kd.Interaction(kd.Flat(), pair_bias=scores), np.zeros((n, 1)))
            first, second = np.linalg.svd(weights, compute_uv=False)[:2] if n < 1000 else _largest_two(weights)
            measured += [first, second]
            predicted += [1.0, theory.random_attention_bulk(tokens=n, deviation=s)]
    return compare(predicted, measured)


def _largest_two(matrix: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(len(matrix))
    return np.sort(svds(matrix, k=2, v0=start, return_singular_vectors=False))[::-1]


@check(
    2,
    source="2605.18870; 2312.10794 sec. 3.3 with heads; derived",
    setting="USA, 3 heads, Q_h = K_h, V_h = Q_h^T K_h, n = 12, d = 4, t = 1; gain against the integrated dissipation",
    tolerance=1e-5,
    kind="relative",
)
def multi_head_energy() -> Comparison:
    """Multi-head gradient flow: the sum of the heads' energies grows by the integral of sum |x_i'|^2/n."""
    rng = np.random.default_rng(3)
    query = 0.3 * rng.standard_normal((3, 4, 4))
    value = np.stack([kd.matrices.gradient_flow(q, q) for q in query])
    dynamics = kd.Dynamics(kd.softmax(1.0, normalised=False), kd.Sphere(), query=query, key=query, value=value)
    run = kd.simulate(dynamics, kd.Sphere().sample(12, 4, 5), 1.0, dt=0.005)

    def energy(x: np.ndarray) -> float:
        projected = np.einsum("hab,nb->hna", query, x)
        return float(np.exp(projected @ projected.mT).sum() / (2.0 * 12**2))

    speed = np.array([np.sum(dynamics.drift(0.0, x) ** 2) for x in run.positions]) / 12.0
    gains = np.diff([energy(x) for x in run.positions[::20]])
    work = np.array([_simpson(speed[i : i + 21], 0.005) for i in range(0, 200, 20)])
    return compare(work, gains, f"{np.count_nonzero(gains < 0)} of {len(gains)} intervals fall")


def _simpson(values: np.ndarray, step: float) -> float:
    return float(step / 3.0 * (values[0] + values[-1] + 4.0 * values[1::2].sum() + 2.0 * values[2:-1:2].sum()))
