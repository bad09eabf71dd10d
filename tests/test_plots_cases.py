"""Plots of several analyses: by name, or as xarray puts them behind one another."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import krause_dynamics as kd
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
