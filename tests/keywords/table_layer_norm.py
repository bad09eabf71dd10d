"""Rows of normalisation schemes and of random value matrices: dynamics and theory, against matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

import krause_dynamics as kd
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_theory_sphere import equiangular, follow
from tests.keywords.table_top_dynamics import CLOSE, U, X, drift, softmax_mean


def halved(t, x, v):
    return v / (2 + t)


@row("kd.Dynamics", "response", None, halved, "what is made of the drift at its time, before it is projected")
def response(first, second):
    np.testing.assert_array_equal(drift(response=first), drift())
    np.testing.assert_allclose(kd.Dynamics(kd.softmax(1.3), response=second).drift(2.0, X), drift() / 4, **CLOSE)
    lifted = kd.Dynamics(kd.softmax(1.3), kd.Sphere(), response=lambda t, x, v: v + 3 * x).drift(0.0, U)
    np.testing.assert_allclose(lifted, drift(U, space=kd.Sphere()), **CLOSE)
    with pytest.raises(TypeError, match="response must be a function"):
        kd.Dynamics(kd.softmax(1.3), response=2.0)


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def tangent(y, a):
    return a - np.sum(a * y, axis=-1, keepdims=True) * y


def moved(scheme, x, t=0.0, beta=1.3, rate=1.0, switch=1.0):
    """Velocity of tokens (n, d) under a scheme, written from its layer: x <- norm(x + tau A), x + tau A(norm x), ..."""
    y = unit(x)
    heard = softmax_mean(y, y, y, beta)
    return {
        "post": tangent(y, heard),
        "pre": heard,
        "peri": unit(heard),
        "ngpt": tangent(y, rate * unit(heard)),
        "scaled": tangent(y, heard) / np.sqrt(t + 1),
        "pre_scaled": heard / np.sqrt(t + 1),
        "mix": heard if t >= switch else tangent(y, heard),
    }[scheme]


SCHEMES = ("post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix")
OFF = 1.7 * U  # lengths other than 1, where the scheme has them


@row("kd.layer_normed", "rule", kd.softmax(1.3), kd.softmax(0.4), "every scheme moves tokens by what its rule hears")
def layer_normed_rule(first, second):
    for rule, beta in ((first, 1.3), (second, 0.4)):
        velocity = kd.layer_normed(rule, "pre").drift(0.0, OFF)
        np.testing.assert_allclose(velocity, moved("pre", OFF, beta=beta), **CLOSE)


@row("kd.layer_normed", "scheme", "post", "peri", "velocities of the layer written out, for all seven, at two times")
def layer_normed_scheme(first, second):
    for scheme in (first, second, *SCHEMES):
        for t in (0.0, 3.0):
            x = U if scheme in ("post", "ngpt", "scaled") else OFF
            velocity = kd.layer_normed(kd.softmax(1.3), scheme).drift(t, x)
            np.testing.assert_allclose(velocity, moved(scheme, x, t), **CLOSE)
    with pytest.raises(ValueError, match="scheme must be 'post'"):
        kd.layer_normed(kd.softmax(1.3), "layer")


@row("kd.layer_normed", "rate", 1.0, 0.3, "nGPT adds this share of the normalised output")
def layer_normed_rate(first, second):
    one, other = (kd.layer_normed(kd.softmax(1.3), "ngpt", rate=r).drift(0.0, U) for r in (first, second))
    np.testing.assert_allclose(one, moved("ngpt", U), **CLOSE)
    np.testing.assert_allclose(other, 0.3 * one, **CLOSE)


@row("kd.layer_normed", "switch", 1.0, 5.0, "Mix-LN keeps lengths before it and lets them grow from it on")
def layer_normed_switch(first, second):
    for switch, t in ((first, 0.5), (first, 1.0), (second, 1.0), (second, 5.0)):
        velocity = kd.layer_normed(kd.softmax(1.3), "mix", switch=switch).drift(t, OFF)
        np.testing.assert_allclose(velocity, moved("mix", OFF, t, switch=switch), **CLOSE)


@row("kd.layer_normed", "more", {}, {"value": -np.eye(3)}, "further fields of the dynamics: here the opposite value")
def layer_normed_more(first, second):
    one, other = (kd.layer_normed(kd.softmax(1.3), "pre", **more).drift(0.0, X) for more in (first, second))
    np.testing.assert_allclose(one, moved("pre", X), **CLOSE)
    np.testing.assert_allclose(other, -one, **CLOSE)


def followed(times, start, beta, tokens, scheme, rate=1.0, switch=1.0, radius=1.0):
    """Cosine and norm of tokens in R^n integrated in time; where the velocity jumps, in two pieces."""

    def run(x0, begin, end):
        def speed(flat):
            x, t = flat[:-1].reshape(tokens, tokens), flat[-1]
            return [*moved(scheme, x, t, beta, rate, switch).ravel(), 1.0]

        return follow(speed, [*np.ravel(x0), begin], [end - begin])[:-1, -1].reshape(tokens, tokens)

    end, x = times[-1], radius * equiangular(tokens, start)
    x = run(x, 0.0, end) if scheme != "mix" or end <= switch else run(run(x, 0.0, switch - 1e-12), switch, end)
    norms = np.linalg.norm(x, axis=1)
    return [[x[0] @ x[1] / norms[0] / norms[1]], [norms[0]]]


@against(
    "kd.theory.layer_norm_equiangular",
    "cosine and norm of tokens in R^n under the layer written out, integrated in time",
    times=([0.5], [3.0]), start=(0.2, -0.1), beta=(2.0, 0.5), tokens=(3, 4), scheme=("peri", "pre_scaled"),
    radius=(1.0, 2.0),
)  # fmt: skip
def followed_tokens(**arguments):
    return followed(**arguments)


@row("kd.theory.layer_norm_equiangular", "rate", 1.0, 0.3, "nGPT at a share of the output goes as fast as its clock")
@row("kd.theory.layer_norm_equiangular", "switch", 0.4, 1.5, "Mix-LN before and after it, integrated in two pieces")
def rate_and_switch(first, second):
    name, scheme = ("rate", "ngpt") if first == 1.0 else ("switch", "mix")
    for value in (first, second):
        given = {"times": [1.0], "start": 0.2, "beta": 2.0, "tokens": 3, "scheme": scheme, name: value}
        # The two pieces of Mix-LN meet up to 1e-12 of time.
        np.testing.assert_allclose(kd.theory.layer_norm_equiangular(**given), followed(**given), rtol=1e-8)


@against(
    "kd.theory.layer_norm_late_gap",
    "minus twice the integral of the late speed, by quadrature",
    times=(5.0, 9.0), scheme=("ngpt", "scaled"), rate=(0.8, 1.3),
)  # fmt: skip
def integrated_speed(times, scheme, rate):
    return -2 * quad(lambda t: rate if scheme == "ngpt" else t**-0.5, 0, times)[0]


@against(
    "kd.theory.layer_norm_early_gain",
    "the ratio of velocities of directions of tokens in R^n under the layer written out and under Post-LN",
    similarity=(0.2, -0.1), beta=(2.0, 0.5), tokens=(4, 6), scheme=("ngpt", "pre"), rate=(0.8, 1.3),
)  # fmt: skip
def ratio_of_speeds(similarity, beta, tokens, scheme, rate):
    x = equiangular(tokens, similarity)
    one, post = (tangent(x, moved(s, x, beta=beta, rate=rate)) for s in (scheme, "post"))
    return np.linalg.norm(one) / np.linalg.norm(post)


def ito(x, beta, heard=None):
    """Drift and variance of <x_0, x_1> for tokens (n, d) moved by P dV A: traces of projectors, no closed form."""
    d = x.shape[1]
    heard = softmax_mean(x, x, x, beta)[:2] if heard is None else heard
    first, second = (np.eye(d) - np.outer(y, y) for y in x[:2])
    product = np.trace(first @ second) * (heard[0] @ heard[1])
    shrink = 0.5 * sum(np.trace(p) * (a @ a) for p, a in zip((first, second), heard, strict=True))
    # d<x, y> = <P0 dV a0, x1> + <x0, P1 dV a1>: dV sees the matrix below.
    seen = np.outer(first @ x[1], heard[0]) + np.outer(second @ x[0], heard[1])
    return product - shrink * (x[0] @ x[1]), np.sum(seen**2)


@against(
    "kd.theory.random_value_rate",
    "Ito's formula with projectors as matrices, per dimension",
    similarity=(0.2, -0.1), beta=(1.5, 0.3), tokens=(4, 5), dimension=(8, 20),
)  # fmt: skip
def rate_by_projectors(similarity, beta, tokens, dimension):
    x = np.zeros((tokens, dimension))
    x[:, :tokens] = equiangular(tokens, similarity)
    return ito(x, beta)[0] / dimension


@against(
    "kd.theory.random_value_closure",
    "Ito's formula with projectors as matrices, extrapolated from two dimensions: it is linear in 1/d",
    similarity=(0.2, -0.1), beta=(1.5, 0.3), tokens=(4, 5),
)  # fmt: skip
def rate_of_high_dimension(similarity, beta, tokens):
    return 2 * rate_by_projectors(similarity, beta, tokens, 40) - rate_by_projectors(similarity, beta, tokens, 20)


@against(
    "kd.theory.random_value_exponents",
    "drift less half the variance of log(1 +- R) of two tokens 1e-6 from the ends, with projectors as matrices",
    rtol=1e-4,
    beta=(1.0, 0.4), dimension=(4, 7),
)  # fmt: skip
def exponents_by_projectors(beta, dimension):
    answer = []
    for sign in (-1.0, 1.0):
        gap, x = 1e-6, np.zeros((2, dimension))
        x[0, 0], x[1, :2] = 1.0, (sign * (1 - gap), np.sqrt(gap * (2 - gap)))
        speed, variance = ito(x, beta)
        answer.append(-sign * speed / gap - variance / (2 * gap**2))
    return answer


@against(
    "kd.theory.common_noise_moments",
    "drift and variance of the inner product of two tokens that hear themselves, with projectors as matrices",
    similarity=(0.4, -0.7),
)  # fmt: skip
def moments_by_projectors(similarity):
    x = np.zeros((2, 3))
    x[0, 0], x[1, :2] = 1.0, (similarity, np.sqrt(1 - similarity**2))
    return ito(x, 0.0, heard=x)


@against(
    "kd.theory.random_attention_bulk",
    "the second singular value of drawn weights",
    rtol=0.08,  # n^(-2/3)
    tokens=(200, 500), deviation=(0.3, 0.5),
)  # fmt: skip
def second_singular_value(tokens, deviation):
    weights = np.exp(deviation * np.random.default_rng(4).standard_normal((tokens, tokens)))
    return np.linalg.svd(weights / weights.sum(axis=1, keepdims=True), compute_uv=False)[1]


@against(
    "kd.theory.antipodal_threshold",
    "where the exponent of antipodal pairs changes sign",
    rtol=1e-4,
    dimension=(4, 9),
)  # fmt: skip
def sign_change(dimension):
    return brentq(lambda beta: exponents_by_projectors(beta, dimension)[0], 0.01, 5.0)
