"""Rows of the plots of merging directions and of spectra, and of figures inside pages."""

from __future__ import annotations

import re
from functools import partial
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.figures import (
    TREE,
    analysis,
    assert_drawn_on,
    drawing,
    heights,
    mesh_values,
    with_spectrum,
    with_tree,
)

ALL, REST = 0, 1


def counts_of(data, tokens=REST):
    """(radius, layer) mean number over the sequences that have tokens left."""
    return data["clusters"].values[1:, :, tokens].mean(axis=0).T


@drawing("kd.plots.cluster_map", "dataset", 0, 1, "colours are the mean counts, layers by angles of the chords")
def _(first, second):
    for seed in (first, second):
        ax = kd.plots.cluster_map(analysis(seed))
        np.testing.assert_allclose(mesh_values(ax), counts_of(analysis(seed)))
        (mesh,) = ax.collections
        corners = mesh.get_coordinates()
        np.testing.assert_allclose(corners[0, :, 0], np.arange(-0.5, 5))
        # Chords 0.4, 0.8 and 1 are angles of 23.07, 47.16 and 60 degrees; cells end half way between.
        np.testing.assert_allclose(corners[1:3, 0, 1], [(23.0739 + 47.1564) / 2, (47.1564 + 60) / 2], atol=1e-3)


@drawing("kd.plots.cluster_map", "ax", None, 1, "a new figure, or the axes given and none but a colour bar beside")
def _(_, second):
    known = counts_of(analysis())
    assert_drawn_on(partial(kd.plots.cluster_map, analysis()), second, mesh_values, known)


@drawing("kd.plots.cluster_map", "tokens", "all", "without_first", "counts of those tokens; by default without first")
def _(first, second):
    for options, tokens in (({"tokens": first}, ALL), ({"tokens": second}, REST), ({}, REST)):
        values = mesh_values(kd.plots.cluster_map(analysis(), **options))
        np.testing.assert_allclose(values, counts_of(analysis(), tokens))


@drawing("kd.plots.cluster_map", "mesh", {}, {"cmap": "magma"}, "colours from 1 to the largest count, or as asked for")
def _(first, second):
    for mesh, name in ((first, "viridis"), (second, "magma")):
        (drawn,) = kd.plots.cluster_map(analysis(), **mesh).collections
        assert (drawn.get_cmap().name, drawn.get_clim()) == (name, (1, counts_of(analysis()).max()))


def values_of(data, tokens=REST):
    """(layers, values), means over sequences."""
    return data["spectrum"].values[:, :, tokens].mean(axis=0)


@drawing("kd.plots.spectrum", "dataset", 0, 1, "a line a layer holds the means over sequences")
def _(first, second):
    for seed in (first, second):
        ax = kd.plots.spectrum(with_spectrum(seed))
        np.testing.assert_allclose(heights(ax), values_of(with_spectrum(seed)))
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4])


@drawing("kd.plots.spectrum", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = values_of(with_spectrum())
    assert_drawn_on(partial(kd.plots.spectrum, with_spectrum()), second, heights, known)


@drawing("kd.plots.spectrum", "tokens", "all", "without_first", "values of those tokens; by default without the first")
def _(first, second):
    for options, tokens in (({"tokens": first}, ALL), ({"tokens": second}, REST), ({}, REST)):
        drawn = heights(kd.plots.spectrum(with_spectrum(), **options))
        np.testing.assert_allclose(drawn, values_of(with_spectrum(), tokens))


@drawing("kd.plots.spectrum", "lines", 2, 3, "so many layers from the first to the last, evenly spread")
def _(first, second):
    for lines, layers in ((first, [0, 4]), (second, [0, 2, 4])):
        ax = kd.plots.spectrum(with_spectrum(), lines=lines)
        assert [line.get_label() for line in ax.lines] == [f"layer {layer}" for layer in layers]
        np.testing.assert_allclose(heights(ax), values_of(with_spectrum())[layers])


@drawing("kd.plots.spectrum", "line", {}, {"linewidth": 7.0}, "lines of the common width, or as asked for")
def _(first, second):
    for line, width in ((first, plt.rcParams["lines.linewidth"]), (second, 7.0)):
        assert {one.get_linewidth() for one in kd.plots.spectrum(with_spectrum(), **line).lines} == {width}


def picture(word="a < b"):
    """A figure with a blue line on black axes and a word."""
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], color="#0072b2")
    ax.set_title(word)
    return figure


