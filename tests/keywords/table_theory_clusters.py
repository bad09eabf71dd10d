"""Rows of `kd.theory`: causal attention, two clusters and their lifetimes, regular clusters on the circle."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_theory_sphere import on_circle, passage, speed_of_clusters, velocity


@against(
    "kd.theory.causal_rates",
    "the eigenvalues of the identity minus the running mean, ascending",
    tokens=(4, 7),
)  # fmt: skip
def spectrum_of_running_mean(tokens):
    running = np.tril(np.ones((tokens, tokens))) / np.arange(1, tokens + 1)[:, None]
    return np.sort(np.linalg.eigvals(np.eye(tokens) - running).real)


@against(
    "kd.theory.causal_layer_factors",
    "what a layer leaves of the deviation of one token while all others agree, token by token",
    tokens=(6, 9), window=(None, 3), step=(1.0, 0.3),
)  # fmt: skip
def deviation_after_layer(tokens, window, step):
    reach = tokens if window is None else window
    heard = np.array([[i - reach < j <= i for j in range(tokens)] for i in range(tokens)], dtype=float)
    mean = heard / heard.sum(axis=1, keepdims=True)
    deviations = np.eye(tokens)
    return [(1 - step) * e[i] + step * (mean @ e)[i] for i, e in enumerate(deviations)]


@against(
    "kd.theory.causal_gap_rate",
    "the velocity of the second token of a causal pair along the circle",
    gap=(1.1, 2.5), beta=(3.0, -1.0),
)  # fmt: skip
def speed_of_follower(gap, beta):
    x = on_circle(0.0, gap)
    return velocity(x, beta)[1] @ np.array([-np.sin(gap), np.cos(gap)])


@against(
    "kd.theory.causal_gap_time",
    "the time that the second token of a causal pair takes between two angles",
    start=(2.0, 2.8), stop=(0.5, 1.0), beta=(3.0, 1.0),
)  # fmt: skip
def time_of_follower(start, stop, beta):
    return passage(lambda gap: speed_of_follower(gap, beta), start, stop)


@against(
    "kd.theory.expected_renyi_centres",
    "the mean number of cars that park on a ring, from the integral equation of a line",
    rtol=1e-5,  # the trapezoid rule with 1000 points a car
    separation=(0.5, 0.75), circumference=(6.0, 9.0),
)  # fmt: skip
def parked_cars(separation, circumference):
    # On a line of length x + 1 the first car leaves two lines: M(x + 1) = 1 + (2/x) int_0^x M.
    # On a ring it leaves one.
    t, area = np.linspace(0, 1, 1001), np.zeros(1001)
    for whole in range(round(circumference / separation) - 2):
        mean = 1 + 2 * area / np.maximum(whole + t, 1e-300)  # M at whole + t + 1; its area up to there:
        area = area[-1] + cumulative_trapezoid(mean, t, initial=0)
    return 1 + mean[-1]


@against(
    "kd.theory.expected_strong_renyi_centres",
    "the sum over tokens of the probability that no earlier one is near",
    tokens=(5, 40), separation=(0.5, 0.1),
)  # fmt: skip
def sum_of_probabilities(tokens, separation):
    far = 1 - 2 * separation / (2 * np.pi)
    return sum(far**earlier for earlier in range(tokens))


@against(
    "kd.theory.cluster_angle_rate",
    "the speed of the angle of two tokens with masses on the circle, from their velocities",
    angle=(1.1, 2.5), beta=(3.0, 1.0), mass=(0.3, 0.5),
)  # fmt: skip
def closing_of_clusters(angle, beta, mass):
    return speed_of_clusters(angle, beta, mass)


@row("kd.theory.cluster_angle_rate", "normalised", True, False, "without division two tokens move as `gap_rate` says")
def _(first, second):
    for normalised in (first, second):
        speed = theory.cluster_angle_rate(angle=1.1, beta=3.0, normalised=normalised)
        assert speed == pytest.approx(theory.gap_rate(gap=1.1, beta=3.0, normalised=normalised), rel=1e-13)


@row(
    "kd.theory.cluster_lifetime",
    "normalised",
    True,
    False,
    "the time in which the speed of either form closes the angle",
)
def _(first, second):
    for normalised in (first, second):
        time = theory.cluster_lifetime(beta=3.0, angle=2.0, normalised=normalised)
        speed = partial(theory.cluster_angle_rate, beta=3.0, normalised=normalised)
        assert time == pytest.approx(passage(lambda a, speed=speed: speed(angle=a), 2.0, 1.0), rel=1e-9)


@against(
    "kd.theory.cluster_lifetime",
    "the time in which two tokens with masses close to an angle; half of the first unless told",
    beta=(3.0, 5.0), angle=(2.0, 1.2), mass=(0.3, 0.5), stop=(None, 0.2),
)  # fmt: skip
def lifetime_of_clusters(beta, angle, mass, stop):
    return passage(lambda a: speed_of_clusters(a, beta, mass), angle, angle / 2 if stop is None else stop)


@against(
    "kd.theory.cluster_lifetime_asymptotic",
    "the time in which two tokens with masses close, at large beta",
    rtol=0.03,  # of order 1/beta with a constant of size cos(angle), small near 90 degrees
    beta=(16.0, 14.0), angle=(1.6, 1.5), mass=(0.3, 0.5),
)  # fmt: skip
def lifetime_at_large_beta(beta, angle, mass):
    return lifetime_of_clusters(beta, angle, mass, None)


@against(
    "kd.theory.gaussian_separation_rate",
    "the velocities of two points with masses under the Gaussian rule",
    separation=(1.5, 3.0), sigma=(1.0, 0.7), mass=(0.3, 0.5),
)  # fmt: skip
def closing_of_points(separation, sigma, mass):
    x, masses = np.array([0.0, separation]), np.array([mass, 1 - mass])
    weights = masses * np.exp(-((x[:, None] - x) ** 2) / (2 * sigma**2))
    v = weights @ x / weights.sum(axis=1) - x
    return v[1] - v[0]


@against(
    "kd.theory.gaussian_lifetime",
    "the time in which two points with masses close to a distance; half of the first unless told",
    separation=(3.0, 2.0), sigma=(1.0, 0.7), mass=(0.3, 0.5), stop=(None, 0.2),
)  # fmt: skip
def lifetime_of_points(separation, sigma, mass, stop):
    return passage(lambda d: closing_of_points(d, sigma, mass), separation, separation / 2 if stop is None else stop)


def spectrum_at_regular_clusters(clusters, beta, members):
    """Eigenvalues of the Jacobian of USA on the circle at equally spaced clusters, by central differences."""
    angles = np.repeat(2 * np.pi * np.arange(clusters) / clusters, members)

    def speed(a):
        gap = a - a[:, None]
        return np.mean(np.exp(beta * np.cos(gap)) * np.sin(gap), axis=1)

    h = 1e-5 * np.eye(len(angles))
    jacobian = np.stack([(speed(angles + e) - speed(angles - e)) / 2e-5 for e in h], axis=1)
    return np.sort(np.linalg.eigvals(jacobian).real)


@against(
    "kd.theory.regular_cluster_eigenvalues",
    "the spectrum of the Jacobian of six or eight tokens: moving clusters, one rotation, splitting each cluster",
    atol=1e-8,  # h^2 of the differences, and the rotation has eigenvalue 0
    read=lambda answer: np.sort([*answer[0], 0.0, *[answer[1]] * (len(answer[0]) + 1)]),
    clusters=(3, 4), beta=(-0.9, 0.5),
)  # fmt: skip
def spectrum_of_pairs(clusters, beta):
    return spectrum_at_regular_clusters(clusters, beta, 2)


@against(
    "kd.theory.three_cluster_eigenvalue",
    "the eigenvalue, not of the rotation, of the Jacobian of three tokens at 120 degrees",
    rtol=1e-7,  # h^2 of the differences
    beta=(-0.9, 0.5),
)  # fmt: skip
def spectrum_of_three(beta):
    return max(spectrum_at_regular_clusters(3, beta, 1), key=abs)


@row("kd.theory.is_single_cluster_proved", "dimension", 2, 3, "a slightly negative beta is covered on the circle only")
def _(first, second):
    assert theory.is_single_cluster_proved(dimension=first, beta=-0.1)
    assert not theory.is_single_cluster_proved(dimension=second, beta=-0.1)
    assert theory.is_single_cluster_proved(dimension=first, beta=0.0)
    assert theory.is_single_cluster_proved(dimension=second, beta=0.0)
    with pytest.raises(ValueError, match="dimension must be at least 2"):
        theory.is_single_cluster_proved(dimension=1, beta=0.0)


@row("kd.theory.is_single_cluster_proved", "beta", -0.16, -0.17, "on the circle the theorem ends at -0.16, itself in")
def _(first, second):
    assert theory.is_single_cluster_proved(dimension=2, beta=first)
    assert not theory.is_single_cluster_proved(dimension=2, beta=second)


@against(
    "kd.theory.boolean_limit_rank",
    "the rank of the attention matrix at the end of a run in one dimension",
    tokens=([0.5, 1.0, 2.0], [-1.0, 0.5, 2.0]),
)  # fmt: skip
def rank_at_end(tokens):
    x = np.array(tokens)
    for _ in range(60):
        scores = np.outer(x, x)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        x = x + 0.1 * weights @ x
    return np.linalg.matrix_rank(weights, tol=1e-3)
