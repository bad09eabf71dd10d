"""Rows of `kd.plots` for pairs, tracks and intervals: artists hold what was given."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

import krause_dynamics as kd
from tests.keywords import results
from tests.keywords.figures import analysis, assert_colours, assert_drawn_on, drawing, heights, words
from tests.keywords.table_plots_results_of_models import refused

plots = kd.plots
QUARTERS = np.array([0.125, 0.375, 0.625, 0.875])


def places(data):
    """The diagonal, and a line for each block."""
    return [QUARTERS, *data["cross"].place_by_quarter.mean(["sequence", "head"]).values]


@drawing("kd.plots.cross_places", "dataset", 0, 1, "a line a block, of the three Datasets or of the one alone")
def _(first, second):
    for seed in (first, second):
        data = results.pairs(seed)
        for given in (data, data["cross"]):
            np.testing.assert_allclose(heights(plots.cross_places(given)), places(data))
    with pytest.raises(ValueError, match="holds no place_by_quarter"):
        plots.cross_places(analysis())


@drawing("kd.plots.cross_places", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(partial(plots.cross_places, results.pairs()), second, heights, places(results.pairs()))


@drawing("kd.plots.cross_places", "line", {}, {"color": "C5"}, "darker is earlier, or as asked")
def _(first, second):
    lines = plots.cross_places(results.pairs(), **first).lines[1:]
    light = [sum(to_rgba(line.get_color())[:3]) for line in lines]
    assert light == sorted(light)
    assert_colours(plots.cross_places(results.pairs(), **second).lines[1:], ["C5"] * 4)


@drawing(
    "kd.plots.encoder_decoder_figure", "found", 0, 1, "both stacks over relative depth; sources by head and quarter"
)
def _(first, second):
    for seed in (first, second):
        data = results.pairs(seed)
        aligned, sinks, strongest, looks, _ = plots.encoder_decoder_figure(data).axes
        for ax, name, over in ((aligned, "order_parameter", "layer"), (sinks, "importance_first", "block")):
            for line, stack in zip(ax.lines, ("encoder", "decoder"), strict=True):
                values = data[stack][name]
                values = values.isel(tokens=1) if "tokens" in values.dims else values.mean("head")
                np.testing.assert_allclose(line.get_ydata(), values.mean("sequence"))
                np.testing.assert_allclose(line.get_xdata(), data[stack][over] / 4)
        np.testing.assert_allclose(strongest.images[0].get_array(), data["cross"].strongest_importance.mean("sequence"))
        np.testing.assert_allclose(heights(looks), places(data))
    with pytest.raises(TypeError, match="must be the three Datasets"):
        plots.encoder_decoder_figure({"cross": data["cross"]})


def aligned(seed=0, quantity="order_parameter"):
    """Means of both stacks."""
    found = [results.pairs(seed)[stack][quantity] for stack in ("encoder", "decoder")]
    found = [values.isel(tokens=1) if "tokens" in values.dims else values for values in found]
    return [values.mean([dim for dim in values.dims if dim not in ("layer", "block")]).values for values in found]


@drawing("kd.plots.stacks", "found", 0, 1, "a line for each stack over its relative depth, without the first token")
def _(first, second):
    for seed in (first, second):
        ax = plots.stacks(results.pairs(seed))
        np.testing.assert_allclose(heights(ax), aligned(seed))
        np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 0.25, 0.5, 0.75, 1])


@drawing("kd.plots.stacks", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(partial(plots.stacks, results.pairs()), second, heights, aligned())


@drawing("kd.plots.stacks", "quantity", "mean_cosine", "entropy", "the variable that is drawn, of layers or of heads")
def _(first, second):
    for quantity in (first, second):
        np.testing.assert_allclose(heights(plots.stacks(results.pairs(), quantity=quantity)), aligned(0, quantity))
    refused(plots.stacks, results.pairs())


@drawing("kd.plots.stacks", "line", {}, {"color": "C5"}, "colours of the cycle, or as asked")
def _(first, second):
    assert_colours(plots.stacks(results.pairs(), **first).lines, ["C0", "C1"])
    assert_colours(plots.stacks(results.pairs(), **second).lines, ["C5"] * 2)


def pixels(ax):
    return np.asarray(ax.images[0].get_array())


@drawing("kd.plots.tracks", "dataset", 0, 1, "rows are tokens that end together; a colour a track, blank is alone")
def _(first, second):
    ax = plots.tracks(results.tracks())
    # By the last layer: token 1 (track 0), then 2, 4, 5 (track 2), and those alone: 0 (of track 0 before), 3.
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "$c", "d", "\\n", "a", "$c"]
    # Tracks by the number of tokens over all layers: 0 and 2 five each, 1 four; 2 is the first colour.
    blank, zero, one, two = 0, 2, 4, 3
    known = [[zero] * 3, [one, one, two], [blank, two, two], [blank, two, two], [zero, zero, blank], [one, one, blank]]
    np.testing.assert_array_equal(pixels(ax), known)
    assert words(ax.get_legend()) == ["1: a | b", "2: d | e", "3: $c x2"]
    assert ax.get_legend().get_title().get_text() == "clusters within 41\N{DEGREE SIGN}"
    some = results.tracks().isel(layer=slice(second))
    assert pixels(plots.tracks(some)).shape == (6, 1)
    nobody = some.isel(track=slice(0)).assign(number=some.number * 0 - 1)
    assert not pixels(plots.tracks(nobody)).any()


@drawing("kd.plots.tracks", "ax", None, 1, "a new figure, high enough for its rows, or the axes given")
def _(_, second):
    fig, axes = plt.subplots(1, 2)
    assert plots.tracks(results.tracks(), ax=axes[second]) is axes[second]
    assert not axes[0].has_data()
    many = results.tracks().isel(token=np.arange(60) % 6)
    assert plots.tracks(many).figure.get_figheight() > 1.5 * fig.get_figheight()


@drawing("kd.plots.tracks", "named", 8, 1, "tracks with a colour of their own; others are grey and counted")
def _(first, second):
    assert set(np.unique(pixels(plots.tracks(results.tracks(), named=first)))) == {0, 2, 3, 4}
    ax = plots.tracks(results.tracks(), named=second)
    assert set(np.unique(pixels(ax))) == {0, 1, 2}
    assert words(ax.get_legend()) == ["1: a | b", "2 more"]


@drawing("kd.plots.tracks", "image", {}, {"alpha": 0.5}, "of the picture")
def _(first, second):
    assert plots.tracks(results.tracks(), **first).images[0].get_alpha() is None
    assert plots.tracks(results.tracks(), **second).images[0].get_alpha() == 0.5


def bands(ax):
    """(low, high) at the last place of each band."""
    found = []
    for band in ax.collections:
        corners = band.get_paths()[0].vertices
        last = corners[corners[:, 0] == corners[:, 0].max(), 1]
        found.append((last.min(), last.max()))
    return found


def middle(seed=0):
    return results.interval(seed).order_parameter.sel(tokens="without_first")


@drawing("kd.plots.interval", "dataset", 0, {"a": 0, "b": 1}, "the mean and the interval that it holds, of each")
def _(first, second):
    for seeds, data in (([0], results.interval()), ([0, 1], {name: results.interval(i) for name, i in second.items()})):
        ax = plots.interval(data)
        np.testing.assert_allclose(heights(ax), [middle(i).sel(estimate="mean") for i in seeds])
        np.testing.assert_allclose(bands(ax), [middle(i).sel(estimate=["low", "high"])[:, -1] for i in seeds])
        assert words(ax.get_legend()) == (["mean"] if seeds == [0] else list(second))
    assert ax.get_legend().get_title().get_text() == "band: 95% interval"


@drawing("kd.plots.interval", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [middle().sel(estimate="mean")]
    assert_drawn_on(partial(plots.interval, results.interval()), second, heights, known)


@drawing("kd.plots.interval", "quantity", "norm_ratio", "entropy", "the variable that is drawn, over layers or blocks")
def _(first, second):
    data = results.interval()
    np.testing.assert_allclose(heights(plots.interval(data, quantity=first)), [data[first].sel(estimate="mean")])
    assert plots.interval(data, quantity=second).get_xlabel() == "block"
    refused(plots.interval, data)


@drawing("kd.plots.interval", "tokens", "all", "without_first", "which of both")
def _(first, second):
    for tokens in (first, second):
        known = results.interval().order_parameter.sel(tokens=tokens, estimate="mean")
        np.testing.assert_allclose(heights(plots.interval(results.interval(), tokens=tokens)), [known])


@drawing("kd.plots.interval", "radius", 0.8, 0.4, "at which clusters are counted, the nearest")
def _(first, second):
    for radius in (first, second):
        known = results.interval().clusters.sel(tokens="without_first", estimate="mean", radius=radius)
        ax = plots.interval(results.interval(), quantity="clusters", radius=radius + 0.01)
        np.testing.assert_allclose(heights(ax), [known])


@drawing("kd.plots.interval", "eps", 0.3, 0.1, "of sinks, the nearest")
def _(first, second):
    for eps in (first, second):
        data = results.interval().sink_rate.sel(estimate="mean", eps=eps)
        largest = data.isel(head=int(np.argmax(data.mean("block").values)))
        ax = plots.interval(results.interval(), quantity="sink_rate", eps=eps + 0.01, heads=1)
        np.testing.assert_allclose(heights(ax), [largest])


@drawing("kd.plots.interval", "heads", 1, 2, "lines, from the head of the largest mean to that of the smallest")
def _(first, second):
    data = results.interval().entropy
    order = np.argsort(-data.sel(estimate="mean").mean("block").values)
    for heads in (first, second):
        ax = plots.interval(results.interval(), quantity="entropy", heads=heads)
        np.testing.assert_allclose(heights(ax), [data.sel(estimate="mean").isel(head=i) for i in order[:heads]])
        assert words(ax.get_legend()) == [f"head {i}" for i in order[:heads]]


@drawing("kd.plots.interval", "line", {}, {"color": "C5"}, "colours of the cycle, or as asked")
def _(first, second):
    assert_colours(plots.interval(results.interval(), **first).lines, ["C0"])
    assert_colours(plots.interval(results.interval(), **second).lines, ["C5"])
