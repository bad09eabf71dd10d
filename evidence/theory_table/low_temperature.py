"""Sections 3 and 4: attention at low temperature, its phases, and two attractors: consensus and bipartite consensus."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

AXIS = np.diag([1.0, -0.5])


def _away_from_the_flow(beta: float) -> float:
    """Largest distance of tokens from the flow of each by itself at t = 1/4: 4 beta tokens evenly around the circle."""
    x0 = kd.Circle().from_angles(2.0 * np.pi * (np.arange(int(4 * beta)) + 0.5) / int(4 * beta))
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), kd.Circle(), value=AXIS), x0, 0.25, dt=0.125, save_every=2)
    alone = theory.low_temperature_flow(times=[0.25], start=x0, value=AXIS)[0]
    return float(np.max(np.abs(run.final - alone)))


@check(
    3,
    source="2605.10931 (bound of order sqrt(log beta/beta)); 2509.25040; order derived",
    setting="circle, V = diag(1, -1/2), 4 beta tokens, t = 1/4; slope of the log of the deviation, beta = 100 to 400",
    tolerance=0.02,  # of the next order in 1/beta
)
def low_temperature_order() -> Comparison:
    """Moderate interaction, fast phase: each token follows V by itself up to O(1/beta)."""
    near, far = (_away_from_the_flow(beta) for beta in (100.0, 400.0))
    return compare(-1.0, np.log(far / near) / np.log(4.0), f"deviation {far:.1e} at beta = 400, bound's order 0.12")


@check(
    3,
    source="derived; setting of 2605.10931, 2509.25040",
    setting="circle, 4 beta tokens, t = 1/4, 1/2; V symmetric, general; Richardson from beta = 200, 400",
    tolerance=2e-3,
)
def low_temperature_constant() -> Comparison:
    """Moderate interaction, fast phase: the constant of that order, token by token."""
    predicted, measured, times = [], [], [0.25, 0.5]
    for value in (AXIS, np.array([[1.0, 0.8], [-0.3, 0.2]])):
        lags = []
        for beta in (200.0, 400.0):
            n = int(4 * beta)
            x0 = kd.Circle().from_angles(2.0 * np.pi * np.arange(n) / n)
            dynamics = kd.Dynamics(kd.softmax(beta), kd.Circle(), value=value)
            run = kd.simulate(dynamics, x0, times[-1], dt=0.0625, save_at=times)
            alone = theory.low_temperature_flow(times=times, start=x0, value=value)
            lags.append((beta * (run.positions[1:] - alone))[:, :: n // 40])
        measured.append(2.0 * lags[1] - lags[0])
        predicted.append(theory.low_temperature_lag(times=times, start=x0[:: n // 40], value=value))
    return compare(predicted, measured)


def _spreading(beta: float) -> float:
    """Growth over a short time of the winning wave of 4 beta weighted tokens on the circle."""
    n, mode = int(4 * beta), theory.winning_mode(beta)
    angle = 2.0 * np.pi * np.arange(n) / n
    x = kd.Circle().from_angles(angle)
    v = kd.Dynamics(kd.softmax(beta), kd.Circle()).drift(0.0, x, np.log((1.0 + 1e-6 * np.cos(mode * angle)) / n))
    speed = x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]
    return float(-2e6 * mode * np.mean(speed * np.sin(mode * angle)))


def merging(beta: float, angle: float) -> float:
    """Time in which two tokens close half their angle, by Gauss-Legendre on the velocities of the simulator."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = angle - 0.5 * angle * np.append(0.5 ** np.arange(14), 0.0)  # finer towards the start, where time is spent
    total = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        gap = 0.5 * (high - low) * nodes + 0.5 * (high + low)
        x = kd.Circle().from_angles(np.stack([np.zeros_like(gap), gap], axis=-1))
        v = kd.Dynamics(kd.softmax(beta), kd.Circle()).drift(0.0, x)
        turn = x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]
        total += 0.5 * (high - low) * float(weights @ (1.0 / (turn[:, 0] - turn[:, 1])))
    return total


