"""Rows of `kd.theory`: Gaussian laws by a grid, long contexts and the collapse of rank by attention matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import betainc

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_theory_sphere import equiangular, follow


def pull(variance, x, log_affinity):
    """The mean of what the point ``x`` hears of a normal law, over ``x``; the drifts here are linear."""
    y = np.sqrt(variance) * np.linspace(-15, 15, 3001)  # of an analytic integrand: exponentially accurate
    weights = np.exp(-(y**2) / (2 * variance) + log_affinity(x, y))
    return weights @ y / weights.sum() / x


def gaussian_pull(variance, sigma):
    return pull(variance, np.sqrt(variance), lambda x, y: -((x - y) ** 2) / (2 * sigma**2)) - 1


@against(
    "kd.theory.gaussian_rule_variance",
    "the variance of a normal law integrated in time, its drift by a grid",
    times=([0.5], [2.0]), variance=(0.9, 3.0), sigma=(1.0, 0.7),
)  # fmt: skip
def variance_in_time(times, variance, sigma):
    return follow(lambda v: 2 * v * gaussian_pull(v[0], sigma), variance, times)[0]


@against(
    "kd.theory.gaussian_rule_deviation_step",
    "how far one layer moves the point at one standard deviation, its mean by a grid",
    deviation=(1.3, 0.4), sigma=(1.0, 0.7), step=(1.0, 0.3),
)  # fmt: skip
def deviation_after_layer(deviation, sigma, step):
    return deviation * (1 + step * gaussian_pull(deviation**2, sigma))


def dot_product_pull(variance, beta, relative):
    return pull(variance, 1 / (beta * np.sqrt(variance)), lambda x, y: beta * x * y) - relative


@against(
    "kd.theory.dot_product_variance",
    "the variance of a normal law integrated in time, its drift by a grid",
    times=([0.1], [0.2]), variance=(0.9, 1.5), beta=(0.8, 1.2), relative=(False, True),
)  # fmt: skip
def dot_product_in_time(times, variance, beta, relative):
    return follow(lambda v: 2 * v * dot_product_pull(v[0], beta, relative), variance, times)[0]


@against(
    "kd.theory.dot_product_blow_up",
    "the time in which the inverse variance falls to zero, its rate by a grid",
    variance=(2.0, 3.0), beta=(0.8, 1.2), relative=(False, True),
)  # fmt: skip
def time_to_infinity(variance, beta, relative):
    def slowness(inverse):
        return 1 / (2 * inverse * dot_product_pull(1 / inverse, beta, relative))

    # The rate is linear in the inverse variance; the quadrature never asks at 0 itself.
    return quad(slowness, 0.01, 1 / variance)[0] + quad(slowness, 1e-3, 0.01)[0] + slowness(5e-4) * 1e-3


def equal_scores(tokens, scaling, similarity):
    """Attention matrix of tokens with equal inner products at inverse temperature ``scaling`` log n."""
    x = equiangular(tokens, similarity)
    weights = np.exp(scaling * np.log(tokens) * (x @ x.T - 1))
    return x, weights / weights.sum(axis=1, keepdims=True)


@against(
    "kd.theory.self_weight",
    "the diagonal of the attention matrix of tokens in R^n",
    tokens=(12, 20), scaling=(1.5, 0.7), similarity=(0.3, -0.02),
)  # fmt: skip
def own_weight(tokens, scaling, similarity):
    return equal_scores(tokens, scaling, similarity)[1][0, 0]


@against(
    "kd.theory.critical_scaling",
    "where a token of 500 gives itself half of the weight",
    rtol=1e-3,  # log((n - 1)/n)/log n
    similarity=(0.3, 0.6),
)  # fmt: skip
def scaling_of_half(similarity):
    return brentq(lambda scaling: own_weight(500, scaling, similarity) - 0.5, 0.5, 4.0, xtol=1e-6)


@against(
    "kd.theory.gram_map",
    "the cosine of two outputs of one attention layer on tokens in R^n",
    similarity=(0.3, -0.02), tokens=(12, 20), scaling=(1.5, 0.7),
)  # fmt: skip
def cosine_after_layer(similarity, tokens, scaling):
    x, weights = equal_scores(tokens, scaling, similarity)
    out = weights @ x
    return out[0] @ out[1] / np.linalg.norm(out[0]) / np.linalg.norm(out[1])


@against(
    "kd.theory.gram_map_limit",
    "the cosine of two outputs from the Gram matrix of 1e40 tokens",
    rtol=1e-6,
    similarity=(0.3, 0.5), scaling=(1 / 0.7, 3.0),  # at the threshold, above it
)  # fmt: skip
def cosine_of_many(similarity, scaling):
    n = 1e40
    own = 1 / (1 + np.exp(np.log(n) * (1 - scaling * (1 - similarity))))
    other = (1 - own) / n
    square, product = own**2 + n * other**2, 2 * own * other + n * other**2
    return (similarity + (1 - similarity) * product) / (similarity + (1 - similarity) * square)


def nearest_squared_distance(tokens, dimension):
    """Expected squared distance to the nearest of independent uniform keys on the sphere, by quadrature."""

    def nobody_within(squared):
        sine = squared * (1 - squared / 4)  # squared sine of the angle of this chord, below 90 degrees
        return np.exp(tokens * np.log1p(-betainc((dimension - 1) / 2, 0.5, sine) / 2))

    scale = tokens ** (-2 / (dimension - 1))
    return quad(lambda s: scale * nobody_within(scale * s), 0, 200, limit=200)[0]


@row("kd.theory.uniform_keys_scaling", "tokens", 1e6, 4e6, "the inverse of the nearest key's squared distance")
def _(first, second):
    for dimension in (3, 4):
        ratio = theory.uniform_keys_scaling(tokens=second, dimension=dimension) / theory.uniform_keys_scaling(
            tokens=first, dimension=dimension
        )
        near = nearest_squared_distance(first, dimension) / nearest_squared_distance(second, dimension)
        assert ratio == pytest.approx(near, rel=1e-3)  # curvature of the sphere over that distance
        assert theory.uniform_keys_scaling(tokens=1, dimension=dimension) == 1.0


@row("kd.theory.uniform_keys_scaling", "dimension", 3, 5, "four times the keys bring the nearest one this much nearer")
def _(first, second):
    for dimension in (first, second):
        ratio = theory.uniform_keys_scaling(tokens=4e6, dimension=dimension) / theory.uniform_keys_scaling(
            tokens=1e6, dimension=dimension
        )
        near = nearest_squared_distance(1e6, dimension) / nearest_squared_distance(4e6, dimension)
        assert ratio == pytest.approx(near, rel=2e-3)
        assert theory.uniform_keys_scaling(tokens=1, dimension=dimension) == 1.0
    with pytest.raises(ValueError, match="dimension must be at least 2"):
        theory.uniform_keys_scaling(tokens=10, dimension=1)


SPREAD = np.random.default_rng(2).normal(size=(2, 8, 3))
SPREAD -= SPREAD.mean(axis=1, keepdims=True)
WEIGHTS = np.random.default_rng(3).normal(size=(2, 3, 3))


@against(
    "kd.theory.rank_collapse_step",
    "the centred output of a softmax layer on nearly equal tokens, over the cube of their spread",
    rtol=1e-4, atol=1e-5,  # square of the spread, and rounding over its cube
    residual=tuple(SPREAD), weight=tuple(WEIGHTS),
)  # fmt: skip
def output_over_cube(residual, weight):
    def output(size):
        x = np.array([0.5, -0.3, 0.8]) + size * residual
        weights = np.exp(x @ weight @ x.T)
        out = weights @ x / weights.sum(axis=1, keepdims=True)
        return out - out.mean(axis=0)

    return (output(1e-3) - output(-1e-3)) / 2e-9  # the next order is even