@drawing("kd.plots.inline_svg", "fig", "a < b", "c & d",
         "well-formed; its words are text; blue may be changed by the page, black is that of the page")  # fmt: skip
def _(first, second):
    for word in (first, second):
        text = kd.plots.inline_svg(picture(word), "a line")
        words = ["".join(node.itertext()) for node in ElementTree.fromstring(text).iter("text")]
        assert word in [one.strip() for one in words]
        assert "stroke: var(--k0072b2, #0072b2)" in text
        assert "stroke: currentColor" in text
        assert not re.search(r": #[0-9a-f]{6}", text)
        assert not plt.get_fignums()


@drawing("kd.plots.inline_svg", "label", "one line", "another <line>",
         "what a reader hears; names inside are those of this label alone, and each is there")  # fmt: skip
def _(first, second):
    seen = set()
    for label in (first, second):
        text = kd.plots.inline_svg(picture(), label)
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") == label
        names = {node.get("id") for node in root.iter() if node.get("id")}
        assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text)) <= names
        assert not names & seen
        seen |= names
    with pytest.raises(TypeError, match="label"):
        kd.plots.inline_svg(picture(), 3)


NARROW, WIDE = (np.degrees(2 * np.arcsin(scale * TREE[:, 2] / 2)) for scale in (1, 10))


def joined(ax):
    """Angles at which branches meet, ascending."""
    (branches,) = ax.collections
    return np.sort([corners[:, 1].max() for corners in branches.get_segments()])


@drawing("kd.plots.merge_tree", "dataset", 0, 1, "branches meet at the angles of the chords, and count all tokens")
def _(first, second):
    for which, known in ((first, NARROW), (second, WIDE)):
        data = with_tree().isel(sequence=[which], layer=[0])
        ax = kd.plots.merge_tree(data)
        np.testing.assert_allclose(joined(ax), known)
        assert ax.get_xlabel() == "6 tokens"
        leaves = {x for corners in ax.collections[0].get_segments() for x, y in corners if y == 0}
        assert leaves == set(range(6))
    ends = with_tree().isel(sequence=[0], layer=[0])
    ends["merge_tree"][..., 3] = 4
    assert kd.plots.merge_tree(ends).get_xlabel() == "6 groups of 8 tokens"


@drawing("kd.plots.merge_tree", "ax", None, 1, "a new figure, or the axes given and none else")
def _(_, second):
    assert_drawn_on(partial(kd.plots.merge_tree, with_tree(), layer=0), second, joined, NARROW)


@drawing("kd.plots.merge_tree", "sequence", 0, 1, "the tree of that sequence; one without a tree, or none, is refused")
def _(first, second):
    for options, known in (({"sequence": first}, NARROW), ({"sequence": second}, WIDE), ({}, NARROW)):
        np.testing.assert_allclose(joined(kd.plots.merge_tree(with_tree(), layer=0, **options)), known)
    for which, words in ((2, "fewer than two tokens"), (3, "must be below 3")):
        with pytest.raises(ValueError, match=words):
            kd.plots.merge_tree(with_tree(), sequence=which)


@drawing("kd.plots.merge_tree", "layer", 0, 4, "the tree of that layer; the last by default")
def _(first, second):
    for options, known in (({"layer": first}, NARROW), ({"layer": second}, WIDE), ({}, WIDE)):
        np.testing.assert_allclose(joined(kd.plots.merge_tree(with_tree(), **options)), known)
    with pytest.raises(ValueError, match="among 0 to 4"):
        kd.plots.merge_tree(with_tree(), layer=5)


@drawing("kd.plots.merge_tree", "radius", 0.8, 0.015, "what joins above it is grey, and a line marks its angle")
def _(first, second):
    for options, grey in (({}, 0), ({"radius": first}, 0), ({"radius": second}, 2)):
        ax = kd.plots.merge_tree(with_tree(), layer=0, **options)
        colours = ax.collections[0].get_colors()
        assert sum(np.allclose(colour[:3], 0.5) for colour in colours) == grey
        chord = options.get("radius", 0.8)
        np.testing.assert_allclose(heights(ax)[0], np.degrees(2 * np.arcsin(chord / 2)))


@drawing("kd.plots.merge_tree", "lines", {}, {"colors": "red"}, "colours of clusters, or as asked for")
def _(first, second):
    for lines, count in ((first, 2), (second, 1)):
        colours = kd.plots.merge_tree(with_tree(), layer=0, radius=0.015, **lines).collections[0].get_colors()
        assert len({tuple(colour) for colour in colours}) >= count
        assert (len(colours) == 1) == bool(lines)
