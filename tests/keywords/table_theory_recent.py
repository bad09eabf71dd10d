"""Rows of `kd.theory`: two tokens at their hardest pull, rotary rings, the flow of a consensus, sinks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from tests.keywords.against import against
from tests.keywords.table_theory_sphere import follow, speed_of_gap


@against(
    "kd.theory.strongest_attraction_angle",
    "the angle of largest speed of two tokens on the circle, from their velocities",
    rtol=1e-6,
    beta=(2.0, 9.0),
)  # fmt: skip
def angle_of_largest_speed(beta):
    found = minimize_scalar(
        lambda a: -abs(speed_of_gap(a, beta, False)), bounds=(0.01, 1.57), method="bounded", options={"xatol": 1e-10}
    )
    return found.x


def turned_speeds(angles, frequency, beta):
    """Velocities of tokens on a ring whose scores are turned by their distance, by loops over pairs."""
    n = len(angles)
    speeds = np.zeros(n)
    for i in range(n):
        lag = angles - angles[i]
        weight = np.exp(beta * np.cos(lag - 2 * np.pi * frequency * (np.arange(n) - i) / n))
        speeds[i] = weight @ np.sin(lag) / weight.sum()
    return speeds


@against(
    "kd.theory.rotary_ring_eigenvalues",
    "the eigenvalues of the matrix of differences of velocities, loops over pairs",
    rtol=1e-6, atol=1e-8, read=np.sort,
    tokens=(12, 15), twist=(2, 0), frequency=(1, 3), beta=(1.5, 0.4),
)  # fmt: skip
def differenced_spectrum(tokens, twist, frequency, beta):
    base, eta = 2 * np.pi * twist * np.arange(tokens) / tokens, 1e-5
    columns = [
        (turned_speeds(base + eta * e, frequency, beta) - turned_speeds(base - eta * e, frequency, beta)) / (2 * eta)
        for e in np.eye(tokens)
    ]
    return np.sort(np.linalg.eigvals(np.array(columns).T).real)


VALUE = np.random.default_rng(3).standard_normal((3, 3))


@against(
    "kd.theory.consensus_flow",
    "Oja's equation integrated in time",
    rtol=1e-8, atol=1e-10,
    times=([0.5], [3.0]), start=([0.6, 0.8, 0.0], [0.0, 0.0, 1.0]), value=(VALUE, VALUE + VALUE.T),
)  # fmt: skip
def oja(times, start, value):
    return follow(lambda x: value @ x - (x @ value @ x) * x, start, times).T


@against(
    "kd.theory.sink_mass_bound",
    "the weight on the sink at which equal weights on the others have this variance, by a root",
    error=(0.01, 0.002), tokens=(8.0, 30.0),
)  # fmt: skip
def weight_of_variance(error, tokens):
    def excess(sink):
        others = np.full(int(tokens), (1 - sink) / tokens)
        return others @ others - error

    return brentq(excess, 0, 1, xtol=1e-14)
