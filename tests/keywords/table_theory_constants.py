"""Constants of orders in 1/d and 1/beta, polygons, neurons and parts of trees: each against a longer way to it."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from tests.keywords.against import against


@against(
    "kd.theory.random_value_deviation",
    "the covariance of all pairs by its full Lyapunov equation, Jacobian by differences, noises from the Gram matrix",
    rtol=1e-5,
    time=(0.25, 0.5), start=(0.3, 0.1), beta=(1.0, 2.0), tokens=(4, 5),
)  # fmt: skip
def full_linear_noise(time, start, beta, tokens):
    i, j = np.triu_indices(tokens, 1)
    size = len(i)

    def gram(pairs):
        g = np.eye(tokens)
        g[i, j] = g[j, i] = pairs
        return g

    def heard(g):
        a = np.exp(beta * g)
        a /= a.sum(axis=1, keepdims=True)
        return a @ g @ a.T

    def drift(pairs):
        h = heard(gram(pairs))
        return h[i, j] - 0.5 * pairs * (h[i, i] + h[j, j])

    def noise(pairs):
        # dG_ij = <dV A_i, x_j - G_ij x_i> + the same of j; <dV a, b> and <dV c, e> have covariance <a, c> <b, e>.
        g, h = gram(pairs), heard(gram(pairs))
        ends = [(i, np.eye(tokens)[j] - pairs[:, None] * np.eye(tokens)[i])]
        ends.append((j, np.eye(tokens)[i] - pairs[:, None] * np.eye(tokens)[j]))
        return sum(h[np.ix_(a, c)] * (u @ g @ v.T) for a, u in ends for c, v in ends)

    def rate(_, state):
        pairs, c = state[:size], state[size:].reshape(size, size)
        jacobian = np.array([(drift(pairs + 1e-5 * e) - drift(pairs - 1e-5 * e)) / 2e-5 for e in np.eye(size)]).T
        return np.concatenate([drift(pairs), np.ravel(jacobian @ c + c @ jacobian.T + noise(pairs))])

    end = solve_ivp(rate, (0.0, time), np.append(np.full(size, start), np.zeros(size**2)), rtol=1e-9, atol=1e-12)
    return np.sqrt(np.trace(end.y[size:, -1].reshape(size, size)) / size)


@against(
    "kd.theory.low_temperature_lag",
    "the equation of the lag of an angle, slopes of field and density by differences",
    rtol=1e-5, atol=1e-7,
    times=([0.25], [0.5]), start=([[0.6, 0.8]], [[1.0, 0.0]]),
    value=(np.array([[1.0, 0.8], [-0.3, 0.2]]), np.diag([1.0, -0.5])),
)  # fmt: skip
def lag_of_an_angle(times, start, value):
    unit = lambda angle: np.array([np.cos(angle), np.sin(angle)])  # noqa: E731
    across = lambda angle: np.array([-np.sin(angle), np.cos(angle)])  # noqa: E731
    field = lambda angle: across(angle) @ value @ unit(angle)  # noqa: E731

    def log_density(angle, time):
        back = lambda a: np.arctan2(*(expm(-value * time) @ unit(a))[::-1])  # noqa: E731
        turn = (back(angle + 1e-4) - back(angle - 1e-4) + np.pi) % (2 * np.pi) - np.pi
        return np.log(turn / 2e-4)

    def rate(time, state):
        angle, lag = state
        slope = (field(angle + 1e-5) - field(angle - 1e-5)) / 2e-5
        crowd = (log_density(angle + 1e-3, time) - log_density(angle - 1e-3, time)) / 2e-3
        push = crowd * (across(angle) @ value @ across(angle)) - 0.5 * field(angle)
        return [field(angle), slope * lag + push]

    first = np.arctan2(start[0][1], start[0][0])
    angle, lag = solve_ivp(rate, (0.0, times[0]), [first, 0.0], rtol=1e-9, atol=1e-11).y[:, -1]
    return [[lag * across(angle)]]


def _growth(velocity, angle):
    """Matrix of a velocity of angles, by differences."""
    steps = 1e-5 * np.eye(len(angle))
    return np.array([(velocity(angle + s) - velocity(angle - s)) / 2e-5 for s in steps]).T


@against(
    "kd.theory.neuron_holding_strength",
    "the largest eigenvalue of two tokens a cluster, over the slope of the field of the neurons, both by differences",
    rtol=1e-6,
    clusters=(3, 4), beta=(1.0, 2.0), threshold=(0.2, -0.3),
)  # fmt: skip
def strength_of_neurons(clusters, beta, threshold):
    place = 2 * np.pi * np.arange(clusters) / clusters

    def attention(theta):
        gap = theta[None, :] - theta[:, None]
        return np.mean(np.exp(beta * np.cos(gap)) * np.sin(gap), axis=1)

    def neurons(theta):
        gap = place - theta[:, None]
        return np.sum(np.maximum(np.cos(gap) - threshold, 0.0) * np.sin(gap), axis=1)

    largest = np.linalg.eigvals(_growth(attention, np.repeat(place, 2))).real.max()
    return largest / -_growth(neurons, place[:1])[0, 0]


@against(
    "kd.theory.polygon_rates",
    "the matrix of the velocities by differences, its eigenvalues in order of their parts",
    rtol=1e-6, atol=1e-8,
    read=lambda rates: [rates.speed, *np.sort(rates.modes.real), *np.sort(rates.modes.imag)][:6],
    tokens=(5, 6), beta=(2.0, 1.0), turn=(0.4, 2.0), normalised=(True, False),
)  # fmt: skip
def polygon_by_differences(tokens, beta, turn, normalised):
    def velocity(theta):
        gap = theta[None, :] - theta[:, None]
        weight = np.exp(beta * np.cos(gap))
        weight /= weight.sum(axis=1, keepdims=True) if normalised else tokens
        return np.sum(weight * np.sin(gap + turn), axis=1)

    place = 2 * np.pi * np.arange(tokens) / tokens
    modes = np.linalg.eigvals(_growth(velocity, place))
    modes = np.delete(modes, np.argmin(np.abs(modes)))  # the turning of all
    return [velocity(place)[0], *np.sort(modes.real), *np.sort(modes.imag)][:6]


@against(
    "kd.theory.open_tree_part_size",
    "|(1 - K)^{-1} 1|^2 with the kernel on 500 and 1000 cells, Richardson",
    rtol=1e-4,
    radius=(0.5, 0.7),
)  # fmt: skip
def size_on_a_grid(radius):
    def on(count):
        place = (np.arange(count) + 0.5) / count
        # Shares of cells within reach.
        near = np.clip((radius - np.abs(place[:, None] - place)) * count + 0.5, 0.0, 1.0)
        return np.mean(np.linalg.solve(np.eye(count) - near / count, np.ones(count)) ** 2)

    return (4.0 * on(1000) - on(500)) / 3.0
