"""Rows of `kd.theory`: antipodal atoms, entropy collapse, hard attention and lost in the middle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.optimize import brentq

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_theory_sphere import follow, on_circle, velocity


def push(mass, beta, angles, of, masses):
    """Speed of the angle of token ``of`` at these small deviations of two atoms and a token without mass."""
    x = on_circle(angles[0], np.pi + angles[1], angles[2])
    v = velocity(x, beta, False, np.array(masses))
    return x[of, 0] * v[of, 1] - x[of, 1] * v[of, 0]


@against(
    "kd.theory.antipodal_rates",
    "slopes of the velocities of two atoms and of a token at each, by differences",
    rtol=1e-6,
    mass=(0.6, 0.3), beta=(0.4, 1.2),
)  # fmt: skip
def slopes_of_velocities(mass, beta):
    eta, masses = 1e-5, (mass, 1 - mass, 0.0)
    one = push(mass, beta, (0, 0, eta), 2, masses) / eta
    other = push(mass, beta, (0, 0, np.pi + eta), 2, masses) / eta
    turn = (push(mass, beta, (eta, 0, 0), 0, masses) - push(mass, beta, (eta, 0, 0), 1, masses)) / eta
    return one, other, turn


for place, (name, other) in enumerate((("first", 1.0), ("second", 2.0), ("angle", 3.0))):

    @row("kd.theory.AntipodalRates", name, 0.0, other, "stands in its place, and is the slope of that velocity")
    def field(first, second, place=place, name=name):
        answer = theory.antipodal_rates(mass=0.6, beta=0.4)
        for value in (first, second):
            changed = answer._replace(**{name: value})
            assert (changed[place], getattr(changed, name)) == (value, value)
        assert getattr(answer, name) == pytest.approx(slopes_of_velocities(0.6, 0.4)[place], rel=1e-6)


@against(
    "kd.theory.expected_participation",
    "the mean of 40 000 draws of scores",
    rtol=0.02,  # four deviations of the mean
    tokens=(20, 60), beta=(1.5, 3.0),
)  # fmt: skip
def drawn_participation(tokens, beta):
    scores = beta * np.sqrt(np.log(tokens)) * np.random.default_rng(1).standard_normal((40_000, tokens))
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.mean(np.sum((weights / weights.sum(axis=1, keepdims=True)) ** 2, axis=1))


@against(
    "kd.theory.participation_limit",
    "the participation of 1e300 tokens by quadrature",
    rtol=0.02,  # log log T/log T
    beta=(2.0, 3.5),
)  # fmt: skip
def participation_of_many(beta):
    return theory.expected_participation(tokens=1e300, beta=beta)


VERTICES = on_circle(*(2 * np.pi * np.arange(5) / 5))


@against(
    "kd.theory.hard_attention_positions",
    "tokens pulled by the vertex that they score highest, integrated in time",
    times=([0.5], [2.0]), start=([[0.1, 0.2], [-0.3, 0.1]], [[0.2, -0.4], [0.0, 0.3]]),
    vertices=(VERTICES, -VERTICES),
)  # fmt: skip
def pulled_by_best(times, start, vertices):
    def speed(flat):
        x = flat.reshape(-1, 2)
        return (vertices[np.argmax(x @ vertices.T, axis=1)] - x).ravel()

    return follow(speed, np.ravel(start), times).T.reshape(len(times), -1, 2)


@against(
    "kd.theory.polygon_exit_probability",
    "what a vertex gives to the others, by the matrix of weights",
    clusters=(5, 8), beta=(2.0, 6.0),
)  # fmt: skip
def given_to_others(clusters, beta):
    x = on_circle(*(2 * np.pi * np.arange(clusters) / clusters))
    weights = np.exp(beta * x @ x.T)
    return 1 - weights[0, 0] / weights[0].sum()


def response(positions, time, rate, decay, places=600):
    """Last row of the exponential of the causal means on a grid, per length."""
    s = (np.arange(places) + 0.5) / places
    mass = np.tril(np.exp(decay * s)[None, :] * np.ones((places, 1)))
    mean = mass / mass.sum(axis=1, keepdims=True)
    return places * expm(time * rate * mean)[-1, (np.asarray(positions) * places).astype(int)]


@against(
    "kd.theory.causal_response",
    "the exponential of the matrix of causal means of 600 places",
    rtol=1e-2,
    positions=([0.3, 0.6], [0.4, 0.8]), time=(1.0, 2.0), rate=(0.8, 1.5), decay=(1.0, 0.0),
)  # fmt: skip
def response_on_grid(positions, time, rate, decay):
    return response(positions, time, rate, decay)


def mode_rates(beta, normalised, degrees):
    """Growth of degrees on the circle: n^2 times the Fourier coefficients of the kernel, by quadrature."""

    def coefficient(n):
        return quad(lambda a: math.exp(beta * math.cos(a)) * math.cos(n * a) / np.pi, 0, np.pi)[0]

    kappa = [coefficient(n) for n in range(degrees + 1)]
    return [n * n * kappa[n] / beta / (kappa[0] if normalised else 1) for n in range(1, degrees + 1)]


@against(
    "kd.theory.retrieval_profile",
    "the sum over degrees of the power series of the response, rates by quadrature",
    positions=([0.3, 0.6], [0.4, 0.8]), time=(1.0, 2.0), beta=(1.0, 2.5), decay=(1.0, 2.0), resolution=(4.0, 6.0),
    normalised=(True, False),
)  # fmt: skip
def series_of_profile(positions, time, beta, decay, resolution, normalised):
    s = np.asarray(positions)
    kernel = decay * np.exp(decay * s) / (np.exp(decay) - 1)
    depth = np.log((np.exp(decay) - 1) / (np.exp(decay * s) - 1))
    total = np.zeros_like(s)
    for n, rate in enumerate(mode_rates(beta, normalised, 20), start=1):
        terms = [(rate * time) ** (k + 1) * depth**k / math.factorial(k) / math.factorial(k + 1) for k in range(40)]
        total += math.exp(-((np.pi * n / resolution) ** 2) / 2) * kernel * sum(terms)
    return total


@against(
    "kd.theory.retrieval_time_bound",
    "the smaller of both numbers over the largest rate by quadrature",
    beta=(1.0, 4.0), decay=(1.0, 0.3), normalised=(True, False),
)  # fmt: skip
def bound_by_quadrature(beta, decay, normalised):
    return min(3 - math.sqrt(3), 2 * (1 - math.exp(-decay))) / max(mode_rates(beta, normalised, 15))


@against(
    "kd.theory.recency_time",
    "when the slope of the power series of the profile changes sign just before the last token, by a root",
    rtol=1e-3,  # the slope is taken at 1 - 1e-4
    beta=(1.0, 2.5), decay=(1.0, 2.0), resolution=(4.0, 6.0), normalised=(True, False),
)  # fmt: skip
def time_of_level_end(beta, decay, resolution, normalised):
    ends = [1 - 1.1e-4, 1 - 0.9e-4]

    def rise(time):
        low, high = series_of_profile(ends, time, beta, decay, resolution, normalised)
        return (high - low) / low

    return brentq(rise, 0.01, 20.0, xtol=1e-10)
