"""Rows of plots of a comparison: what lines and bands hold is what `kd.compare` says."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import krause_dynamics as kd
from tests.keywords.figures import assert_colours, assert_drawn_on, comparison, drawing, heights

STEPS = (10, 200, 3000)
REST, WIDE, EPS = 1, 1, 1  # places of without_first, of chord 0.8 and of 0.3
plots = kd.plots


def band(ax, number=0):
    """(low, high) of a band, by its places."""
    corners = ax.collections[number].get_paths()[0].vertices
    places = np.unique(corners[:, 0])
    return np.array([[corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()] for x in places]).T


def steps(quantity="order_parameter", depth=None, **options):
    return plots.emergence(comparison(STEPS), quantity=quantity, depth=depth, **options)


def known(name, *places, data=None):
    """(case, depth): means over sequences of a variable at places of its further dimensions, last dimension first."""
    data = comparison(STEPS) if data is None else data
    dims = [dim for dim in ("tokens", "radius", "eps") if dim in data[name].dims]
    chosen = data[name].isel(dict(zip(dims, places, strict=True)))
    return chosen.mean("sequence").transpose("case", ...).values


@drawing("kd.plots.difference", "comparison", "abc", "xy", "a line for each case but the reference, in its interval")
def _(first, second):
    for names in (first, second):
        data = comparison(tuple(names))
        ax = plots.difference(data)
        lines, chosen = ax.lines[1:], data.isel(case=slice(1, None), tokens=REST)  # the first line is at 0
        assert [line.get_label() for line in lines] == list(names[1:])
        # One case, one colour.
        colours = {line.get_label(): to_rgb(line.get_color()) for line in plots.synchronization(data).lines}
        assert [to_rgb(line.get_color()) for line in lines] == [
            colours[name] for name in names[1:]
        ]  # one case, one colour
        for number, line in enumerate(lines):
            np.testing.assert_allclose(line.get_xdata(), data.depth)
            np.testing.assert_allclose(line.get_ydata(), chosen.order_parameter_difference[number])
            np.testing.assert_allclose(band(ax, number), chosen.order_parameter_interval.isel(case=number).values)


@drawing("kd.plots.difference", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    data = comparison(("a", "b"))
    drawn = [data.order_parameter_difference.isel(case=1, tokens=REST)]
    assert_drawn_on(partial(plots.difference, data), second, lambda ax: heights(ax)[1:], drawn)


@drawing("kd.plots.difference", "quantity", "order_parameter", "entropy", "the variable that is drawn")
def _(first, second):
    data = comparison(("a", "b"))
    np.testing.assert_allclose(
        heights(plots.difference(data, quantity=first))[1], data.order_parameter_difference[1, REST]
    )
    ax = plots.difference(data, quantity=second)
    np.testing.assert_allclose(ax.lines[1].get_xdata(), data.block_depth)
    np.testing.assert_allclose(heights(ax)[1], data.entropy_difference[1])
    with pytest.raises(ValueError, match="quantity must be one of .* 'beauty'"):
        plots.difference(data, quantity="beauty")


@drawing("kd.plots.difference", "tokens", "without_first", "all", "which tokens")
def _(first, second):
    data = comparison(("a", "b"))
    for place, tokens in ((1, first), (0, second)):
        drawn = heights(plots.difference(data, tokens=tokens))[1]
        np.testing.assert_allclose(drawn, data.order_parameter_difference[1, place])
    np.testing.assert_allclose(heights(plots.difference(data))[1], data.order_parameter_difference[1, 1])


@drawing("kd.plots.difference", "radius", 0.8, 0.4, "the chord of clusters, to the nearest there is")
def _(first, second):
    data = comparison(("a", "b"))
    for place, radius in ((1, first), (0, second), (2, 7.0)):
        drawn = heights(plots.difference(data, quantity="clusters", radius=radius))[1]
        np.testing.assert_allclose(drawn, data.clusters_difference.sel(tokens="without_first")[1, place])


@drawing("kd.plots.difference", "eps", 0.3, 0.1, "the threshold of sinks")
def _(first, second):
    data = comparison(("a", "b"))
    for place, eps in ((1, first), (0, second)):
        drawn = heights(plots.difference(data, quantity="sink_rate", eps=eps))[1]
        np.testing.assert_allclose(drawn, data.sink_rate_difference.transpose("case", "eps", ...)[1, place])


@drawing("kd.plots.difference", "line", {"color": "red"}, {"linewidth": 7}, "of all lines of cases")
def _(first, second):
    assert_colours(plots.difference(comparison(), **first).lines[1:], ["red", "red"])
    assert [line.get_linewidth() for line in plots.difference(comparison(), **second).lines[1:]] == [7, 7]


@drawing("kd.plots.emergence", "comparison", STEPS, (1, 2), "a point a step, and the middle 80 per cent of sequences")
def _(first, second):
    for names in (first, second):
        data = comparison(names)
        ax = plots.emergence(data)
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), names)
        each = data.order_parameter.isel(tokens=REST).mean("depth").transpose("case", "sequence").values
        np.testing.assert_allclose(heights(ax)[0], each.mean(axis=1))
        np.testing.assert_allclose(band(ax), np.quantile(each, [0.1, 0.9], axis=1))
    with pytest.raises(ValueError, match="must have steps of a training as cases"):
        plots.emergence(comparison())


@drawing("kd.plots.emergence", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    drawn = [known("order_parameter", REST).mean(axis=1)]
    assert_drawn_on(partial(plots.emergence, comparison(STEPS)), second, heights, drawn)


@drawing("kd.plots.emergence", "quantity", "order_parameter", "entropy", "the variable that is drawn")
def _(first, second):
    np.testing.assert_allclose(heights(steps(first))[0], known(first, REST).mean(axis=1))
    np.testing.assert_allclose(heights(steps(second))[0], known(second).mean(axis=1))
    with pytest.raises(ValueError, match="quantity must be one of .* 'beauty'"):
        steps("beauty")


@drawing("kd.plots.emergence", "depth", None, 0.6, "mean over depth, or the nearest depth there is")
def _(first, second):
    np.testing.assert_allclose(heights(steps(depth=first))[0], known("order_parameter", REST).mean(axis=1))
    np.testing.assert_allclose(heights(steps(depth=second))[0], known("order_parameter", REST)[:, 2])  # 0.5


@drawing("kd.plots.emergence", "tokens", "without_first", "all", "which tokens")
def _(first, second):
    for place, tokens in ((1, first), (0, second)):
        np.testing.assert_allclose(heights(steps(tokens=tokens))[0], known("order_parameter", place).mean(axis=1))


@drawing("kd.plots.emergence", "radius", 0.8, 0.4, "the chord of clusters")
def _(first, second):
    for place, radius in ((1, first), (0, second)):
        drawn = heights(steps("clusters", depth=1.0, radius=radius))[0]
        np.testing.assert_allclose(drawn, known("clusters", REST, place)[:, -1])


@drawing("kd.plots.emergence", "eps", 0.3, 0.1, "the threshold of sinks")
def _(first, second):
    for place, eps in ((1, first), (0, second)):
        np.testing.assert_allclose(heights(steps("sink_rate", eps=eps))[0], known("sink_rate", place).mean(axis=1))


@drawing("kd.plots.emergence", "line", {"color": "red"}, {"marker": "s"}, "keywords of the line")
def _(first, second):
    assert_colours(steps(**first).lines, ["red"])
    assert steps(**second).lines[0].get_marker() == "s"


@drawing("kd.plots.emergence_figure", "comparison", STEPS, (1, 2), "alignment and clusters at the end, sinks in all")
def _(first, second):
    for names in (first, second):
        data = comparison(names)
        axes = plots.emergence_figure(data).axes
        np.testing.assert_allclose(heights(axes[0])[0], known("order_parameter", REST, data=data)[:, -1])
        np.testing.assert_allclose(heights(axes[1])[0], known("clusters", REST, WIDE, data=data)[:, -1])
        np.testing.assert_allclose(heights(axes[2])[0], known("sink_rate", EPS, data=data).mean(axis=1))


@drawing("kd.plots.difference_figure", "comparison", "abc", "xy", "differences of alignment, clusters and sinks")
def _(first, second):
    for names in (first, second):
        data = comparison(tuple(names))
        figure = plots.difference_figure(data)
        assert names[0] in figure.get_suptitle()
        drawn = [heights(ax)[1] for ax in figure.axes]
        np.testing.assert_allclose(drawn[0], data.order_parameter_difference[1, REST])
        np.testing.assert_allclose(drawn[1], data.clusters_difference.sel(tokens="without_first", radius=0.8)[1])
        np.testing.assert_allclose(drawn[2], data.sink_rate_difference.sel(eps=0.3)[1])
