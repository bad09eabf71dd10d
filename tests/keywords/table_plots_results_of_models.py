"""Rows of `kd.plots` for forecasts, confidence, branches, pairs, tracks and intervals: artists hold what was given."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords import results
from tests.keywords.figures import analysis, assert_colours, assert_drawn_on, comparison, drawing, heights, words

plots = kd.plots
SHARES = list(plots.confident.SHARES)


def refused(plot, data, **options):
    with pytest.raises(ValueError, match="quantity must be"):
        plot(data, quantity="beauty", **options)


def over_blocks(values):
    """Means over all but blocks."""
    return values.mean([dim for dim in values.dims if dim not in ("block", "layer")]).values


@drawing("kd.plots.head_map", "dataset", 0, 1, "the picture holds the means over its sequences, block by head")
@drawing("kd.plots.head_map", "quantity", "entropy", "importance_first", "the variable that is drawn, and its name")
def _(first, second):
    for seed in (0, 1):
        for name in ("entropy", "importance_first"):
            ax = plots.head_map(analysis(seed), quantity=name)
            np.testing.assert_allclose(ax.images[0].get_array(), analysis(seed)[name].mean("sequence"))
            assert name.replace("_", " ") in ax.figure.axes[1].get_ylabel().replace("\n", " ").replace("_", " ")
    refused(plots.head_map, analysis())
    with pytest.raises(ValueError, match=r"choose one branch with dataset.sel\(branch=...\)"):
        plots.head_map(results.branches(), quantity="entropy")
    with pytest.raises(ValueError, match="choose one case with"):
        plots.head_map(comparison(), quantity="entropy")


@drawing("kd.plots.head_map", "ax", None, 1, "a new figure, or the axes given; the bar stands beside them")
def _(_, second):
    fig, axes = plt.subplots(1, 2)
    ax = plots.head_map(analysis(), ax=axes[second])
    assert ax is axes[second]
    assert not axes[0].has_data()
    assert plots.head_map(analysis()).figure is not fig


@drawing(
    "kd.plots.head_map", "image", {}, {"cmap": "magma", "vmin": -2.0}, "viridis, or as asked; what is none is grey"
)
def _(first, second):
    data = analysis()
    assert plots.head_map(data, **first).images[0].get_cmap().name == "viridis"
    data["importance_first"][:, 1, 0] = np.nan
    ax = plots.head_map(data, **second)
    assert (ax.images[0].get_cmap().name, ax.images[0].get_clim()[0]) == ("magma", -2.0)
    assert ax.images[0].get_array().mask.sum() == 1
    assert "grey" in ax.figure.axes[1].get_ylabel()


@drawing(
    "kd.plots.forecast", "dataset", 0, {"a": 0, "b": 1}, "two lines of each model; dots of those that have numbers"
)
def _(first, second):
    for seeds, data in (([0], results.forecast()), ([0, 1], {name: results.forecast(i) for name, i in second.items()})):
        ax = plots.forecast(data)
        known = [
            over_blocks(results.forecast(i).contraction.sel(side=x)) for i in seeds for x in ("measured", "predicted")
        ]
        np.testing.assert_allclose(heights(ax)[:-1], known)
        dots = plots.forecast(data, quantity="clusters").collections
        for i, drawn in zip(seeds, dots[:: len(seeds)], strict=True):
            given = results.forecast(i).clusters.values[:, :2].T
            np.testing.assert_array_equal(np.unique(drawn.get_offsets(), axis=0), np.unique(given, axis=0))
    with pytest.raises(ValueError, match="at least one Dataset"):
        plots.forecast({})
    with pytest.raises(ValueError, match=r"dataset\['a'\] must be the Dataset of kd.checkpoints.forecast"):
        plots.forecast({"a": analysis()})


def dots_of(ax):
    """What is drawn, (dots, 2) of each collection."""
    return [np.asarray(drawn.get_offsets()) for drawn in ax.collections]


def eigenvalues(seed, block=slice(None)):
    data = results.forecast(seed)
    return np.stack([data[name].values[block].ravel() for name in ("ov_real", "ov_imaginary")], -1)


@drawing("kd.plots.ov_spectra", "dataset", 0, {"a": 0, "b": 1}, "a dot for each eigenvalue of each model")
def _(first, second):
    (dots,) = dots_of(plots.ov_spectra(results.forecast(first)))
    np.testing.assert_allclose(dots, eigenvalues(first))
    ax = plots.ov_spectra({name: results.forecast(i) for name, i in second.items()})
    np.testing.assert_allclose(np.stack(dots_of(ax)), np.stack([eigenvalues(0), eigenvalues(1)]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(second)
    without = results.forecast().drop_vars("ov_real")
    with pytest.raises(ValueError, match="whose values are an affine map"):
        plots.ov_spectra(without)


@drawing("kd.plots.ov_spectra", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(partial(plots.ov_spectra, results.forecast(), block=1), second, dots_of, [eigenvalues(0, 0)])


@drawing("kd.plots.ov_spectra", "block", None, 2, "all heads coloured by block, or those of one")
def _(first, second):
    ax = plots.ov_spectra(results.forecast(), block=first)
    np.testing.assert_array_equal(ax.collections[0].get_array(), np.repeat([1, 2, 3, 4], 6))
    (dots,) = dots_of(plots.ov_spectra(results.forecast(), block=second))
    np.testing.assert_allclose(dots, eigenvalues(0, second - 1))
    with pytest.raises(ValueError, match=r"block must be one of \[1, 2, 3, 4\], got 9"):
        plots.ov_spectra(results.forecast(), block=9)


@drawing(
    "kd.plots.ov_spectra", "artist", {}, {"color": "C5"}, "dots by block with a bar of colours, or as asked, in all"
)
def _(first, second):
    ax = plots.ov_spectra(results.forecast(), **first)
    assert ax.collections[0].get_array() is not None
    assert len(ax.figure.axes) == 2
    ax = plots.ov_spectra(results.forecast(), **second)
    assert_colours(ax.collections, ["C5"])
    assert len(ax.figure.axes) == 1
    two = plots.ov_spectra({"a": results.forecast(), "b": results.forecast(1)}, **second)
    assert_colours(two.collections, ["C5"] * 2)


@drawing("kd.plots.forecast", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [over_blocks(results.forecast().contraction.sel(side=side)) for side in ("measured", "predicted")]
    assert_drawn_on(partial(plots.forecast, results.forecast()), second, lambda ax: heights(ax)[:-1], known)


@drawing(
    "kd.plots.forecast", "quantity", "contraction", "winning_mode", "lines over blocks, or dots beside the diagonal"
)
def _(first, second):
    data = results.forecast()
    assert plots.forecast(data, quantity=first).get_xlabel() == "block"
    data["winning_mode"][:] = [[1, 1, 2], [3, 3, 2]]
    (dots,) = plots.forecast(data, quantity=second).collections
    assert {tuple(dot): size for dot, size in zip(dots.get_offsets(), dots.get_sizes(), strict=True)} == {
        (1, 3): 50, (2, 2): 25
    }  # fmt: skip
    data["winning_mode"][:] = np.nan
    assert plots.forecast(data, quantity=second).texts[0].get_text() == "no prediction"
    refused(plots.forecast, data)


@drawing("kd.plots.forecast", "artist", {}, {"color": "C5"}, "colours of the cycle, or as asked, of lines and dots")
def _(first, second):
    assert_colours(plots.forecast(results.forecast(), **first).lines[:-1], ["C0", "C1"])
    assert_colours(plots.forecast(results.forecast(), **second).lines[:-1], ["C5"] * 2)
    assert_colours(plots.forecast(results.forecast(), quantity="clusters", **second).collections, ["C5"])


@drawing("kd.plots.forecast_figure", "dataset", 0, {"a": 0, "b": 1}, "all quantities; beta by head of one model only")
def _(first, second):
    figure = plots.forecast_figure(results.forecast())
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), results.forecast().effective_beta.mean("sequence"))
    figure = plots.forecast_figure({name: results.forecast(i) for name, i in second.items()})
    assert [len(ax.lines) for ax in figure.axes] == [5, 1, 1]


@drawing(
    "kd.plots.confidence", "dataset", 0, {"a": 0, "b": 1}, "four lines of one, the theorem's line of each of several"
)
def _(first, second):
    ax = plots.confidence(results.confidence())
    np.testing.assert_allclose(heights(ax), [100 * over_blocks(results.confidence()[name]) for name in SHARES])
    several = {name: results.confidence(i) for name, i in second.items()}
    ax = plots.confidence(several)
    np.testing.assert_allclose(heights(ax), [100 * over_blocks(one.share_theorem) for one in several.values()])
    means = [f"{name}: {100 * float(one.share_theorem.mean()):.1f} %" for name, one in several.items()]
    assert words(ax.get_legend()) == means


@drawing("kd.plots.confidence", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = [100 * over_blocks(results.confidence()[name]) for name in SHARES]
    assert_drawn_on(partial(plots.confidence, results.confidence()), second, heights, known)


@drawing("kd.plots.confidence", "quantity", None, "share_within_sigma", "all of one model, or the one asked for")
def _(first, second):
    assert len(plots.confidence(results.confidence(), quantity=first).lines) == 4
    ax = plots.confidence(results.confidence(), quantity=second)
    np.testing.assert_allclose(heights(ax), [100 * over_blocks(results.confidence().share_within_sigma)])
    refused(plots.confidence, results.confidence())


@drawing("kd.plots.confidence", "line", {}, {"color": "C5"}, "colours of the cycle, or as asked")
def _(first, second):
    assert_colours(plots.confidence(results.confidence(), **first).lines, ["C0", "C1", "C2", "C3"])
    assert_colours(plots.confidence(results.confidence(), **second).lines, ["C5"] * 4)


@drawing("kd.plots.confidence_figure", "dataset", 0, {"a": 0, "b": 1}, "shares of all; maps of one model only")
def _(first, second):
    data = results.confidence()
    _, theorem, distance, *_ = plots.confidence_figure(data).axes
    np.testing.assert_allclose(theorem.images[0].get_array(), 100 * data.share_theorem.mean("sequence"))
    np.testing.assert_allclose(distance.images[0].get_array(), data.distance.mean("sequence"))
    figure = plots.confidence_figure({name: results.confidence(i) for name, i in second.items()})
    assert [len(ax.lines) for ax in figure.axes] == [2]


def of_branches(data, name="importance_first"):
    """softmax, its even line, krause, its even line, mixed."""
    lines = [data[which].sel(branch=x) for x in ("softmax", "krause") for which in (name, f"even_{name}")]
    return [over_blocks(line) for line in (*lines, data[name].sel(branch="mixed"))]


@drawing("kd.plots.branches", "dataset", 0, {"a": 0, "b": 1}, "a line a branch, even attention beside it of one model")
def _(first, second):
    np.testing.assert_allclose(heights(plots.branches(results.branches())), of_branches(results.branches()))
    several = {name: results.branches(i) for name, i in second.items()}
    ax = plots.branches(several)
    known = [over_blocks(one.importance_first.sel(branch=x)) for one in several.values() for x in one.branch.values]
    np.testing.assert_allclose(heights(ax), known)
    assert [line.get_linestyle() for line in ax.lines] == ["-"] * 3 + ["--"] * 3


@drawing("kd.plots.branches", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    known = of_branches(results.branches())
    assert_drawn_on(partial(plots.branches, results.branches()), second, heights, known)


@drawing("kd.plots.branches", "quantity", "gate", "entropy", "the variable that is drawn; both mixed have no gate")
def _(first, second):
    data = results.branches()
    np.testing.assert_allclose(heights(plots.branches(data, quantity=first)), data.gate.mean("sequence")[:2])
    np.testing.assert_allclose(heights(plots.branches(data, quantity=second)), data.entropy.mean(["sequence", "head"]))
    refused(plots.branches, data)


@drawing("kd.plots.branches", "relative", False, True, "over even attention of the same place, with a line at 1")
def _(first, second):
    data = results.branches()
    ax = plots.branches(data, quantity="first_token_score", relative=second)
    known = (data.first_token_score / data.even_first_token_score).mean(["sequence", "head"])
    np.testing.assert_allclose(heights(ax)[:-1], known)
    assert "even attention" in ax.get_ylabel().replace("\n", " ")
    assert len(plots.branches(data, quantity="first_token_score", relative=first).lines) == 5
    with pytest.raises(ValueError, match="relative must be False for 'entropy'"):
        plots.branches(data, quantity="entropy", relative=second)


@drawing("kd.plots.branches", "line", {}, {"color": "C5"}, "a colour a branch, or as asked")
def _(first, second):
    assert_colours(plots.branches(results.branches(), quantity="entropy", **first).lines, ["C0", "C1", "C2"])
    assert_colours(plots.branches(results.branches(), quantity="entropy", **second).lines, ["C5"] * 3)


@drawing("kd.plots.branches_figure", "dataset", 0, {"a": 0, "b": 1}, "both scores over even attention, entropy, gate")
def _(first, second):
    data = results.branches()
    panels = plots.branches_figure(data).axes
    known = [data.importance_first / data.even_importance_first, data.first_token_score / data.even_first_token_score]
    for ax, values in zip(panels, [*known, data.entropy], strict=False):
        np.testing.assert_allclose(heights(ax)[:3], values.mean(["sequence", "head"]))
    assert len(panels[3].lines) == 2
    several = plots.branches_figure({name: results.branches(i) for name, i in second.items()}).axes
    assert [len(ax.lines) for ax in several] == [7, 7, 6, 4]
