"""Rows of `kd.plots` over layers: curves are means over sequences of a Dataset written down, or closed forms."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.figures import analysis, assert_colours, assert_drawn_on, drawing, heights, words

LAYERS = np.arange(5)
ALL, REST = 0, 1  # along the dimension of tokens
RADII = [0.4, 0.8, 1.0]  # of the Dataset; chords of 23, 47 and 60 degrees
DEGREE = "\N{DEGREE SIGN}"


def mean_of(data, name, *index):
    """Mean over sequences by layer, in numpy."""
    return data[name].values[(slice(None), slice(None), *index)].mean(axis=0)


def clusters_of(data, tokens=REST, name="clusters"):
    """Mean over the sequences that have tokens left, the widest radius first."""
    values = data[name].values[1:, :, tokens].astype(float)  # the first of `analysis` has none
    return values.mean(axis=0).T[::-1]


def apart(degrees):
    """Pairs of particles on the circle at angles of their own, one a time."""
    half = np.radians(np.asarray(degrees)) / 2
    pairs = np.stack([np.stack([np.cos(half), s * np.sin(half)], axis=-1) for s in (1, -1)], axis=1)
    return kd.Trajectory(np.arange(float(len(half))) / 2, pairs)


ANGLES = np.array([120.0, 90.0, 0.0])


@drawing("kd.plots.synchronization", "run", 0, 1,
         "the mean over sequences within a band of 80 per cent; of a run R of a pair is cos(angle/2)")  # fmt: skip
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        ax = kd.plots.synchronization(data)
        np.testing.assert_allclose(
            ax.lines[0].get_xydata(), np.transpose([LAYERS, mean_of(data, "order_parameter", ALL)])
        )
        corners = ax.collections[0].get_paths()[0].vertices[:, 1]
        values = np.sort(data["order_parameter"].values[:, :, ALL], axis=0)
        for low, middle, high in values.T:  # of three values the quantiles 0.1 and 0.9 lie at 0.2 of the way
            for edge in (0.8 * low + 0.2 * middle, 0.2 * middle + 0.8 * high):
                assert np.isclose(corners, edge).any()
    ax = kd.plots.synchronization(apart(ANGLES))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.transpose([[0, 0.5, 1], np.cos(np.radians(ANGLES) / 2)]))
    assert (ax.get_xlabel(), len(ax.collections)) == ("time", 0)
    ax = kd.plots.synchronization({"wide": apart(ANGLES), "near": apart(ANGLES / 2)})
    np.testing.assert_allclose(heights(ax), np.cos(np.radians([ANGLES, ANGLES / 2]) / 2))
    assert words(ax.get_legend()) == ["wide", "near"]


@drawing("kd.plots.synchronization", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [np.cos(np.radians(ANGLES) / 2)]
    assert_drawn_on(partial(kd.plots.synchronization, apart(ANGLES)), second, heights, known)


@drawing("kd.plots.synchronization", "quantity", "order_parameter", "mean_cosine",
         "of a pair R is cos(angle/2), the mean cosine cos(angle) and the residual sin(angle/2)")  # fmt: skip
def _(first, second):
    angle = np.radians(ANGLES)
    for options, known in (
        ({}, np.cos(angle / 2)), ({"quantity": first}, np.cos(angle / 2)), ({"quantity": second}, np.cos(angle)),
        ({"quantity": "residual"}, np.sin(angle / 2)),
    ):  # fmt: skip
        np.testing.assert_allclose(heights(kd.plots.synchronization(apart(ANGLES), **options)), [known], atol=1e-12)
    data = analysis()
    for name in (first, second, "residual", "effective_rank"):
        known = mean_of(data, name, ALL)
        np.testing.assert_allclose(heights(kd.plots.synchronization(data, quantity=name)), [known])
    with pytest.raises(ValueError, match="quantity must be one of .* 'beauty'"):
        kd.plots.synchronization(data, quantity="beauty")


@drawing("kd.plots.synchronization", "tokens", "all", "without_first",
         "the curve is of all tokens, by default too, or equals that of the run without its first one")  # fmt: skip
def _(first, second):
    data, pair = analysis(), apart(ANGLES)
    sideways = np.broadcast_to([0.6, 0.8], (3, 1, 2))
    three = kd.Trajectory(pair.times, np.concatenate([sideways, pair.positions], axis=1))
    whole = np.linalg.norm(three.positions.mean(axis=1), axis=-1)
    for options, tokens, known in (
        ({}, ALL, whole), ({"tokens": first}, ALL, whole), ({"tokens": second}, REST, np.cos(np.radians(ANGLES) / 2))
    ):  # fmt: skip
        np.testing.assert_allclose(heights(kd.plots.synchronization(three, **options)), [known])
        known = mean_of(data, "order_parameter", tokens)
        np.testing.assert_allclose(heights(kd.plots.synchronization(data, **options)), [known])
    for run in (data, three):
        with pytest.raises(ValueError, match="tokens must be .* 'first'"):
            kd.plots.synchronization(run, tokens="first")


@drawing(
    "kd.plots.synchronization",
    "line",
    {},
    {"label": "mine", "color": "C3"},
    "line and band have that colour, and the line its name",
)
def _(first, second):
    for line, names, colour in ((first, [], "C0"), (second, ["mine"], "C3")):
        ax = kd.plots.synchronization(analysis(), **line)
        assert ax.get_legend_handles_labels()[1] == names
        assert_colours([ax.lines[0], ax.collections[0]], [colour] * 2)


@drawing("kd.plots.norm_ratio", "dataset", 0, 1, "the mean ratio over sequences by layer, on a scale of decades")
def _(first, second):
    for seed in (first, second):
        ax = kd.plots.norm_ratio(analysis(seed))
        known = np.transpose([LAYERS, mean_of(analysis(seed), "norm_ratio")])
        np.testing.assert_allclose(ax.lines[0].get_xydata(), known)
        assert ax.get_yscale() == "log"


@drawing("kd.plots.norm_ratio", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(partial(kd.plots.norm_ratio, analysis()), second, heights, [mean_of(analysis(), "norm_ratio")])


@drawing("kd.plots.norm_ratio", "line", {}, {"label": "mine", "color": "C3"}, "the line has that name and colour")
def _(first, second):
    for line, names, colour in ((first, [], "C0"), (second, ["mine"], "C3")):
        ax = kd.plots.norm_ratio(analysis(), **line)
        assert ax.get_legend_handles_labels()[1] == names
        assert_colours(ax.lines, [colour])


@drawing("kd.plots.clusters", "dataset", 0, 1,
         "the mean over sequences that have tokens left, by radius; a chord of 1 is named 60 degrees")  # fmt: skip
def _(first, second):
    for seed in (first, second):
        ax = kd.plots.clusters(analysis(seed))
        np.testing.assert_allclose(heights(ax), clusters_of(analysis(seed)))
        np.testing.assert_array_equal([line.get_xdata() for line in ax.lines], [LAYERS] * 3)
        assert words(ax.get_legend()) == [f"{angle}{DEGREE}" for angle in (60, 47, 23)]
        assert ax.get_yscale() == "log"


@drawing("kd.plots.clusters", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(partial(kd.plots.clusters, analysis()), second, heights, clusters_of(analysis()))


@drawing(
    "kd.plots.clusters", "radii", None, [0.4, 1.0], "those radii, the widest first; those of the Dataset by default"
)
def _(first, second):
    known = clusters_of(analysis())
    np.testing.assert_allclose(heights(kd.plots.clusters(analysis(), radii=first)), known)
    for radii in (second, second[::-1], [0.45, 0.97]):  # those nearest in the Dataset
        np.testing.assert_allclose(heights(kd.plots.clusters(analysis(), radii=radii)), known[[0, 2]])


@drawing(
    "kd.plots.clusters", "tokens", "without_first", "all", "counts are of the others, by default too, or of all tokens"
)
def _(first, second):
    for options, tokens in (({}, REST), ({"tokens": first}, REST), ({"tokens": second}, ALL)):
        np.testing.assert_allclose(heights(kd.plots.clusters(analysis(), **options)), clusters_of(analysis(), tokens))


@drawing(
    "kd.plots.clusters", "quantity", "clusters", "effective_clusters", "whole numbers by default, or effective ones"
)
def _(first, second):
    data = analysis()
    effective = data["effective_clusters"].values[:, :, REST].mean(axis=0).T[::-1]
    for options, known, label in (
        ({}, clusters_of(data), "clusters of token directions"),
        ({"quantity": first}, clusters_of(data), "clusters of token directions"),
        ({"quantity": second}, effective, "effective clusters"),
    ):
        ax = kd.plots.clusters(data, **options)
        np.testing.assert_allclose(heights(ax), known)
        assert ax.get_ylabel() == label


@drawing(
    "kd.plots.clusters",
    "line",
    {},
    {"color": "C3", "marker": "s"},
    "a shade a radius, darker is wider; or as asked for",
)
def _(first, second):
    shades = [line.get_color() for line in kd.plots.clusters(analysis(), **first).lines]
    assert (np.diff([sum(shade[:3]) for shade in shades]) > 0).all()
    lines = kd.plots.clusters(analysis(), **second).lines
    assert_colours(lines, ["C3"] * 3)
    assert {line.get_marker() for line in lines} == {"s"}


def shown_rates(ax):
    """The picture, and the words on its colour bar."""
    return np.asarray(ax.images[0].get_array()), ax.figure.axes[-1].get_ylabel()


@drawing(
    "kd.plots.sink_map", "dataset", 0, 1, "colours are the rates, block by head, whatever their order in the Dataset"
)
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        for given in (data, data.transpose("eps", "head", "block", ...)):
            ax = kd.plots.sink_map(given)
            np.testing.assert_array_equal(shown_rates(ax)[0], data["sink_rate"].values[:, :, 1])
            assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "3", "4"]
            assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]


@drawing("kd.plots.sink_map", "ax", None, 1, "a new figure, or the axes given and none but a colour bar beside")
def _(_, second):
    known = analysis()["sink_rate"].values[:, :, 1]
    assert_drawn_on(partial(kd.plots.sink_map, analysis()), second, lambda ax: shown_rates(ax)[0], known)


@drawing(
    "kd.plots.sink_map", "eps", None, 0.1, "rates at that threshold, or at the reports'; the colour bar says which"
)
def _(first, second):
    for options, column, percent in (({}, 1, 30), ({"eps": first}, 1, 30), ({"eps": second}, 0, 10)):
        rates, label = shown_rates(kd.plots.sink_map(analysis(), **options))
        np.testing.assert_array_equal(rates, analysis()["sink_rate"].values[:, :, column])
        assert f"over {percent} % of attention" in label


@drawing(
    "kd.plots.sink_map", "image", {}, {"cmap": "magma", "vmax": 50}, "colours of 0 to 100 per cent, or as asked for"
)
def _(first, second):
    for image, name, top in ((first, "viridis", 100), (second, "magma", 50)):
        picture = kd.plots.sink_map(analysis(), **image).images[0]
        assert (picture.get_cmap().name, picture.get_clim()) == (name, (0, top))


@drawing("kd.plots.synchronization", "band", "spread", "interval",
         "deciles of sequences, or where `kd.checkpoints.interval` has their mean; spread by default")  # fmt: skip
def _(first, second):
    data = analysis()
    sides = {
        "spread": np.quantile(data["order_parameter"].values[:, :, ALL], [0.1, 0.9], axis=0),
        "interval": kd.checkpoints.interval(data)["order_parameter"].sel(tokens="all", estimate=["low", "high"]),
        "entropy": kd.checkpoints.interval(data.mean("head"))["entropy"].sel(estimate=["low", "high"]),
    }
    entropy = {"quantity": "entropy", "band": second}
    wide = [({"band": first}, "spread"), ({}, "spread")]
    for options, name in (*wide, ({"band": second}, "interval"), (entropy, "entropy")):
        corners = kd.plots.synchronization(data, **options).collections[0].get_paths()[0].vertices
        for place, known in zip(np.unique(corners[:, 0]), np.asarray(sides[name]).T, strict=True):
            here = corners[corners[:, 0] == place, 1]
            np.testing.assert_allclose([here.min(), here.max()], known)
