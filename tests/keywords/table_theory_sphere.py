"""Rows of `kd.theory`: tokens on the sphere, against velocities of tokens in space by matrices in float64."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

from tests.keywords.against import against


def velocity(x, beta, normalised=True, mass=None, project=True):
    """Velocity of tokens (n, d) with masses that sum to 1, on the sphere unless told."""
    mass = np.full(len(x), 1 / len(x)) if mass is None else mass
    weights = mass * np.exp(beta * x @ x.T)
    v = (weights / weights.sum(axis=1, keepdims=True) if normalised else weights) @ x
    return v - np.sum(v * x, axis=1, keepdims=True) * x if project else v


def equiangular(tokens, similarity):
    """Unit vectors with equal inner products, one a row."""
    return np.linalg.cholesky((1 - similarity) * np.eye(tokens) + similarity)


def on_circle(*angles):
    """Unit vectors at these angles."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def follow(speed, start, times):
    """Solution of y' = speed(y) at the times."""
    times = np.atleast_1d(times)
    run = solve_ivp(
        lambda _, y: speed(y), (0, times[-1]), np.atleast_1d(start), "DOP853", t_eval=times, rtol=1e-11, atol=1e-13
    )
    return run.y


def passage(speed, start, stop):
    """Time of y' = speed(y) from start to stop."""
    return solve_ivp(
        lambda y, _: [1 / float(speed(y))], (start, stop), [0.0], "DOP853", rtol=1e-11, atol=1e-13
    ).y[0, -1]  # fmt: skip


@against(
    "kd.theory.equiangular_rate",
    "the speed of an inner product of tokens in R^n, from their velocities by matrices",
    similarity=(0.2, -0.1), beta=(1.5, -0.7), tokens=(4, 6), normalised=(True, False),
)  # fmt: skip
def speed_of_tokens(similarity, beta, tokens, normalised):
    x = equiangular(tokens, similarity)
    v = velocity(x, beta, normalised)
    return v[0] @ x[1] + x[0] @ v[1]


@against(
    "kd.theory.equiangular_time",
    "the time that tokens in R^n take between two inner products",
    start=(0.1, -0.2), stop=(0.6, 0.8), beta=(1.5, 3.0), tokens=(4, 3), normalised=(True, False),
)  # fmt: skip
def time_of_tokens(start, stop, beta, tokens, normalised):
    return passage(lambda rho: speed_of_tokens(rho, beta, tokens, normalised), start, stop)


@against(
    "kd.theory.equiangular_similarity",
    "the inner product of tokens in R^n integrated in time",
    times=([0.0, 0.5], [0.3, 2.0]), start=(0.1, -0.2), beta=(1.5, 3.0), tokens=(4, 3), normalised=(True, False),
)  # fmt: skip
def similarity_of_tokens(times, start, beta, tokens, normalised):
    return follow(lambda rho: [speed_of_tokens(rho[0], beta, tokens, normalised)], start, times)[0]


@against(
    "kd.theory.orthogonal_similarity_without_temperature",
    "the inner product of tokens in R^n integrated in time at beta = 0 from orthogonal ones",
    times=([0.5], [2.0]), tokens=(4, 6),
)  # fmt: skip
def similarity_without_temperature(times, tokens):
    return similarity_of_tokens(times, 0.0, 0.0, tokens, True)


@against(
    "kd.theory.consensus_rate",
    "the speed of the gap 1 - rho of nearly equal tokens, a share of the gap",
    rtol=1e-5,  # the speed is linear in the gap up to terms of the order of the gap
    beta=(1.5, 0.5), normalised=(False, True),
)  # fmt: skip
def closing_of_tokens(beta, normalised):
    return speed_of_tokens(1 - 1e-7, beta, 5, normalised) / 1e-7


@against(
    "kd.theory.gap_rate",
    "the speed of the angle of two tokens on the circle, from their velocities",
    gap=(1.1, 2.5), beta=(3.0, -1.0), normalised=(True, False),
)  # fmt: skip
def speed_of_gap(gap, beta, normalised):
    return speed_of_clusters(gap, beta, 0.5, normalised)


def speed_of_clusters(angle, beta, mass, normalised=True):
    """Speed of the angle of two tokens with masses ``mass`` and ``1 - mass`` on the circle."""
    x = on_circle(0.0, angle)
    v = velocity(x, beta, normalised, np.array([mass, 1 - mass]))
    return -(v[0] @ x[1] + x[0] @ v[1]) / np.sin(angle)


@against(
    "kd.theory.kuramoto_order_parameter",
    "the resultant of 200 tokens at the quantiles of a Poisson kernel, integrated at beta = 0",
    times=([0.5], [3.0]), start=(0.1, 0.4),
)  # fmt: skip
def resultant_of_tokens(times, start):
    # The midpoint rule in the quantile is exponentially accurate: the integrand is smooth and periodic.
    quantile = (np.arange(200) + 0.5) / 200
    angles = 2 * np.arctan((1 - start) / (1 + start) * np.tan(np.pi * (quantile - 0.5)))
    run = follow(lambda a: np.cos(a) * np.sin(a).mean() - np.sin(a) * np.cos(a).mean(), angles, times)
    return np.hypot(np.cos(run).mean(axis=0), np.sin(run).mean(axis=0))


@against(
    "kd.theory.pre_norm_equiangular",
    "cosine and norm of tokens in R^n that grow under attention to their directions, integrated in time",
    times=([0.5], [4.0]), start=(0.2, -0.1), beta=(2.0, 0.5), tokens=(3, 4), radius=(1.0, 2.0),
)  # fmt: skip
def growing_tokens(times, start, beta, tokens, radius):
    def speed(flat):
        x = flat.reshape(tokens, tokens)
        return velocity(x / np.linalg.norm(x, axis=1, keepdims=True), beta, project=False).ravel()

    x = follow(speed, radius * equiangular(tokens, start).ravel(), times)[:, -1].reshape(tokens, tokens)
    norms = np.linalg.norm(x, axis=1)
    return [[x[0] @ x[1] / norms[0] / norms[1]], [norms[0]]]
