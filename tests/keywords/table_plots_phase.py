"""Rows of `kd.plots` for phase diagrams, of Datasets written down here."""

from __future__ import annotations

import numpy as np
import xarray

import krause_dynamics as kd
from tests.keywords.figures import assert_colours, assert_drawn_on, drawing, heights, mesh_values, words

BETAS, MOMENTS = np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 2.0, 3.0, 5.0])


def over_beta(rate=0.2):
    """Order that grows linearly in time, of particles at half the rate of the density."""
    grown = np.ones((3, 1)) * rate * MOMENTS
    data = {
        "particles": (("beta", "time"), grown / 2),
        "density": (("beta", "time"), grown),
        "clusters": (("beta", "time"), np.round(10 * rate) + np.arange(15).reshape(3, 5)),
        "winning_mode": ("beta", 10 * rate * np.array([1, 2, 3])),
        "linear_time": ("beta", rate * np.array([4.0, 3.0, 2.0])),
    }
    return xarray.Dataset(data, coords={"beta": BETAS, "time": MOMENTS})


def half_order(ax):
    """Times at which the contour runs."""
    (contour,) = [artist for artist in ax.collections if "ContourSet" in type(artist).__name__]
    return np.concatenate([path.vertices[:, 1] for path in contour.get_paths()])


@drawing("kd.plots.order_over_beta", "data", 0.2, 0.4,
         "colours are the particles, the contour is where the density is 1/2, the line is linear theory")  # fmt: skip
def _(first, second):
    for rate, half in ((first, 2.5), (second, 1.25)):  # rate * time = 1/2
        ax = kd.plots.order_over_beta(over_beta(rate))
        np.testing.assert_allclose(mesh_values(ax), np.outer(rate * MOMENTS / 2, [1, 1, 1]))
        np.testing.assert_allclose(half_order(ax), half)
        np.testing.assert_allclose(ax.lines[0].get_xydata(), np.transpose([BETAS, rate * np.array([4, 3, 2])]))
        assert words(ax.get_legend()) == ["r = 1/2, linear theory", "r = 1/2, mean field"]


@drawing("kd.plots.order_over_beta", "ax", None, 1, "a new figure, or the axes given and none but a colour bar beside")
def _(_, second):
    known = np.outer(0.1 * MOMENTS, [1, 1, 1])
    assert_drawn_on(lambda ax: kd.plots.order_over_beta(over_beta(), ax=ax), second, mesh_values, known)


@drawing(
    "kd.plots.order_over_beta", "mesh", {}, {"vmax": 0.25, "cmap": "magma"}, "colours from 0 to 1, or as asked for"
)
@drawing(
    "kd.plots.order_over_noise", "mesh", {}, {"vmax": 0.25, "cmap": "magma"}, "colours from 0 to 1, or as asked for"
)
def _(first, second):
    for draw, data in ((kd.plots.order_over_beta, over_beta()), (kd.plots.order_over_noise, over_noise())):
        for mesh, top in ((first, 1.0), (second, 0.25)):
            picture = draw(data, **mesh).collections[0]
            assert picture.get_clim() == (0, top)
            assert (picture.get_cmap().name == "magma") == ("cmap" in mesh)


@drawing("kd.plots.clusters_over_beta", "data", 0.2, 0.4,
         "lines are the counts at the first, middle and last time, then the winning mode")  # fmt: skip
def _(first, second):
    for rate in (first, second):
        ax = kd.plots.clusters_over_beta(over_beta(rate))
        low = 10 * rate
        np.testing.assert_allclose(heights(ax)[:3], low + np.array([[0, 5, 10], [2, 7, 12], [4, 9, 14]]))
        np.testing.assert_allclose(ax.lines[3].get_xydata(), np.transpose([BETAS, low * np.array([1, 2, 3])]))
        names = [f"particles, t = {time}" for time in ("0.5", "2", "5")]
        assert words(ax.get_legend()) == [*names, "winning mode"]


