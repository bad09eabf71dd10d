"""Rows of `kd.plots.phase`: a table of counts that is written down here."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from tests.keywords.figures import assert_drawn_on, drawing, mesh_values

BETAS, RADII = [1.0, 2.0, 4.0], [0.1, 0.2]
CLUSTERS = np.array([[5, 4, 3], [2, 2, 1]])  # (radius, beta), the mean over two seeds


def counts(**more):
    """Numbers of clusters by (beta, radius, seed), and whether the runs had settled."""
    by_seed = np.stack([CLUSTERS - [[1, 0, 0], [0, 0, 0]], CLUSTERS + [[1, 0, 0], [0, 0, 0]]], axis=-1)
    settled = np.array([[False, True, True], [True, True, True]])
    data = {
        "clusters": (("beta", "radius", "seed"), by_seed.swapaxes(0, 1)),
        "settled": (("radius", "beta"), settled),
    }
    return xarray.Dataset(data | more, coords={"beta": BETAS, "radius": RADII})


def drawn(dataset=None, **options):
    """The figure with its usual axes."""
    return kd.plots.phase(counts() if dataset is None else dataset, **({"x": "beta", "y": "radius"} | options))


def table(ax):
    """What the mesh shows, (rows, columns)."""
    return mesh_values(ax).reshape(len(ax.collections[0].get_coordinates()) - 1, -1)


ONE = {"value": "clusters"}


@drawing("kd.plots.phase", "dataset", 0, 3, "each cell is the mean over seeds; whole numbers have a colour each")
def _(first, second):
    for more in (first, second):
        ax = drawn(counts().drop_vars("settled") + more)
        np.testing.assert_allclose(table(ax), CLUSTERS + more)
        np.testing.assert_allclose(ax.collections[0].norm.boundaries, np.arange(1, 7) + more - 0.5)
        shades = ax.collections[0].to_rgba(CLUSTERS + more).reshape(-1, 4)
        assert len(np.unique(shades, axis=0)) == 5  # of six cells two are alike
    beyond = counts(clusters=(("radius", "beta"), CLUSTERS * [[1, 1, 1], [1, 1, 50]])).drop_vars("settled")
    picture = drawn(beyond).collections[0]
    np.testing.assert_allclose(picture.norm.boundaries, np.arange(2, 15) - 0.5)  # twelve, and one colour beyond
    assert picture.norm.extend == "max"
    many = counts(clusters=(("radius", "beta"), CLUSTERS * [[1, 1, 1], [30, 40, 50]])).drop_vars("settled")
    assert type(drawn(many).collections[0].norm).__name__ == "Normalize"  # most are beyond: a scale


@drawing(
    "kd.plots.phase", "x", "beta", "radius", "columns are its values, on a logarithmic axis where they grow by factors"
)
def _(first, second):
    ax = drawn(x=first, **ONE)
    assert (ax.get_xlabel(), ax.get_xscale(), ax.get_yscale()) == ("beta", "log", "linear")
    np.testing.assert_allclose(ax.get_xlim(), (2**-0.5, 2**2.5))
    np.testing.assert_allclose(table(drawn(x=second, y="beta", **ONE)), CLUSTERS.T)
    with pytest.raises(ValueError, match="x must be one of"):
        drawn(x="gamma", **ONE)


@drawing("kd.plots.phase", "y", "radius", "beta", "rows are its values")
def _(first, second):
    np.testing.assert_allclose(table(drawn(y=first, **ONE)), CLUSTERS)
    assert drawn(y=second, x="radius", **ONE).get_ylabel() == "beta"


@drawing("kd.plots.phase", "value", "clusters", "order", "the variable drawn; needed where there are several")
def _(first, second):
    data = counts(order=(("beta", "radius"), CLUSTERS.T / 10))
    np.testing.assert_allclose(table(drawn(data, value=first)), CLUSTERS)
    np.testing.assert_allclose(table(drawn(data, value=second)), CLUSTERS / 10)
    with pytest.raises(ValueError, match="value must be one of clusters, order, settled"):
        drawn(data)
    with pytest.raises(ValueError, match="got also time; choose with dataset.sel"):
        drawn(counts().clusters.expand_dims(time=2).to_dataset())


@drawing(
    "kd.plots.phase", "settled", None, "settled", "cells of runs that had not settled are hatched, and a legend says so"
)
def _(first, second):
    assert drawn(settled=first, **ONE).get_legend() is None
    ax = drawn(settled=second)
    (cell,) = [patch for patch in ax.patches if patch.get_hatch()]
    assert cell.get_edgecolor()[:3] == (0.25, 0.25, 0.25)  # dark on the brightest colour
    np.testing.assert_allclose([*cell.get_xy(), cell.get_width()], [2**-0.5, 0.05, 2**0.5 - 2**-0.5])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["not settled"]
    assert drawn(counts().assign(settled=counts().settled | True), settled=second).get_legend() is None


@drawing(
    "kd.plots.phase", "contours", True, False, "lines between whole numbers, or none, as by default between large cells"
)
def _(first, second):
    found = [len(drawn(**ONE, **options).collections) for options in ({}, {"contours": first}, {"contours": second})]
    assert found == [1, 2, 1]
    whole = np.add.outer(np.arange(8), np.arange(8)) // 4
    fine = xarray.Dataset({"clusters": (("radius", "beta"), whole)}, {"radius": range(1, 9), "beta": range(1, 9)})
    assert [len(drawn(part).collections) for part in (fine, fine.isel(radius=slice(7)))] == [2, 1]


@drawing("kd.plots.phase", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(lambda ax: drawn(ax=ax, **ONE), second, table, CLUSTERS)


@drawing("kd.plots.phase", "mesh", {}, {"vmin": 0.0, "cmap": "magma", "norm": None}, "viridis, or as asked for")
def _(first, second):
    assert drawn(**ONE, **first).collections[0].get_cmap().name == "viridis"
    picture = drawn(**ONE, **second).collections[0]
    assert (picture.get_cmap().name, picture.get_clim()[0]) == ("magma", 0.0)
