"""Laws as densities: gaussian, gaussian_nodes, uniform, von_mises, against scipy's distributions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
LINE, COARSE = mf.LineCells(40, -1.0, 3.0), mf.LineCells(9, -1.0, 3.0)


def gaussian(name, first, second):
    for value in (first, second):
        given = {"cells": LINE, "mean": 0.0, "deviation": 1.0} | {name: value}
        exact = np.diff(stats.norm(given["mean"], given["deviation"]).cdf(given["cells"].edges))
        found = mf.gaussian(**given).mass
        np.testing.assert_allclose(found, exact / exact.sum(), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(mf.gaussian(LINE).mass, mf.gaussian(LINE, mean=0.0, deviation=1.0).mass)


for name, first, second in (("cells", LINE, COARSE), ("mean", 0.0, 0.7), ("deviation", 1.0, 0.3)):
    states = f"masses are differences of the normal distribution function, with that {name}"
    row("kd.mean_field.gaussian", name, first, second, states)(partial(gaussian, name))


@row(
    "kd.mean_field.gaussian_nodes",
    "count",
    2,
    6,
    "moments to degree 2 count - 1 are those of the normal law, the next one is not",
)
def nodes_count(first, second):
    for count in (first, second):
        x, log_mass = mf.gaussian_nodes(count)
        assert x.shape == (count, 1)
        moments = [np.exp(log_mass) @ x[:, 0] ** k for k in range(2 * count + 1)]
        exact = [stats.norm.moment(k) for k in range(2 * count + 1)]
        np.testing.assert_allclose(moments[:-1], exact[:-1], rtol=1e-10, atol=1e-10)
        assert abs(moments[-1] / exact[-1] - 1) > 1e-3


def nodes_law(name, first, second):
    for value in (first, second):
        given = {"mean": 0.3, "deviation": 0.6} | {name: value}
        x, log_mass = mf.gaussian_nodes(5, **given)
        masses = np.exp(log_mass)
        assert masses.sum() == pytest.approx(1.0, rel=1e-13)
        assert masses @ x[:, 0] == pytest.approx(given["mean"], abs=1e-13)
        assert masses @ (x[:, 0] - given["mean"]) ** 2 == pytest.approx(given["deviation"] ** 2, rel=1e-12)
    np.testing.assert_array_equal(mf.gaussian_nodes(5)[0], mf.gaussian_nodes(5, mean=0.0, deviation=1.0)[0])


for name, first, second, states in (
    ("mean", 0.0, 1.7, "first moment of the weighted points"),
    ("deviation", 1.0, 0.4, "second central moment of the weighted points is its square"),
):
    row("kd.mean_field.gaussian_nodes", name, first, second, states)(partial(nodes_law, name))


@row(
    "kd.mean_field.uniform",
    "cells",
    LINE,
    mf.LatitudeCells(20, 3),
    "masses are the shares of the cells: of length, or of the sphere",
)
def uniform_cells(first, second):
    np.testing.assert_allclose(mf.uniform(first).mass, 1 / 40, rtol=1e-14)
    bands = -np.diff(np.cos(np.linspace(0, np.pi, 21))) / 2
    np.testing.assert_allclose(mf.uniform(second).mass, bands, rtol=1e-12)


@row(
    "kd.mean_field.uniform",
    "support",
    None,
    (-0.33, 1.27),
    "mass below x is that of the uniform law, also where it cuts a cell",
)
def uniform_support(first, second):
    for ends in (first, second):
        lower, upper = ends or (-1.0, 3.0)
        below = np.cumsum(mf.uniform(LINE, ends).mass)
        exact = np.clip((LINE.edges[1:] - lower) / (upper - lower), 0.0, 1.0)
        np.testing.assert_allclose(below, exact, atol=1e-14)
    with pytest.raises(ValueError, match="outside"):
        mf.uniform(LINE, (7.0, 8.0))


@row("kd.mean_field.uniform", "mass", 1.0, 1.6, "the total; with the length of the support the density there is 1")
def uniform_mass(first, second):
    for total in (first, second):
        assert mf.uniform(LINE, (-0.3, 1.3), mass=total).total == pytest.approx(total, rel=1e-14)
    assert mf.uniform(LINE).total == pytest.approx(first, rel=1e-14)
    np.testing.assert_allclose(mf.uniform(LINE, (-0.3, 1.3), mass=second).values[7:23], 1.0, rtol=1e-13)


@row(
    "kd.mean_field.von_mises",
    "cells",
    60,
    mf.CircleCells(45),
    "a number means so many cells of the circle; masses from scipy's law",
)
def von_mises_cells(first, second):
    for cells, count in ((first, 60), (second, 45)):
        density = mf.von_mises(cells, 2.0, mean=1.0)
        exact = np.diff(stats.vonmises(2.0, loc=1.0).cdf(np.linspace(0, 2 * np.pi, count + 1)))
        np.testing.assert_allclose(density.mass, exact, rtol=1e-9)
    with pytest.raises(ValueError, match="CircleCells"):
        mf.von_mises(LINE, 2.0)


@row(
    "kd.mean_field.von_mises",
    "kappa",
    0.5,
    3.0,
    "scipy's law on the circle; on S^2 differences of exp(kappa cos), the law of von Mises and Fisher",
)
def von_mises_kappa(first, second):
    for kappa in (first, second, -second):
        angles = np.linspace(0, np.pi, 31)
        exact = -np.diff(np.exp(kappa * np.cos(angles)))
        found = mf.von_mises(mf.LatitudeCells(30, 3), kappa).mass
        np.testing.assert_allclose(found, exact / exact.sum(), rtol=1e-9)
    for kappa in (first, second):
        exact = np.diff(stats.vonmises(kappa).cdf(np.linspace(0, 2 * np.pi, 61)))
        np.testing.assert_allclose(mf.von_mises(60, kappa).mass, exact, rtol=1e-9)


@row(
    "kd.mean_field.von_mises",
    "mean",
    0.0,
    np.pi / 2,
    "a quarter turn of the maximum turns the masses by a quarter of the cells",
)
def von_mises_mean(first, second):
    still, turned = (mf.von_mises(60, 2.0, mean) for mean in (first, second))
    np.testing.assert_allclose(turned.mass, np.roll(still.mass, 15), rtol=1e-12)
    np.testing.assert_array_equal(mf.von_mises(60, 2.0).mass, still.mass)
    assert still.mass.argmax() in (0, 59)
    with pytest.raises(ValueError, match="mean"):
        mf.von_mises(mf.LatitudeCells(30, 3), 2.0, second)