@check(
    4,
    source="phases of 2509.25040; derived",
    setting="gap 1/2, angle 90 degrees; log10 of the times of alignment, clustering, merging at beta = 8 and 16",
    tolerance=1e-3,
)
def three_times() -> Comparison:
    """Moderate interaction: the times of alignment, clustering and merging of pairs lie apart."""
    predicted, measured = [], []
    for beta in (8.0, 16.0):
        predicted += list(theory.moderate_times(beta=beta, gap=0.5))
        dynamics = kd.Dynamics(kd.softmax(beta), kd.Sphere(), value=np.diag([1.0, 1.0, 0.5]))
        leaving = np.array([[np.cos(1e-5), 0.0, np.sin(1e-5)]] * 2)
        measured += [-1e-5 / dynamics.drift(0.0, leaving)[0, 2], 1.0 / _spreading(beta), merging(beta, 0.5 * np.pi)]
    return compare(np.log10(predicted), np.log10(measured))


@check(
    3,
    source="2511.11553 (bipartite consensus along eigenvectors); rates derived",
    setting="SA, d = 4, tokens 3:2 and 2:2 on the axis of lambda = 2, mu = 0.5, 1.3, -0.7, beta = 0.8; spectrum",
    tolerance=1e-9,
)
def bipartite_spectrum() -> Comparison:
    """Bipartite consensus along an eigenvector of V: spectrum; with equal halves stable iff mu < lambda tanh beta."""
    predicted, measured, others = [], [], [0.5, 1.3, -0.7]
    dynamics = kd.Dynamics(kd.softmax(0.8), kd.Sphere(), value=np.diag([2.0, *others]))
    for plus, minus in ((3, 2), (2, 2)):
        x = np.eye(1, 4) * np.repeat([1.0, -1.0], [plus, minus])[:, None]
        rates = theory.bipartite_rates(eigenvalue=2.0, others=others, beta=0.8, mass=plus / (plus + minus))
        inside = [rates.first] * 3 * (plus - 1) + [rates.second] * 3 * (minus - 1)
        predicted.append(np.sort([*inside, *rates.ends.ravel()]))
        measured.append(np.sort(np.linalg.eigvals(kd.jacobian(dynamics, x, tangent=True)).real))
    return compare(np.concatenate(predicted), np.concatenate(measured))


@check(
    3,
    source="derived; setting of 2511.11553",
    setting="SA, d = 4, three tokens, beta = 0.5 and 3; V symmetric, skew, general; rate of a difference",
    tolerance=1e-6,
)
def consensus_of_values() -> Comparison:
    """A consensus draws tokens together at <x, V x>, whatever the temperature; a skew V neither together nor apart."""
    square = np.random.default_rng(14).standard_normal((4, 4))
    x, eta = np.full(4, 0.5), 1e-5
    aside = np.array([0.5, -0.5, 0.5, -0.5])
    predicted, measured = [], []
    for value in (square + square.T, square - square.T, square):
        for beta in (0.5, 3.0):
            tokens = kd.Sphere().retract(x + eta * np.array([1.0, -1.0, 0.0])[:, None] * aside)
            v = kd.Dynamics(kd.softmax(beta), kd.Sphere(), value=value).drift(0.0, tokens)
            measured.append(float(-(v[0] - v[1]) @ aside / (2.0 * eta)))
            predicted.append(theory.consensus_attraction(position=x, value=value))
    return compare(predicted, measured)


@check(
    3,
    source="derived; setting of 2511.11553",
    setting="d = 3, V = diag(1, 0, 0), beta = 1e4, three tokens, 2000 starts; shares of consensus and of two ends",
    tolerance=0.05,  # five standard errors of a share
)
def basins() -> Comparison:
    """Two attractors at low temperature: consensus with probability 2^{1 - n}, else bipartite consensus."""
    x0 = np.stack([kd.Sphere().sample(3, 3, seed) for seed in range(2000)])
    dynamics = kd.Dynamics(kd.softmax(1e4), kd.Sphere(), value=np.diag([1.0, 0.0, 0.0]))
    final = kd.simulate(dynamics, x0, 16.0, dt=0.5, save_every=32).final
    together = np.abs(final[..., 0].sum(axis=1))
    consensus = theory.low_temperature_consensus_probability(3)
    return compare([consensus, 1.0 - consensus], [np.mean(together > 2.99), np.mean(np.abs(together - 1.0) < 0.01)])
