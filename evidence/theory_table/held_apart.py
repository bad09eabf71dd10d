"""Sections 3 and 4: what keeps tokens apart: a perceptron beside attention, and positions that never move."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def held(clusters: int, beta: float, strength: float) -> kd.Dynamics:
    """USA on the circle beside a field -s sin(m theta)."""

    def field(_: float, x: np.ndarray) -> np.ndarray:
        pull = -strength * np.sin(clusters * np.arctan2(x[..., 1], x[..., 0]))
        return pull[..., None] * np.stack([-x[..., 1], x[..., 0]], axis=-1)

    return kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle(), external=field)


def _largest_eigenvalue(clusters: int, beta: float, strength: float) -> float:
    """Of two tokens on each of the clusters, by differences of the drift."""
    angle = np.repeat(2.0 * np.pi * np.arange(clusters) / clusters, 2)
    dynamics, eta = held(clusters, beta, strength), 1e-5

    def speeds(angles: np.ndarray) -> np.ndarray:
        x = kd.Circle().from_angles(angles)
        v = dynamics.drift(0.0, x)
        return x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]

    columns = (speeds(angle + eta * np.eye(len(angle))) - speeds(angle - eta * np.eye(len(angle)))) / (2.0 * eta)
    return float(np.linalg.eigvals(columns.T).real.max())


@check(
    3,
    source="derived; setting of 2601.21366",
    setting="USA, circle; (clusters, beta) = (2, 3), (3, 1), (5, 4), (8, 10); largest eigenvalue there over e^beta",
    tolerance=1e-7,
)
def holding() -> Comparison:
    """A perceptron beside attention holds clusters from a strength on; an antipodal pair from e^{-beta}/2 on."""
    cases = ((2, 3.0), (3, 1.0), (5, 4.0), (8, 10.0))
    found = [_largest_eigenvalue(m, b, theory.holding_strength(clusters=m, beta=b)) / np.exp(b) for m, b in cases]
    return compare(np.zeros(4), found)


@check(
    4,
    source="derived; number of atoms of 2601.21366",
    setting="hardest number of equal clusters to hold, beta = 16, 64: slope in log beta",
    tolerance=0.06,
)
def atoms() -> Comparison:
    """Clusters that a perceptron must hold hardest: about 2.9 sqrt(beta) of them, so that they grow like sqrt(beta)."""
    hardest = [
        1 + int(np.argmax([theory.holding_strength(clusters=m, beta=b) for m in range(1, 60)])) for b in (16.0, 64.0)
    ]
    measured = [
        1 + int(np.argmax([_largest_eigenvalue(m, b, 0.0) / m for m in range(1, int(4.0 * b**0.5) + 1)]))
        for b in (16.0, 64.0)
    ]
    slope = np.log(measured[1] / measured[0]) / np.log(4.0)
    return compare([0.5, *np.zeros(2)], [slope, *np.subtract(measured, hardest)], f"{measured[0]} and {measured[1]}")


CASES = ((1.0, 0.5, 1.0), (1.0, 0.8, 0.6), (0.5, 1.0, 1.3), (1.5, 0.4, 1.4))  # beta, strength, opening


@check(
    3,
    source="2605.30229; case derived",
    setting="(beta, a, phi) = (1, 0.5, 1), (1, 0.8, 0.6), (0.5, 1, 1.3), (1.5, 0.4, 1.4); 8 tokens; angles at t = 20",
    tolerance=2e-5,  # what is left of the turning of all tokens together
)
def frozen_positions() -> Comparison:
    """Frozen positions prevent collapse: tokens go to a function of their position."""
    predicted, measured = [], []
    for beta, strength, opening in CASES:
        place = strength * kd.Circle().from_angles(np.repeat([opening, -opening], 4))
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle(), read=lambda x, place=place: x + place)
        x0 = kd.Circle().from_angles(np.random.default_rng(4).uniform(-1.0, 1.0, 8))
        angles = kd.Circle().to_angles(kd.simulate(dynamics, x0, 20.0, dt=0.1, save_every=200).final)
        theta = theory.frozen_position_angle(beta=beta, strength=strength, opening=opening)
        predicted += [theta, -theta, 0.0]
        spread = max(np.ptp(angles[:4]), np.ptp(angles[4:]))
        measured += [angles[:4].mean(), angles[4:].mean(), spread]
    return compare(predicted, measured)
