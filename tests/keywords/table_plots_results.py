"""Rows of `kd.plots` for final clusters, densities and verdicts, of numbers written down here."""

from __future__ import annotations

from functools import cache, partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field
from tests.keywords.figures import assert_colours, assert_drawn_on, drawing, heights, mesh_values, words

RADII = [0.1, 0.4]
FINAL, SHARES = [np.array([0.2, 0.8]), np.array([0.5])], [np.array([0.25, 0.75]), np.array([1.0])]


def dots(ax):
    return np.asarray(ax.collections[0].get_offsets())


@drawing("kd.plots.bifurcation", "radii", RADII, [0.3, 0.2], "abscissae: each radius once per cluster of its own")
@drawing("kd.plots.bifurcation", "positions", RADII, [0.3, 0.2], "ordinates: each radius's clusters, in their order")
def _(first, second):
    for radii in (first, second):
        known = [[radii[0], 0.2], [radii[0], 0.8], [radii[1], 0.5]]
        np.testing.assert_allclose(dots(kd.plots.bifurcation(radii, FINAL)), known)
        known = [[radii[0], 0.5], [radii[1], 0.2], [radii[1], 0.8]]
        np.testing.assert_allclose(dots(kd.plots.bifurcation(radii, FINAL[::-1])), known)
    with pytest.raises(ValueError, match="one entry per radius"):
        kd.plots.bifurcation(first[:1], FINAL)


@drawing("kd.plots.bifurcation", "masses", None, SHARES, "areas are affine in the mass; dots are equal without")
def _(first, second):
    for options in ({}, {"masses": first}):
        sizes = kd.plots.bifurcation(RADII, FINAL, **options).collections[0].get_sizes()
        assert sizes.shape == (3,)
        assert len(set(sizes)) == 1
    quarter, most, whole = kd.plots.bifurcation(RADII, FINAL, second).collections[0].get_sizes()
    assert quarter < most
    np.testing.assert_allclose((whole - most) / (most - quarter), 0.25 / 0.5)


