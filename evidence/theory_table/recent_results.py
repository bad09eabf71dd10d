"""Sections 3, 4 and 9: results that need one drift or one short run each."""

from __future__ import annotations

from typing import Any

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.sphere import mean_cosine
from krause_dynamics import theory


@check(3, source="2601.21366", setting="USA, circle, beta = 1, 4, 9, 16, 25; maximum of the drift", tolerance=1e-6)
def strongest_attraction() -> Comparison:
    """Perceptron and attention: two tokens pull hardest at arccos((sqrt(1 + 4 b^2) - 1)/(2 b))."""
    from scipy.optimize import brentq

    betas = np.array([1.0, 4.0, 9.0, 16.0, 25.0])

    def slope(angle: float, beta: float) -> float:
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle())
        x = kd.Circle().from_angles(np.array([[0.0, angle + e] for e in (1e-4, -1e-4)]))
        v = dynamics.drift(0.0, x)
        speed = x[:, 0, 0] * v[:, 0, 1] - x[:, 0, 1] * v[:, 0, 0]
        return float(speed[0] - speed[1]) / np.abs(speed).max()

    measured = [brentq(slope, 0.05, 1.5, args=(beta,), xtol=1e-9) for beta in betas]
    return compare(theory.strongest_attraction_angle(betas), measured)


def _deviation(dimension: int, normalised: bool) -> float:
    """Root mean square over pairs of the largest deviation over time from the equiangular curve, four draws."""
    times = [0.5, 1.0, 1.5, 2.0, 3.0]
    curve = theory.equiangular_similarity(times=times, start=0.0, beta=1.0, tokens=16, normalised=normalised)
    dynamics = kd.Dynamics(kd.softmax(1.0, normalised=normalised), kd.Sphere())
    x0 = np.stack([kd.Sphere().sample(16, dimension, seed) for seed in range(4)])
    x = kd.simulate(dynamics, x0, times[-1], dt=0.25, save_at=times).positions[1:]
    pairs = (x @ x.mT)[..., *np.triu_indices(16, 1)]
    return float(np.sqrt(np.mean(np.max(np.abs(pairs - curve[:, None, None]), axis=0) ** 2)))


@check(
    3,
    source="2312.10794 sec. 6.2; derived",
    setting="beta = 1, n = 16, d = 128, 2048; SA, USA; slope in log d of the log of the largest deviation over time",
    tolerance=0.1,
)
def high_dimension_rate() -> Comparison:
    """Random tokens in high dimension: a pair stays within d^{-1/2} of the equiangular curve for all times."""
    slopes = [np.log(_deviation(2048, n) / _deviation(128, n)) / np.log(16.0) for n in (True, False)]
    return compare([-0.5, -0.5], slopes, f"the proved bound is void below d = (2 n^2)^64 = 10^{64 * np.log10(512):.0f}")


@check(
    4,
    source="2609.28448; derived",
    setting="circle, V = -I, beta = 3, degrees 1..4, SA and USA; drift of 256 weighted tokens",
    tolerance=1e-6,
)
def repulsive_decay() -> Comparison:
    """Repulsive attention (V = -I): the uniform law attracts, degree l decays at the rate at which V = I grows it."""
    angle = 2 * np.pi * np.arange(256) / 256
    x = kd.Circle().from_angles(angle)
    predicted, measured = [], []
    for normalised in (True, False):
        dynamics = kd.Dynamics(kd.softmax(3.0, normalised=normalised), kd.Circle(), value=-np.eye(2))
        for degree in range(1, 5):
            wave = 1e-6 * np.cos(degree * angle)
            amplitude = []
            for sign in (1.0, -1.0):
                v = dynamics.drift(0.0, x, np.log((1.0 + sign * wave) / 256))
                amplitude.append(2 * np.mean((x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) * np.sin(degree * angle)))
            measured.append(-degree * (amplitude[0] - amplitude[1]) / 2e-6)
            predicted.append(-float(theory.mode_growth(degree=degree, beta=3.0, dimension=2, normalised=normalised)))
    return compare(predicted, measured)


