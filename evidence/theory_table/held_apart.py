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


def beside_neurons(clusters: int, beta: float, strength: float, threshold: float) -> kd.Dynamics:
    """USA on the circle beside a perceptron of ReLU neurons in the directions of the clusters."""
    direction = kd.Circle().from_angles(2.0 * np.pi * np.arange(clusters) / clusters)

    def perceptron(_: float, x: np.ndarray) -> np.ndarray:
        return kd.Circle().project(x, strength * np.maximum(x @ direction.T - threshold, 0.0) @ direction)

    return kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle(), external=perceptron)


def _largest_eigenvalue(clusters: int, dynamics: kd.Dynamics) -> float:
    """Of two tokens on each of the clusters, by differences of the drift."""
    angle, eta = np.repeat(2.0 * np.pi * np.arange(clusters) / clusters, 2), 1e-5

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
    strengths = [theory.holding_strength(clusters=m, beta=b) for m, b in cases]
    found = [_largest_eigenvalue(m, held(m, b, s)) / np.exp(b) for (m, b), s in zip(cases, strengths, strict=True)]
    return compare(np.zeros(4), found)


NEURONS = ((2, 3.0, 0.5), (3, 1.0, 0.2), (5, 4.0, 0.4), (5, 2.0, -0.5))  # clusters, beta, threshold


@check(
    3,
    source="derived; perceptron with ReLU of 2601.21366",
    setting="(clusters, beta, c) = (2, 3, 0.5), (3, 1, 0.2), (5, 4, 0.4), (5, 2, -0.5); largest eigenvalue over e^beta",
    tolerance=1e-7,
)
def neurons_hold() -> Comparison:
    """A perceptron of ReLU neurons holds as many clusters from a strength on, max(eigenvalues, 0)/kappa."""
    found = []
    for m, b, c in NEURONS:
        strength = theory.neuron_holding_strength(clusters=m, beta=b, threshold=c)
        found.append(_largest_eigenvalue(m, beside_neurons(m, b, strength, c)) / np.exp(b))
    return compare(np.zeros(4), found)


def _atoms(clusters: int, dynamics: kd.Dynamics) -> int:
    """Clusters that are left of four tokens within 0.02 of each neuron, after 30 times of the slowest rate there."""
    place = np.repeat(2.0 * np.pi * np.arange(clusters) / clusters, 4)
    x0 = kd.Circle().from_angles(place + np.random.default_rng(5).uniform(-0.02, 0.02, 4 * clusters))
    t_end = 30.0 / abs(_largest_eigenvalue(clusters, dynamics))
    final = kd.simulate(dynamics, x0, t_end, dt=0.25 * t_end, integrator=kd.Stiff()).final
    angle = np.sort(kd.Circle().to_angles(final) % (2.0 * np.pi))
    gaps = np.diff(np.append(angle, angle[0] + 2.0 * np.pi))
    return int(np.sum(gaps > 1e-6))


@check(
    4,
    source="2601.21366 (stationary laws are atoms); strength derived",
    setting="USA; (clusters, beta, c) = (2, 1, 0.5), (3, 1, 0.2), (4, 1, 0.3); 20 % above and below the strength",
    tolerance=0.0,
)
def atoms_of_a_perceptron() -> Comparison:
    """Attention beside a perceptron ends in atoms: one for each neuron above the holding strength, consensus below."""
    predicted, measured = [], []
    for m, b, c in ((2, 1.0, 0.5), (3, 1.0, 0.2), (4, 1.0, 0.3)):
        strength = theory.neuron_holding_strength(clusters=m, beta=b, threshold=c)
        predicted += [m, 1]
        measured += [_atoms(m, beside_neurons(m, b, share * strength, c)) for share in (1.2, 0.8)]
    return compare(predicted, measured)


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
        1 + int(np.argmax([_largest_eigenvalue(m, held(m, b, 0.0)) / m for m in range(1, int(4.0 * b**0.5) + 1)]))
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
