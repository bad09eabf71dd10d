"""Cells, and densities on them from masses, functions and particles."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
LINE, COARSE = mf.LineCells(40, -1.0, 3.0), mf.LineCells(9, -1.0, 3.0)


@row(
    "kd.mean_field.CircleCells",
    "count",
    8,
    30,
    "so many arcs of 2 pi / count, their middles on the unit circle in order of the angle",
)
def circle_count(first, second):
    for count in (first, second):
        cells = mf.CircleCells(count)
        angles = (np.arange(count) + 0.5) * 2 * np.pi / count
        np.testing.assert_allclose(cells.volumes, 2 * np.pi / count, rtol=1e-14)
        np.testing.assert_allclose(cells.centres, angles, rtol=1e-14)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        np.testing.assert_allclose(cells.points(cells.centres), points, atol=1e-14)
    with pytest.raises(ValueError, match="count"):
        mf.CircleCells(0)


@row(
    "kd.mean_field.LatitudeCells",
    "count",
    12,
    31,
    "bands of equal angle; on S^2 their shares of the area are half the differences of the cosine",
)
def latitude_count(first, second):
    for count in (first, second):
        angles = np.linspace(0.0, np.pi, count + 1)
        cells = mf.LatitudeCells(count, 3)
        np.testing.assert_allclose(cells.edges, angles, rtol=1e-14)
        np.testing.assert_allclose(cells.volumes, (np.cos(angles[:-1]) - np.cos(angles[1:])) / 2, rtol=1e-12)


@row(
    "kd.mean_field.LatitudeCells",
    "dimension",
    2,
    5,
    "shares of S^(d-1): (1 + cos)/2 has the law Beta((d-1)/2, (d-1)/2)",
)
def latitude_dimension(first, second):
    for d in (first, second):
        cells = mf.LatitudeCells(20, d)
        shares = -np.diff(stats.beta((d - 1) / 2, (d - 1) / 2).cdf((1 + np.cos(cells.edges)) / 2))
        np.testing.assert_allclose(cells.volumes, shares, rtol=1e-10, atol=1e-15)
        assert cells.points(cells.centres).shape == (20, d)
    with pytest.raises(ValueError, match="dimension"):
        mf.LatitudeCells(20, 1)


def line_cells(name, first, second):
    for value in (first, second):
        given = {"count": 10, "lower": 0.0, "upper": 1.0} | {name: value}
        cells, lower, length = mf.LineCells(**given), given["lower"], given["upper"] - given["lower"]
        edges = lower + np.arange(given["count"] + 1) * length / given["count"]
        np.testing.assert_allclose(cells.edges, edges, atol=1e-14)
        cells.check_space(kd.Interval(lower, given["upper"]))
        with pytest.raises(ValueError, match="cover"):
            cells.check_space(kd.Interval(lower - 0.5, given["upper"] + 0.5))


for name, first, second, states in (
    ("count", 10, 25, "so many equal cells from lower to upper"),
    ("lower", 0.0, -2.0, "the cells begin there, which an interval must as well"),
    ("upper", 1.0, 5.0, "the cells end there, which an interval must as well"),
):
    row("kd.mean_field.LineCells", name, first, second, states)(partial(line_cells, name))


MASS = np.array([1.0, 0.0, 3.0, 4.0])


@row(
    "kd.mean_field.Density",
    "cells",
    mf.LineCells(4, 0.0, 1.0),
    mf.LineCells(4, -2.0, 6.0),
    "the same masses elsewhere: mean and variance of points at the middles, value = mass / width",
)
def density_cells(first, second):
    for cells in (first, second):
        density = mf.Density(cells, MASS)
        at = cells.lower + cells.width * np.array([0.5, 1.5, 2.5, 3.5])
        assert density.mean == pytest.approx(np.average(at, weights=MASS), rel=1e-14)
        assert density.variance == pytest.approx(np.cov(at, aweights=MASS, ddof=0), rel=1e-13)
        np.testing.assert_allclose(density.values, MASS / cells.width)


@row(
    "kd.mean_field.Density",
    "mass",
    MASS,
    MASS[::-1] / 8,
    "total, log-masses and quantiles of those masses; negative ones are refused",
)
def density_mass(first, second):
    for mass in (first, second):
        density = mf.Density(mf.LineCells(4, 0.0, 4.0), mass)
        assert density.total == pytest.approx(mass.sum(), rel=1e-15)
        np.testing.assert_allclose(np.exp(density.log_mass), mass)
        middle = np.interp(0.5, np.concatenate([[0.0], np.cumsum(mass) / mass.sum()]), np.arange(5.0))
        np.testing.assert_allclose(density.quantiles(1), [[middle]], rtol=1e-14)
    with pytest.raises(ValueError, match="negative"):
        mf.Density(mf.LineCells(4, 0.0, 4.0), -first)


def square(x):
    return (x + 1) ** 2


def line_of_slope(x):
    return x + 1.5


INTEGRALS = {square: lambda x: (x + 1) ** 3 / 3, line_of_slope: lambda x: x**2 / 2 + 1.5 * x}


def from_function(name, first, second):
    for value in (first, second):
        given = {"cells": LINE, "function": square} | {name: value}
        exact = np.diff(INTEGRALS[given["function"]](given["cells"].edges))
        np.testing.assert_allclose(mf.from_function(**given).mass, exact / exact.sum(), rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="negative"):
        mf.from_function(LINE, lambda x: x)


for name, first, second, states in (
    ("cells", LINE, COARSE, "mass of each cell is the exact integral, whatever the cells"),
    ("function", square, line_of_slope, "mass of each cell is the exact integral of a polynomial"),
):
    row("kd.mean_field.from_function", name, first, second, states)(partial(from_function, name))


@row(
    "kd.mean_field.from_function",
    "mass",
    1.0,
    2.5,
    "the total after scaling; None keeps the integral, 64/3 of (x + 1)^2 over [-1, 3]",
)
def from_function_mass(first, second):
    for total in (first, second):
        assert mf.from_function(LINE, square, mass=total).total == pytest.approx(total, rel=1e-14)
    assert mf.from_function(LINE, square, mass=None).total == pytest.approx(64 / 3, rel=1e-13)
    assert mf.from_function(LINE, square).total == pytest.approx(first, rel=1e-14)


PARTICLES = np.array([-0.5, 0.73, 0.31, 2.2])
LOG_MASS = np.log([0.1, 0.2, 0.3, 0.8])


def from_particles(name, first, second):
    for value in (first, second):
        given = {"cells": LINE, "x": PARTICLES, "log_mass": LOG_MASS} | {name: value}
        cells, x, log_mass = given.values()
        masses = np.full(len(x), 1 / len(x)) if log_mass is None else np.exp(log_mass)
        density = mf.from_particles(**given)
        assert density.total == pytest.approx(masses.sum(), rel=1e-14)
        assert density.mean == pytest.approx(np.average(x, weights=masses), rel=1e-13)
        assert (np.abs(cells.centres[density.mass > 0][:, None] - x).min(axis=1) < cells.width).all()
    one = mf.from_particles(LINE, LINE.centres[7:8])
    np.testing.assert_allclose(one.mass, np.eye(40)[7], atol=1e-12)


for name, first, second, states in (
    ("cells", LINE, COARSE, "each particle's mass lies in its two nearest cells, its position the mean of them"),
    ("x", PARTICLES, PARTICLES[::-1] * 0.5, "the mean is that of the particles; one at a middle fills one cell"),
    ("log_mass", None, LOG_MASS, "equal shares of 1 by default, else those masses: total and weighted mean"),
):
    row("kd.mean_field.from_particles", name, first, second, states)(partial(from_particles, name))