@drawing("kd.plots.bifurcation", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [[0.1, 0.2], [0.1, 0.8], [0.4, 0.5]]
    assert_drawn_on(lambda ax: kd.plots.bifurcation(RADII, FINAL, ax=ax), second, dots, known)


@drawing("kd.plots.bifurcation", "scatter", {}, {"color": "C3", "s": 7.0}, "blue and by mass, or as asked for")
def _(first, second):
    for scatter, colour, areas in ((first, "C0", 3), (second, "C3", 1)):
        drawn = kd.plots.bifurcation(RADII, FINAL, SHARES, **scatter).collections
        assert_colours(drawn, [colour])
        assert len(np.unique(drawn[0].get_sizes())) == areas


LARGEST = np.array([[0.1, 0.2, 0.3, 0.4, 1.0], [0.8, 0.9, 1.0, 1.0, 1.0]])  # of five samples at two radii


@drawing("kd.plots.largest_cluster", "radii", RADII, [0.2, 0.3], "abscissae of the line of means")
@drawing("kd.plots.largest_cluster", "largest", RADII, [0.2, 0.3], "the line is the mean, the band the central half")
def _(first, second):
    for radii in (first, second):
        ax = kd.plots.largest_cluster(radii, LARGEST)
        np.testing.assert_allclose(ax.lines[0].get_xydata(), [[radii[0], 0.4], [radii[1], 0.94]])
        corners = {(round(x, 9), round(y, 9)) for x, y in ax.collections[0].get_paths()[0].vertices}
        # Of five samples the quartiles are the second and the fourth.
        assert corners == {(radii[0], 0.2), (radii[0], 0.4), (radii[1], 0.9), (radii[1], 1.0)}
    with pytest.raises(ValueError, match=r"shape \(R, S\) with R = 1"):
        kd.plots.largest_cluster(first[:1], LARGEST)


@drawing("kd.plots.largest_cluster", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(lambda ax: kd.plots.largest_cluster(RADII, LARGEST, ax=ax), second, heights, [[0.4, 0.94]])


@drawing("kd.plots.largest_cluster", "line", {}, {"label": "n = 7", "color": "C3"},
         "the line has the name and colour asked for, and its band that colour too")  # fmt: skip
def _(first, second):
    for line, name, colour in ((first, "mean", "C0"), (second, "n = 7", "C3")):
        ax = kd.plots.largest_cluster(RADII, LARGEST, **line)
        assert words(ax.legend()) == [name]
        assert_colours([ax.lines[0], ax.collections[0]], [colour] * 2)


@cache
def meeting(cells=40, shares=(0.8, 0.2)):
    """(masses (2, cells), the run) of a line of length 8: two pairs of cells of which each meets in its middle."""
    left, right = cells // 4, 3 * cells // 4
    mass = np.zeros((2, cells))
    mass[0, [left - 1, left + 1]], mass[0, [right - 1, right + 1]] = np.array(shares)[:, None] / 2
    mass[1, [left, right]] = shares
    start = mean_field.Density(mean_field.LineCells(cells, 0.0, 8.0), mass[0])
    return mass, mean_field.iterate(kd.Dynamics(kd.bounded_confidence(1.0)), start, 1)


PLACES = [2.1, 6.1]  # where they meet among 40 cells


@drawing("kd.plots.density", "trajectory", 40, 800,
         "mass per length at each time, emptiness four decades below; a row shows its densest cell")  # fmt: skip
def _(first, second):
    for cells, rows in ((first, 40), (second, 200)):
        mass, run = meeting(cells)
        ax = kd.plots.density(run)
        per_length = mass.reshape(2, rows, -1).max(axis=-1).T * cells / 8
        # Rounding leaves less than 1e-9 beside the cell where a pair meets.
        known = np.maximum(per_length, per_length.max() / 1e4)
        np.testing.assert_allclose(mesh_values(ax).reshape(rows, 2), known, rtol=1e-9)
        assert ax.get_ylim() == (0, 8)
    with pytest.raises(ValueError, match="must hold a density"):
        kd.plots.density(kd.Trajectory(np.zeros(1), np.zeros((1, 2, 2))))


@drawing("kd.plots.density", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    _, run = meeting()
    assert_drawn_on(lambda ax: kd.plots.density(run, ax=ax), second, heights, [PLACES])


@drawing("kd.plots.density", "clusters", True, False,
         "the final clusters are marked at the last time with their mass, by default too, or not at all")  # fmt: skip
def _(first, second):
    _, run = meeting()
    for options in ({}, {"clusters": first}):
        ax = kd.plots.density(run, **options)
        np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, PLACES[0]], [1, PLACES[1]]])
        assert [text.get_text() for text in ax.texts] == ["0.800", "0.200"]
        np.testing.assert_allclose([text.xy for text in ax.texts], ax.lines[0].get_xydata())
    ax = kd.plots.density(run, clusters=second)
    assert (len(ax.lines), len(ax.texts), len(ax.collections)) == (0, 0, 1)


@drawing("kd.plots.density", "floor", 1e-3, 0.3, "marks are of the clusters with at least that share")
def _(first, second):
    for share, options, marked in (
        (0.2, {"floor": first}, 2), (0.2, {"floor": second}, 1), (0.4, {"floor": second}, 2),
        (2e-3, {}, 2), (5e-4, {}, 1),  # the default is a thousandth
    ):  # fmt: skip
        ax = kd.plots.density(meeting(shares=(1 - share, share))[1], **options)
        np.testing.assert_allclose(heights(ax), [PLACES[:marked]])


