"""Sections 3, 7, 9 and 11: several heads, symmetric scores, one massive token, products of random matrices."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.recent_results import rotary
from krause_dynamics import theory


def blocks(heads: int, dimension: int) -> np.ndarray:
    """Projections on equal blocks of dimensions, (heads, d, d)."""
    owner = np.repeat(np.arange(heads), dimension // heads)
    return np.stack([np.diag((owner == h).astype(float)) for h in range(heads)])


@check(
    3,
    source="derived; heads of 2605.18870, 2605.04279",
    setting="3 equal tokens, d = 8, H = 1, 2, 4 blocks, beta = 1.3 and 3, SA and USA; rates of their differences",
    tolerance=1e-6,
)
def head_count() -> Comparison:
    """Heads that share the dimensions: SA contracts at 1; under USA consensus of H heads is lost at beta = H."""
    predicted, measured = [], []
    for normalised in (True, False):
        for heads, beta in ((1, 1.3), (2, 1.3), (4, 1.3), (2, 3.0)):
            part = blocks(heads, 8)
            rule = kd.softmax(beta, normalised=normalised)
            dynamics = kd.Dynamics(rule, kd.Sphere(), query=part, key=part, value=part)
            rates = theory.multi_head_rates(heads=heads, beta=beta, normalised=normalised)
            predicted.append(rates.across)
            measured.append(_falling(dynamics, ACROSS))
            if heads > 1:
                predicted.append(rates.between)
                measured.append(_falling(dynamics, BETWEEN))
    return compare(predicted, measured)


ACROSS = np.tile([0.5, -0.5], 4) * 2.0**-0.5  # leaves the length of each block of two or more dimensions
BETWEEN = np.repeat([0.5, -0.5], 4) * 2.0**-0.5  # from the heads of one half to those of the other


def _falling(dynamics: kd.Dynamics, direction: np.ndarray) -> float:
    """Rate at which two of three equal tokens, moved oppositely along a tangent direction, approach each other."""
    eta, x = 1e-5, np.full((3, 8), 8.0**-0.5)
    moved = x + eta * np.array([1.0, -1.0, 0.0])[:, None] * direction
    v = dynamics.drift(0.0, kd.Sphere().retract(moved))
    return float(-(v[0] - v[1]) @ direction / (2.0 * eta))


def _turned_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights and scores of 12 tokens with rotary positions, and the tokens, all in a half circle."""
    dynamics = rotary(12, 5, 1.5)
    x = kd.Circle().from_angles(np.random.default_rng(8).uniform(-1.4, 1.4, 12))
    turned = dynamics.read(x)[:, :2]
    return kd.weights(kd.softmax(1.5), turned, turned), 1.5 * turned @ turned.T, x


@check(
    7,
    source="classical; kernel of 2607.24502",
    setting="12 tokens with rotary positions, beta = 1.5; left eigenvector of the weights",
    tolerance=1e-12,
)
def reversible_kernel() -> Comparison:
    """Rotary positions leave attention reversible: its stationary law is that of the row sums."""
    weights, scores, _ = _turned_weights()
    values, vectors = np.linalg.eig(weights.T)
    law = vectors[:, np.argmax(values.real)].real
    return compare([*theory.reversible_law(scores), 0.0], [*(law / law.sum()), np.abs(values.imag).max()])


@check(
    7,
    source="floor of 2607.24502; Doeblin",
    setting="as above, and one key opposite to n - 1 others, n = 5, 40; floor over least weight, second eigenvalue",
    tolerance=1e-12,
    kind="at most",
)
def floor_of_weights() -> Comparison:
    """No weight of unit vectors is below 1/(1 + (n - 1) e^{2 beta}); the second eigenvalue is below 1 - n of it."""
    weights, *_ = _turned_weights()
    floor = theory.weight_floor(tokens=12, beta=1.5)
    second = np.sort(np.abs(np.linalg.eigvals(weights)))[-2]
    bound, found = [weights.min(), 1.0 - 12 * floor], [floor, second]
    for n in (5, 40):
        keys = np.array([[-1.0, 0.0]] + [[1.0, 0.0]] * (n - 1))
        least = kd.weights(kd.softmax(2.0), keys[1:2], keys).min()
        bound += [least, theory.weight_floor(tokens=n, beta=2.0)]
        found += [theory.weight_floor(tokens=n, beta=2.0), least]  # equal: both ways
    return compare(bound, found)


@check(
    9,
    source="2607.24502; derived",
    setting="12 tokens with rotary positions in a half circle, t = 10; fall of the least height",
    tolerance=1e-12,
    kind="at most",
)
def hemisphere() -> Comparison:
    """RoPE: tokens in an open hemisphere stay there, and their least height over its equator never falls."""
    run = kd.simulate(rotary(12, 5, 1.5), _turned_weights()[2], 10.0, dt=0.05)
    heights = run.positions[..., 0].min(axis=1)
    return compare(heights[1:], heights[:-1], f"from {heights[0]:.2f} to {heights[-1]:.4f}")


@check(
    7,
    source="derived; massive activations of 2510.06477",
    setting="64 tokens, d = 32, one 1 to 100 times as long; share of the first singular value, and entropy",
    tolerance=1e-12,
    kind="at most",
)
def massive_token() -> Comparison:
    """One massive token bounds the first singular value from below and the entropy of the spectrum from above."""
    rng = np.random.default_rng(9)
    bound, found = [], []
    for length in (1.0, 10.0, 100.0):
        x = rng.standard_normal((64, 32))
        x[0] *= length
        direction = x[0] / np.linalg.norm(x[0])
        massive, rest = float(x[0] @ x[0]), float(np.sum(x[1:] ** 2))
        along = float(np.sum((x[1:] @ direction) ** 2)) / rest
        share = theory.leading_share_bound(massive=massive, others=rest, alignment=along)
        spectrum = np.linalg.svd(x, compute_uv=False) ** 2
        spectrum /= spectrum.sum()
        bound += [spectrum[0], theory.spectral_entropy_bound(share=share, rank=32)]
        found += [share, float(-np.sum(spectrum * np.log(spectrum)))]
    return compare(bound, found)


@check(
    11,
    source="Newman 1986; 2604.26898",
    setting="d = 3, 6; QR of 20 000 layers of time 1e-3",
    tolerance=0.12,  # five deviations of the mean of log R_kk, of second order in the entries
)
def noise_spectrum() -> Comparison:
    """Products of Gaussian matrices: Lyapunov exponents (d - 2k)/2, by QR."""
    predicted, measured, step = [], [], 1e-3
    for d in (3, 6):
        half = np.sqrt(step) * np.random.default_rng(10).standard_normal((10_000, d, d))
        growth = np.linalg.qr(np.eye(d) + np.concatenate([half, -half]), mode="r")
        measured += list(np.log(np.abs(np.diagonal(growth, axis1=1, axis2=2))).mean(axis=0) / step)
        predicted += list(theory.common_noise_spectrum(d))
    return compare(predicted, measured)
