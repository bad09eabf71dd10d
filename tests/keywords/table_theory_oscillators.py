"""Rows of `kd.theory`: oscillators, symmetric scores, one massive token, products of random matrices."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import cauchy, norm

from tests.keywords.against import against

RNG = np.random.default_rng(21)
X = RNG.standard_normal((4, 3))
X /= np.linalg.norm(X, axis=1, keepdims=True)
J = RNG.standard_normal((4, 4))
J += J.T
C = RNG.standard_normal((4, 3))
SKEW = np.array([[0.0, -1.0, 0.4], [1.0, 0.0, 2.0], [-0.4, -2.0, 0.0]])


@against(
    "kd.theory.oscillator_energy",
    "loops over pairs and oscillators",
    positions=(X, X[::-1].copy()), coupling=(J, 2 * J), stimulus=(C, -C),
)  # fmt: skip
def energy_by_loops(positions, coupling, stimulus):
    total = 0.0
    for i in range(4):
        total -= float(stimulus[i] @ positions[i])
        for j in range(4):
            total -= 0.5 * coupling[i, j] * float(positions[i] @ positions[j])
    return total


@against(
    "kd.theory.oscillator_energy_rate",
    "the energy by loops, before and after a short time of the oscillators' own equation",
    rtol=1e-7,
    positions=(X, X[::-1].copy()), coupling=(J, 2 * J), stimulus=(C, -C), rotation=(SKEW, -2 * SKEW),
)  # fmt: skip
def rate_by_differences(positions, coupling, stimulus, rotation):
    def speed(x):
        out = np.zeros_like(x)
        for i in range(4):
            pull = stimulus[i] + sum(coupling[i, j] * x[j] for j in range(4))
            out[i] = rotation @ x[i] + pull - (pull @ x[i]) * x[i]
        return out

    def moved(h):  # the middle of the path, to second order
        x = positions + h * speed(positions + 0.5 * h * speed(positions))
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    h = 1e-5
    ends = [energy_by_loops(moved(s * h), coupling, stimulus) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * h)


DENSITY = {"lorentz": lambda w, s: cauchy.pdf(w, scale=s), "normal": lambda w, s: norm.pdf(w, scale=s)}


@against(
    "kd.theory.kuramoto_critical_coupling",
    "2/(pi g(0)) with scipy's densities",
    width=(1.0, 0.3), law=("lorentz", "normal"),
)  # fmt: skip
def coupling_of_onset(width, law):
    return 2 / (np.pi * DENSITY[law](0.0, width))


@against(
    "kd.theory.kuramoto_locked_order",
    "the root of the self-consistency integral, by quadrature",
    rtol=1e-8,
    coupling=(4.0, 2.5), width=(1.0, 0.7), law=("lorentz", "normal"),
)  # fmt: skip
def order_by_quadrature(coupling, width, law):
    def excess(r):
        heard = lambda t: np.cos(t) ** 2 * DENSITY[law](coupling * r * np.sin(t), width)  # noqa: E731
        return coupling * quad(heard, -np.pi / 2, np.pi / 2, epsrel=1e-11)[0] - 1

    return brentq(excess, 1e-6, 1.0, xtol=1e-13)


S = RNG.standard_normal((5, 5))


@against(
    "kd.theory.reversible_law",
    "the left eigenvector of the weights",
    rtol=1e-10,
    scores=(S + S.T, S @ S.T),
)  # fmt: skip
def left_eigenvector(scores):
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(weights.T)
    law = vectors[:, np.argmax(values.real)].real
    return law / law.sum()


@against(
    "kd.theory.weight_floor",
    "softmax of one score -b among scores b",
    tokens=(4, 9), beta=(1.0, 2.0),
)  # fmt: skip
def least_weight(tokens, beta):
    scores = np.exp([-beta] + [beta] * (tokens - 1))
    return scores[0] / scores.sum()


@against(
    "kd.theory.leading_share_bound",
    "singular values of three orthogonal rows and one along the first, which reach the bound",
    massive=(9.0, 25.0), others=(3.0, 2.0), alignment=(0.4, 0.7),
)  # fmt: skip
def orthogonal_rows(massive, others, alignment):
    rest = others * (1 - alignment) / 2
    rows = np.diag(np.sqrt([massive, rest, rest]))
    along = np.zeros((1, 3))
    along[0, 0] = np.sqrt(others * alignment)
    spectrum = np.linalg.svd(np.vstack([rows, along]), compute_uv=False) ** 2
    return spectrum[0] / spectrum.sum()


@against(
    "kd.theory.spectral_entropy_bound",
    "the entropy of one value p and r - 1 equal ones",
    share=(0.6, 0.9), rank=(4, 20),
)  # fmt: skip
def entropy_of_equal_rest(share, rank):
    law = np.array([share] + [(1 - share) / (rank - 1)] * (rank - 1))
    return -np.sum(law * np.log(law))


@against(
    "kd.theory.common_noise_spectrum",
    "half the Laplacian of log R_kk of QR at the identity, over all entries, by differences",
    rtol=1e-5, atol=1e-5,
    dimension=(2, 5),
)  # fmt: skip
def laplacian_of_qr(dimension):
    h, one = 1e-3, np.eye(dimension)
    units = np.eye(dimension**2).reshape(-1, dimension, dimension)
    moved = np.concatenate([one + h * units, one - h * units])
    growth = np.log(np.abs(np.diagonal(np.linalg.qr(moved, mode="r"), axis1=1, axis2=2)))
    return growth.sum(axis=0) / (2 * h * h)