@drawing("kd.plots.clusters_over_beta", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [[2, 7, 12], [4, 9, 14], [6, 11, 16], [2, 4, 6]]
    assert_drawn_on(lambda ax: kd.plots.clusters_over_beta(over_beta(), ax=ax), second, heights, known)


@drawing(
    "kd.plots.clusters_over_beta", "lines", {}, {"marker": "s", "color": "C5"}, "dots, or as asked for, of particles"
)
def _(first, second):
    for lines, marks in ((first, ["o", "s", "^"]), (second, ["s"] * 3)):
        drawn = kd.plots.clusters_over_beta(over_beta(), **lines).lines
        assert [line.get_marker() for line in drawn] == [*marks, "None"]
        assert len({line.get_linestyle() for line in drawn}) == 4  # kept apart in grey
        assert_colours(drawn, ["C5"] * 3 + ["black"] if lines else ["C0", "C1", "C2", "black"])


LENGTHS = np.array([3.0, 6.0])


def over_length(model="discrete", shift=0.0):
    """One cluster at length 3, two at length 6."""
    data = {
        "position": (("length", "cluster"), shift + np.array([[0.0, np.nan], [-1.5, 1.5]])),
        "mass": (("length", "cluster"), [[1.0, np.nan], [0.4, 0.6]]),
        "clusters": ("length", [1 + shift, 2 + shift]),
    }
    return xarray.Dataset(data, coords={"length": LENGTHS}, attrs={"model": model})


def dots(ax):
    return np.asarray(ax.collections[0].get_offsets())


@drawing("kd.plots.clusters_over_length", "data", "discrete", "per_capita",
         "a dot a cluster, its area affine in the mass; the discrete map shows where consensus branches")  # fmt: skip
def _(first, second):
    branches = [*kd.theory.CONSENSUS_BRANCH_POINTS, kd.theory.CONSENSUS_LOST]
    for model, shift, marks in ((first, 0.0, branches), (second, 0.25, [])):
        ax = kd.plots.clusters_over_length(over_length(model, shift))
        np.testing.assert_allclose(dots(ax), [[3, shift], [6, shift - 1.5], [6, shift + 1.5]])
        one, small, large = ax.collections[0].get_sizes()
        assert one > large > small
        np.testing.assert_allclose((one - large) / (large - small), (1 - 0.6) / (0.6 - 0.4))
        np.testing.assert_allclose([line.get_xdata()[0] for line in ax.lines], marks)


@drawing("kd.plots.clusters_over_length", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [[3, 0], [6, -1.5], [6, 1.5]]
    assert_drawn_on(lambda ax: kd.plots.clusters_over_length(over_length(), ax=ax), second, dots, known)


@drawing("kd.plots.clusters_over_length", "scatter", {}, {"color": "C3", "s": 7.0}, "blue and by mass, or as asked for")
def _(first, second):
    for scatter, colour, areas in ((first, "C0", 3), (second, "C3", 1)):
        drawn = kd.plots.clusters_over_length(over_length(), **scatter).collections
        assert_colours(drawn, [colour])
        assert len(np.unique(drawn[0].get_sizes())) == areas
    assert drawn[0].get_sizes() == 7


@drawing("kd.plots.cluster_numbers_over_length", "data", "discrete", "per_capita",
         "counts, named by the model; the front, drawn once, adds a cluster per selected wavelength")  # fmt: skip
def _(first, second):
    called = {"discrete": "discrete time", "per_capita": "continuous time, per capita"}
    for model, shift in ((first, 0.0), (second, 3.0)):
        ax = kd.plots.cluster_numbers_over_length(over_length(model, shift))
        counts, front = ax.lines
        np.testing.assert_allclose(counts.get_xydata(), [[3, 1 + shift], [6, 2 + shift]])
        np.testing.assert_allclose(3 / np.diff(front.get_ydata()), kd.theory.selected_front(model).wavelength)
        assert words(ax.get_legend()) == [called[model], f"front, {called[model]}"]
    kd.plots.cluster_numbers_over_length(over_length(first), ax=ax)
    assert words(ax.get_legend()) == [called[second], f"front, {called[second]}", called[first]]
    assert len({line.get_linestyle() for line in ax.lines}) == 3


@drawing("kd.plots.cluster_numbers_over_length", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    draw, data = kd.plots.cluster_numbers_over_length, over_length()
    assert_drawn_on(lambda ax: draw(data, ax=ax), second, lambda ax: heights(ax)[0], [1, 2])


@drawing(
    "kd.plots.cluster_numbers_over_length", "line", {}, {"label": "mine", "color": "C3"}, "the model, or as asked for"
)
def _(first, second):
    for line, name, colour in ((first, "discrete time", "C0"), (second, "mine", "C3")):
        ax = kd.plots.cluster_numbers_over_length(over_length(), **line)
        assert words(ax.get_legend())[0] == name
        assert_colours(ax.lines, [colour, "black"])


NOISES, RADII = np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.4])
ORDERS = np.array([[0.9, 0.5, 0.1], [1.0, 0.7, 0.3]])  # (radius, noise)


def over_noise(scale=1.0, *, particles=True):
    data = {
        "density": (("radius", "noise"), scale * ORDERS),
        "critical_noise": ("radius", scale * np.array([0.2, 0.3])),
    }
    if particles:
        data["particles"] = (("radius", "noise"), scale * ORDERS**2)
    return xarray.Dataset(data, coords={"radius": RADII, "noise": NOISES})


@drawing("kd.plots.order_over_noise", "data", 1.0, 0.5,
         "colours are the density, circles the particles at their place, the line is critical noise")  # fmt: skip
def _(first, second):
    for scale in (first, second):
        ax = kd.plots.order_over_noise(over_noise(scale))
        np.testing.assert_allclose(mesh_values(ax), scale * ORDERS)
        circles = ax.collections[1]
        np.testing.assert_allclose(circles.get_offsets(), [(noise, radius) for radius in RADII for noise in NOISES])
        np.testing.assert_allclose(circles.get_array(), scale * ORDERS.ravel() ** 2)
        assert circles.get_clim() == ax.collections[0].get_clim()
        np.testing.assert_allclose(ax.lines[0].get_xydata(), np.transpose([scale * np.array([0.2, 0.3]), RADII]))
    assert len(kd.plots.order_over_noise(over_noise(particles=False)).collections) == 1


@drawing("kd.plots.order_over_noise", "ax", None, 1, "a new figure, or the axes given and none but a colour bar beside")
def _(_, second):
    assert_drawn_on(lambda ax: kd.plots.order_over_noise(over_noise(), ax=ax), second, mesh_values, ORDERS)
