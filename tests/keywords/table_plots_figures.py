"""Rows of `kd.plots` for whole figures: each panel holds what its own function draws, or numbers written down."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import krause_dynamics as kd
from tests.keywords.figures import analysis, drawing, heights, words


def rates(ax):
    return np.asarray(ax.images[0].get_array())


@drawing("kd.plots.layers_figure", "dataset", 0, 1,
         "above R of all, of the others and of independent tokens, below the norm of the first; names")  # fmt: skip
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        top, bottom = kd.plots.layers_figure(data).axes
        known = [data["order_parameter"].values[..., i].mean(axis=0) for i in (0, 1)]
        np.testing.assert_allclose(heights(top)[:2], known)
        np.testing.assert_allclose(heights(top)[2], 8**-0.5)  # of eight independent tokens
        np.testing.assert_allclose(heights(bottom), [data["norm_ratio"].values.mean(axis=0)])
        assert words(top.get_legend()) == ["all tokens", "without first token", "independent tokens, $T^{-1/2}$"]
        assert top.figure.get_suptitle().startswith("hand (T = 8)")
    data["length"] = ("sequence", [5, 8, 7])
    assert kd.plots.layers_figure(data).get_suptitle().startswith("hand (T = 5 to 8)")
    top, bottom = kd.plots.layers_figure({"a": analysis(first), "b": analysis(second)}).axes
    known = [analysis(seed)["order_parameter"].values[..., 1].mean(axis=0) for seed in (first, second)]
    np.testing.assert_allclose(heights(top)[:2], known)
    assert words(top.get_legend())[:2] == ["a", "b"]
    assert top.figure.get_suptitle().startswith("hand (T = 8)")  # both of one model
    assert len(bottom.lines) == 2


def cluster_lines(data):
    """Mean number of clusters of the others, a line a radius, the widest first."""
    return data["clusters"].values[1:, :, 1].mean(axis=0).T[::-1]


@drawing("kd.plots.clusters_figure", "dataset", 0, 1, "clusters of tokens without the first, under the model's name")
def _(first, second):
    for seed in (first, second):
        (ax,) = kd.plots.clusters_figure(analysis(seed)).axes
        np.testing.assert_allclose(heights(ax), cluster_lines(analysis(seed)))
        assert ax.figure.get_suptitle().startswith("hand (T = 8)")


@drawing("kd.plots.sinks_figure", "dataset", 0, 1, "the rates at the reports' threshold, under the model's name")
def _(first, second):
    for seed in (first, second):
        ax = kd.plots.sinks_figure(analysis(seed)).axes[0]
        np.testing.assert_array_equal(rates(ax), analysis(seed)["sink_rate"].values[..., 1])
        assert ax.get_title().startswith("hand (T = 8)")


@drawing("kd.plots.sinks_figure", "eps", None, 0.1, "rates at the reports' threshold, or at the one asked for")
def _(first, second):
    for eps, column in ((first, 1), (second, 0)):
        figure = kd.plots.sinks_figure(analysis(), eps)
        np.testing.assert_array_equal(rates(figure.axes[0]), analysis()["sink_rate"].values[..., column])


@drawing("kd.plots.clusters_and_sinks_figure", "dataset", 0, 1, "clusters on the left, rates of sinks on the right")
def _(first, second):
    for seed in (first, second):
        figure = kd.plots.clusters_and_sinks_figure(analysis(seed))
        np.testing.assert_allclose(heights(figure.axes[0]), cluster_lines(analysis(seed)))
        np.testing.assert_array_equal(rates(figure.axes[1]), analysis(seed)["sink_rate"].values[..., 1])
        assert figure.get_suptitle() == "hand (T = 8)"


@drawing(
    "kd.plots.clusters_and_sinks_figure",
    "eps",
    None,
    0.1,
    "rates at the reports' threshold, or at the one asked for",
)
def _(first, second):
    for eps, column in ((first, 1), (second, 0)):
        figure = kd.plots.clusters_and_sinks_figure(analysis(), eps)
        np.testing.assert_array_equal(rates(figure.axes[1]), analysis()["sink_rate"].values[..., column])


def pair(degrees):
    """Two particles on the circle, at minus and plus these angles."""
    radians = np.radians(np.multiply.outer(np.asarray(degrees, dtype=float), [-1, 1]))
    return kd.Trajectory(np.arange(float(len(degrees))), np.stack([np.cos(radians), np.sin(radians)], axis=-1))


def panels(runs, titles):
    return {ax.get_label(): ax for ax in kd.plots.particles_figure(runs, titles).axes}


TITLES = {"near": "Near", "far": "Far"}


@drawing("kd.plots.particles_figure", "runs", [10, 20], [60, 30],
         "a panel of angles each; below R, the cosine of the half angle, and clusters within 6 degrees")  # fmt: skip
def _(first, second):
    drawn = panels({"near": pair(first), "far": pair(second)}, TITLES)
    for name, degrees in (("near", first), ("far", second)):
        np.testing.assert_allclose(heights(drawn[name]), np.multiply.outer([-1, 1], degrees))
    np.testing.assert_allclose(heights(drawn["R"]), np.cos(np.radians([first, second])))
    np.testing.assert_array_equal(heights(drawn["clusters"]), 2)
    assert words(drawn["clusters"].get_legend()) == ["Near", "Far"]
    assert len({line.get_linestyle() for line in drawn["R"].lines}) == 2
    met = panels({"near": pair([2, 4]), "far": pair([2, 4])}, TITLES)  # a chord of 0.1 is 5.7 degrees
    np.testing.assert_array_equal(heights(met["clusters"]), [[1, 2]] * 2)
    assert [line.get_color() for line in drawn["R"].lines] == [drawn[name].lines[0].get_color() for name in TITLES]


@drawing(
    "kd.plots.particles_figure", "titles", TITLES, {"far": "left", "near": "right"}, "titles go by name, not by order"
)
def _(first, second):
    for titles in (first, second):
        drawn = panels({"near": pair([1, 2]), "far": pair([3, 4])}, titles)
        assert {name: drawn[name].get_title() for name in TITLES} == titles


@drawing("kd.plots.new_axes", "ax", None, 1, "the axes of a new figure, or the very axes given and no figure more")
def _(first, second):
    made = kd.plots.new_axes(first)
    assert made.figure.axes == [made]
    given = plt.subplots(1, 2)[1][second]
    assert kd.plots.new_axes(given) is given
    assert len(plt.get_fignums()) == 2


def page(colour="red"):
    """A figure of one colour and 10 by 5 pixels."""
    return plt.figure(figsize=(0.1, 0.05), dpi=100, facecolor=colour)


def saved(fig, name="a.png", parameters=None, read=None):
    """(what `read` makes of the path, names of the files left) of a figure saved in a new folder."""
    with tempfile.TemporaryDirectory() as folder, plt.rc_context({"savefig.dpi": "figure", "savefig.bbox": None}):
        path = kd.plots.save_figure(fig, Path(folder) / name, parameters or {})
        return read(path) if read else None, sorted(one.name for one in Path(folder).iterdir())


@drawing(
    "kd.plots.save_figure",
    "fig",
    (255, 0, 0),
    (0, 0, 255),
    "the file has the figure's pixels, and the figure is closed",
)
def _(first, second):
    for colour in (first, second):
        figure = page(np.divide(colour, 255))
        pixels, _ = saved(figure, read=lambda path: np.asarray(Image.open(path).convert("RGB")))
        np.testing.assert_array_equal(pixels, np.broadcast_to(colour, (5, 10, 3)))
        assert not plt.fignum_exists(figure.number)


@drawing("kd.plots.save_figure", "path", "a.png", "b.pdf",
         "a file of the kind that its ending says, and JSON of that name; another ending is refused")  # fmt: skip
def _(first, second):
    for name, begins in ((first, b"\x89PNG"), (second, b"%PDF"), ("c.svg", b"<?xml")):
        bytes_, files = saved(page(), name, read=Path.read_bytes)
        assert bytes_.startswith(begins)
        assert files == sorted([f"{name[0]}.json", name])
    for name in ("a.foo", "a.jpg"):
        with pytest.raises(ValueError, match=r"must end in \.png, \.pdf, \.svg"):
            saved(page(), name)


@drawing("kd.plots.save_figure", "parameters", {"seed": 3}, {"rule": {"beta": 0.1}, "of": [1, None, "x"]},
         "the JSON beside reads back equal; what JSON cannot hold is refused before anything is written")  # fmt: skip
def _(first, second):
    for parameters in (first, second):
        kept, _ = saved(
            page(), parameters=parameters, read=lambda path: json.loads(path.with_suffix(".json").read_text())
        )
        assert kept == parameters
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(TypeError):
            kd.plots.save_figure(page(), Path(folder) / "a.png", {"x": object()})
        assert list(Path(folder).iterdir()) == []
        path = kd.plots.save_figure(page(), Path(folder) / "a.png")
        assert list(Path(folder).iterdir()) == [path]


@drawing("kd.plots.style", "look", "screen", "paper",
         "paper is 3.3 inches wide and cuts nothing; all embed TrueType; none changes what is outside")  # fmt: skip
def _(first, second):
    before = dict(plt.rcParams)
    widths = {}
    for look in (first, second, "slides", "dark"):
        with kd.plots.style(look):
            assert plt.rcParams["pdf.fonttype"] == 42
            ax = kd.plots.clusters(analysis(0))
            ax.figure.canvas.draw()
            inside = ax.figure.bbox.padded(1)
            labels = [ax.xaxis.label, ax.yaxis.label, ax.get_legend()]
            assert all(inside.contains(*corner) for x in labels for corner in x.get_window_extent().corners())
            widths[look] = ax.figure.get_figwidth()
    assert dict(plt.rcParams) == before
    assert widths[second] == 3.3 < widths[first] < widths["slides"]
    with kd.plots.style():
        assert plt.rcParams["figure.figsize"][0] == widths[first]
    with pytest.raises(ValueError, match="look must be"):
        kd.plots.style("print")
