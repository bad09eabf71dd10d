"""Modes of a field and Renyi centres, against their definitions."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from tests.keywords.row import row

X = np.random.default_rng(5).normal(size=30)


def maxima(field, nodes):
    value = field(nodes)
    return nodes[1:-1][(value[1:-1] > value[:-2]) & (value[1:-1] >= value[2:]) & (value[1:-1] > 1e-200)]


@row("kd.clusters.density_modes", "x", X, X + 4.0, "the maxima move with the points")
def moved(first, second):
    modes = kd.clusters.density_modes(first, 40.0)
    np.testing.assert_allclose(kd.clusters.density_modes(second, 40.0), modes + 4.0, atol=0.02)


@row("kd.clusters.density_modes", "beta", 4.0, 400.0, "the maxima of the kernel estimate on a fine grid")
def on_a_fine_grid(first, second):
    nodes = np.linspace(-5, 5, 40_001)
    for beta in (first, second):
        expected = maxima(lambda t, beta=beta: np.exp(-beta * (t[:, None] - X) ** 2 / 2).sum(1), nodes)
        np.testing.assert_allclose(kd.clusters.density_modes(X, beta), expected, atol=0.05 * beta**-0.5)


@row("kd.clusters.density_modes", "period", None, 2 * np.pi, "on a circle the field of softmax attention counts")
def around(first, second):
    scaled(2 * np.pi, 3.0)
    nodes = np.linspace(0, 2 * np.pi, 40_001)
    expected = maxima(lambda t: np.exp(40.0 * (np.cos(t[:, None] - X) - 1)).sum(1), nodes)
    np.testing.assert_allclose(kd.clusters.density_modes(X, 40.0, period=second), expected, atol=0.01)
    across = np.array([0.01, 2 * np.pi - 0.01])
    assert len(kd.clusters.density_modes(across, 40.0, period=first)) == 2
    assert len(kd.clusters.density_modes(across, 40.0, period=second)) == 1


@row("kd.clusters.renyi_centres", "x", [0.0, 0.5, 1.2], [1.2, 0.5, 0.0], "earlier tokens claim later ones")
def earlier(first, second):
    assert kd.clusters.renyi_centres(np.array(first), 1.0).tolist() == [0, 2]
    assert kd.clusters.renyi_centres(np.array(second), 1.0).tolist() == [0, 2]
    assert kd.clusters.renyi_centres(np.array([0.5, *first]), 1.0).tolist() == [0]


@row("kd.clusters.renyi_centres", "separation", 0.4, 3.0, "a closed ball")
def ball(first, second):
    x = np.array([0.0, 3.0, 0.5])
    assert kd.clusters.renyi_centres(x, first).tolist() == [0, 1, 2]
    assert kd.clusters.renyi_centres(x, second).tolist() == [0]


@row("kd.clusters.renyi_centres", "space", None, kd.Torus(1.0), "its distance decides")
def wrapped(first, second):
    x = np.array([[0.02], [0.98]])
    assert kd.clusters.renyi_centres(x, 0.1, space=first).tolist() == [0, 1]
    assert kd.clusters.renyi_centres(x, 0.1, space=second).tolist() == [0]


@row("kd.clusters.renyi_centres", "strong", False, True, "tokens that are no centres claim as well")
def strength(first, second):
    x = np.array([0.0, 0.9, 1.5])
    assert kd.clusters.renyi_centres(x, 1.0, strong=first).tolist() == [0, 2]
    assert kd.clusters.renyi_centres(x, 1.0, strong=second).tolist() == [0]


def scaled(first, second):
    angles = np.mod(X, first)
    turned = kd.clusters.density_modes(angles * second / first, 40.0 * (first / second) ** 2, period=second)
    np.testing.assert_allclose(
        turned * first / second, kd.clusters.density_modes(angles, 40.0, period=first), atol=1e-9
    )