@check(4, source="2609.28448", setting="d = 3, V = -I, beta = 2, n = 60, t = 200; mean cosine", tolerance=2e-3)
def repulsive_uniform() -> Comparison:
    """Repulsive attention spreads tokens over the sphere: their mean vanishes, mean cosine -1/(n - 1)."""
    x0 = kd.Sphere().retract(np.random.default_rng(0).standard_normal((60, 3)) + [2.0, 0.0, 0.0])
    run = kd.simulate(kd.Dynamics(kd.softmax(2.0), kd.Sphere(), value=-np.eye(3)), x0, 200.0, dt=0.2, save_every=1000)
    return compare(-1.0 / 59.0, float(mean_cosine(run.final)))


@check(
    3,
    source="2511.11553; classical",
    setting="five equal tokens, d = 4, V symmetric, skew, general; t = 0.5, 2, 4",
    tolerance=1e-7,
)
def oja_flow() -> Comparison:
    """A consensus moves by Oja's flow of V: e^{V t} x/|e^{V t} x|."""
    square = np.random.default_rng(2).standard_normal((4, 4))
    start, times = np.array([0.5, 0.5, -0.5, 0.5]), [0.5, 2.0, 4.0]
    predicted, measured = [], []
    for value in (square + square.T, square - square.T, square):
        dynamics = kd.Dynamics(kd.softmax(3.0), kd.Sphere(), value=value)
        run = kd.simulate(dynamics, np.tile(start, (5, 1)), 4.0, dt=0.005, save_at=times)
        measured.append(run.positions[1:, 0])
        predicted.append(theory.consensus_flow(times=times, start=start, value=value))
    return compare(predicted, measured)


def rotary(tokens: int, frequency: int, beta: float) -> kd.Dynamics:
    """SA on the circle, queries and keys turned by their places: the rule reads (turned, plain) coordinates."""
    phase = 2.0 * np.pi * frequency * np.arange(tokens) / tokens
    cos, sin = np.cos(phase), np.sin(phase)

    def turned_beside(x: Any) -> Any:
        first, second = x[..., 0], x[..., 1]
        return np.stack([cos * first + sin * second, cos * second - sin * first, first, second], axis=-1)

    turned, plain = np.eye(2, 4), np.eye(2, 4, k=2)
    return kd.Dynamics(kd.softmax(beta), kd.Circle(), query=turned, key=turned, value=plain, read=turned_beside)


def _speeds(dynamics: kd.Dynamics, angle: np.ndarray) -> np.ndarray:
    x = kd.Circle().from_angles(angle)
    v = dynamics.drift(0.0, x)
    return x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]


RINGS = ((24, 0, 5), (24, 2, 5), (24, 5, 5), (30, 3, 1))  # tokens, twist, frequency


@check(
    9,
    source="2607.24502",
    setting="beta = 2; (n, twist, frequency) = (24, 0, 5), (24, 2, 5), (24, 5, 5), (30, 3, 1)",
    tolerance=1e-13,
)
def rotary_twisted() -> Comparison:
    """RoPE on a ring: consensus and every twisted state stand still."""
    speeds = [np.abs(_speeds(rotary(n, m, 2.0), 2.0 * np.pi * q * np.arange(n) / n)).max() for n, q, m in RINGS]
    return compare(np.zeros(4), speeds)


@check(9, source="2607.24502; derived", setting="as above; matrix of the drift by differences", tolerance=1e-7)
def rotary_spectrum() -> Comparison:
    """RoPE on a ring: spectrum of consensus (stable) and of twisted states."""
    predicted, measured, eta = [], [], 1e-5
    for n, q, m in RINGS:
        base, dynamics = 2.0 * np.pi * q * np.arange(n) / n, rotary(n, m, 2.0)
        moved = [_speeds(dynamics, base + sign * eta * np.eye(n)) for sign in (1.0, -1.0)]
        measured.append(np.sort(np.linalg.eigvals((moved[0] - moved[1]).T / (2.0 * eta)).real))
        predicted.append(np.sort(theory.rotary_ring_eigenvalues(tokens=n, twist=q, frequency=m, beta=2.0)))
    largest = predicted[0][-2]
    return compare(np.concatenate(predicted), np.concatenate(measured), f"slowest mode of consensus {largest:.3f}")