@drawing("kd.plots.density", "image", {}, {"cmap": "viridis", "alpha": 0.5}, "magma, four decades; or as asked for")
def _(first, second):
    _, run = meeting()
    for image, name, alpha in ((first, "magma", None), (second, "viridis", 0.5)):
        picture = kd.plots.density(run, **image).collections[0]
        assert (picture.get_cmap().name, picture.get_alpha()) == (name, alpha)
        np.testing.assert_allclose(picture.get_clim(), (4e-4, 4.0))  # 0.8 in a cell of 0.2


NAMES, GROUPS = ["a", "b", "c", "d"], ["one", "two", "one", "two"]


@drawing(
    "kd.plots.verdicts",
    "results",
    NAMES,
    ["k", "l", "m", "n"],
    "the names of results beyond 1, or of the largest of a group",
)
def _(first, second):
    for names in (first, second):
        texts = kd.plots.verdicts(names, [0.5, 2.0, 1.0, 30.0], GROUPS).texts
        # The first group agrees: its largest deviation is named; of the second both are beyond.
        assert [text.get_text() for text in texts] == [names[2], names[1], names[3]]
        np.testing.assert_allclose([text.xy[0] for text in texts], [1, 2, 30])
        assert [text.get_color() for text in texts] == ["0.35", "C1", "C1"]
    ends = kd.plots.verdicts(NAMES, [0.0, np.inf, 1e-12, 0.1], GROUPS).texts
    assert [text.get_text() for text in ends[:2]] == ["2 exact", "1 beyond"]


@drawing("kd.plots.verdicts", "shares", [0.5, 2.0, 1.0, 30.0], [0.0, np.inf, np.nan, 0.1],
         "abscissae; 0 is drawn at 1e-9 and no number at 1e3; agreement is blue up to 1 and orange beyond")  # fmt: skip
def _(first, second):
    for shares, drawn, agrees in ((first, first, [1, 0, 1, 0]), (second, [1e-9, 1e3, 1e3, 0.1], [1, 0, 0, 1])):
        ax = kd.plots.verdicts(NAMES, shares, GROUPS)
        np.testing.assert_allclose(dots(ax)[:, 0], drawn)
        colours = [plt.matplotlib.colors.to_rgba("C0" if right else "C1") for right in agrees]
        np.testing.assert_allclose(ax.collections[0].get_facecolor(), colours)


@drawing("kd.plots.verdicts", "groups", GROUPS, ["two", "one", "one", "one"],
         "lines in order of first appearance, with the number of results spread about them")  # fmt: skip
def _(first, second):
    for groups, lines, ticks in (
        (first, [0, 1, 0, 1], ["one (2)", "two (2)"]), (second, [0, 1, 1, 1], ["two (1)", "one (3)"])
    ):  # fmt: skip
        ax = kd.plots.verdicts(NAMES, [0.1] * 4, groups)
        np.testing.assert_array_equal(np.round(dots(ax)[:, 1]), lines)
        assert [label.get_text() for label in ax.get_yticklabels()] == ticks
        assert ax.yaxis_inverted()
        assert len(set(dots(ax)[:, 1])) == 4
    with pytest.raises(ValueError, match="one entry per result"):
        kd.plots.verdicts(NAMES, [0.1] * 4, GROUPS[:3])


@drawing("kd.plots.verdicts", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    shares = [0.1, 0.2, 0.3, 0.4]
    draw = partial(kd.plots.verdicts, NAMES, shares, GROUPS)
    assert_drawn_on(draw, second, lambda ax: dots(ax)[:, 0], shares)


@drawing("kd.plots.verdicts", "scatter", {}, {"c": "C3", "s": 7.0}, "dots of area 14 coloured by verdict, or as asked")
def _(first, second):
    for scatter, colour, area in ((first, "C0", 14), (second, "C3", 7)):
        drawn = kd.plots.verdicts(NAMES, [0.1] * 4, GROUPS, **scatter).collections
        assert_colours(drawn, [colour])
        np.testing.assert_allclose(drawn[0].get_sizes(), area)
