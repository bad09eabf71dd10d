"""Plots of several analyses: by name, or as xarray puts them behind one another."""

from __future__ import annotations

import json

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from krause_dynamics import plots
from tests.keywords import figures, results
from tests.keywords.figures import analysis as hand
from tests.keywords.figures import heights, words


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def order(data):
    """Mean over sequences, of all tokens."""
    return data["order_parameter"].values[..., 0].mean(axis=0)


def counted(data):
    """Mean number of clusters within 0.8, without the first token, of the sequences that have tokens left."""
    return data["clusters"].values[1:, :, 1, 1].mean(axis=0)


SEVERAL = {"one": hand(0), "other": hand(1)}


def behind_one_another(named):
    """The same as ``xarray.concat`` makes it."""
    return xarray.concat(named.values(), "text", combine_attrs="drop").assign_coords(text=list(named))


@pytest.mark.parametrize("several", [SEVERAL, behind_one_another(SEVERAL)], ids=["mapping", "concat"])
def test_several_analyses_are_lines_of_their_own(several):
    known = [order(data) for data in SEVERAL.values()]
    ax = kd.plots.synchronization(several)
    np.testing.assert_allclose(heights(ax), known)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(5))
    assert words(ax.get_legend()) == list(SEVERAL)
    np.testing.assert_allclose(
        heights(kd.plots.clusters(several, radii=[0.8])), [counted(data) for data in SEVERAL.values()]
    )
    np.testing.assert_allclose(
        heights(kd.plots.norm_ratio(several)), [data["norm_ratio"].values.mean(axis=0) for data in SEVERAL.values()]
    )
    rates = kd.plots.sink_map(several, eps=0.3).images[0].get_array()
    np.testing.assert_allclose(rates, [data["sink_rate"].values[..., 1].mean(axis=-1) for data in SEVERAL.values()])


def test_several_of_unlike_depth_share_relative_depth():
    short = hand(1).isel(layer=slice(3), block=slice(2))
    ax = kd.plots.synchronization({"deep": hand(0), "short": short})
    np.testing.assert_allclose([ax.lines[0].get_xdata()[[0, -1]], ax.lines[1].get_xdata()[[0, -1]]], [[0, 1], [0, 1]])
    assert ax.get_xlabel().startswith("relative depth")
    alone = kd.plots.synchronization({"deep": hand(0)})
    np.testing.assert_allclose(heights(alone), [order(hand(0))])
    with pytest.raises(ValueError, match="at least one analysis"):
        kd.plots.synchronization({})
    with pytest.raises(TypeError, match=r"run\['a'\] must be the Dataset of kd.analyze"):
        kd.plots.synchronization({"a": 3})


def test_names_from_elsewhere_are_no_formulas():
    """Dollar signs in names of cases and models are drawn as such; before, half a formula ended the drawing."""
    named = {"costs $5": figures.analysis(), r"$\foo$": figures.analysis(1)}
    for drawn in (plots.synchronization(named), plots.sink_map(named, eps=0.3), plots.clusters(named)):
        drawn.figure.draw_without_rendering()
    for plot, data in ((plots.forecast, results.forecast()), (plots.branches, results.branches())):
        plot({r"$\foo$": data, "b": data}).figure.draw_without_rendering()
    meta = json.dumps(json.loads(figures.analysis().attrs["meta"]) | {"model": r"a$\b$"})
    plots.clusters_figure(figures.analysis().assign_attrs(meta=meta)).draw_without_rendering()
    assert plots.cases.plain("a$b") == r"a\$b"


@pytest.mark.parametrize("dim", ["sequence", "layer", "block", "radius"])
def test_of_nothing_nothing_is_drawn(dim):
    nothing = figures.analysis().isel({dim: []})
    with pytest.raises(ValueError, match=f"dataset must be the Dataset of kd.analyze with at least one {dim}, but has"):
        plots.clusters(nothing)


def test_what_is_no_number_leaves_a_gap_and_no_error():
    """An analysis that stopped, a branch that no block has, a forecast without numbers, lengths that are unknown."""
    unknown = figures.comparison().map(lambda x: x * np.nan if x.dtype.kind == "f" else x)
    plots.norm_ratio(unknown).figure.draw_without_rendering()
    assert plots.cases.title_of(unknown) == "3 cases"
    for draw, data in ((plots.branches_figure, results.branches()), (plots.forecast_figure, results.forecast())):
        draw(data * np.nan).draw_without_rendering()
    with pytest.raises(ValueError, match="at least 2 radii"):
        plots.cluster_map(figures.analysis().isel(radius=[0]))
