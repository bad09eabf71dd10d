"""Particles against a density: closed forms on the line, samples without number on the circle."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field
from tests.keywords.row import row

UNIFORM = mean_field.uniform(mean_field.LineCells(7, 0.0, 1.0))
RING = mean_field.von_mises(mean_field.CircleCells(64), 1.0)
distance = mean_field.wasserstein


@row("kd.mean_field.wasserstein", "x", 1, 5, "N midpoints are 1/(2 sqrt(3) N) from the uniform law")
def midpoints(first, second):
    for n in (first, second):
        x = (np.arange(n) + 0.5) / n
        assert distance(x, UNIFORM, p=2) == pytest.approx(kd.theory.quantile_start_error(n), rel=1e-12)


@row("kd.mean_field.wasserstein", "density", UNIFORM, RING, "that of samples without number")
def samples(first, second):
    x = np.array([0.1, 0.4, 0.45])
    many = first.quantiles(200_000)
    assert distance(x, first) == pytest.approx(kd.measures.wasserstein(x, many[:, 0]), abs=1e-5)
    angles = np.array([0.1, 2.0, -3.0])
    ring = kd.measures.wasserstein_circle(kd.Circle().from_angles(angles), second.quantiles(200_000))
    assert distance(angles, second) == pytest.approx(ring, abs=1e-5)
    assert distance(kd.Circle().from_angles(angles), second) == pytest.approx(distance(angles, second), rel=1e-12)


@row("kd.mean_field.wasserstein", "p", 1, 3, "one point at 0: the p-th moment of the density")
def moments(first, second):
    for p in (first, second):
        assert distance(np.zeros(1), UNIFORM, p=p) == pytest.approx((1 / (p + 1)) ** (1 / p), rel=1e-12)
    with pytest.raises(ValueError, match="p must be 1 on a circle"):
        distance(np.zeros(1), RING, p=second)


@row("kd.mean_field.wasserstein", "log_mass", None, [0.0, -np.inf], "a point without mass is not there")
def masses(first, second):
    x = np.array([0.0, 1.0])
    assert distance(x, UNIFORM, log_mass=first) == pytest.approx(0.25)
    assert distance(x, UNIFORM, log_mass=np.array(second)) == pytest.approx(0.5)
