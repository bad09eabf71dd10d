"""Every figure in words: titles, labels, limits, ticks, legends and what is drawn; ``python -m tests.figures``.

Looks (colours, widths, places of legends) are left to the eye, and numbers to the tests that know them from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox

import krause_dynamics as kd
from tests.grey import confused
from tests.keywords import (
    figures,
    results,
    table_plots_grid,
    table_plots_particles,
    table_plots_phase,
    table_plots_results,
    table_plots_training,
)
from tests.keywords.table_plots_figures import pair

plots = kd.plots
LOOK = "paper"  # the narrowest one


def wide() -> Any:
    """An analysis of 25 heads in 21 blocks: too many to name each."""
    data = figures.analysis().isel(block=np.arange(21) % 4, head=np.arange(25) % 2)
    return data.assign_coords(block=np.arange(1, 22), head=np.arange(25))


def on_line() -> kd.Trajectory:
    """Two opinions that meet, and one apart."""
    return kd.Trajectory(np.arange(3.0), np.array([[0.0, 1.0, 5.0], [0.5, 0.5, 5.0], [0.5, 0.5, 5.0]])[..., None])


def both_models() -> Any:
    ax = plots.cluster_numbers_over_length(table_plots_phase.over_length("discrete"))
    return plots.cluster_numbers_over_length(table_plots_phase.over_length("per_capita"), ax=ax)


def deviations() -> Any:
    return plots.verdicts(["a", "b", "c", "d"], [0.0, 2.0, 0.5, np.nan], ["one", "one", "one", "two"])


# Name -> a function that draws it.
FIGURES: dict[str, Callable[[], Any]] = {
    "angles": lambda: plots.angles(table_plots_particles.turning()),
    "branches": lambda: plots.branches(results.branches()),
    "branches, relative": lambda: plots.branches(results.branches(), relative=True),
    "branches_figure": lambda: plots.branches_figure(results.branches()),
    "bifurcation": lambda: plots.bifurcation(table_plots_results.RADII, table_plots_results.FINAL),
    "circle": lambda: plots.circle(table_plots_particles.turning()),
    "cluster_map": lambda: plots.cluster_map(figures.analysis()),
    "clusters": lambda: plots.clusters(figures.analysis()),
    "clusters under controls": lambda: plots.clusters(figures.controlled()),
    "clusters, effective": lambda: plots.clusters(figures.analysis(), quantity="effective_clusters", radii=[0.4]),
    "clusters_and_sinks_figure": lambda: plots.clusters_and_sinks_figure(figures.analysis()),
    "clusters_figure": lambda: plots.clusters_figure(figures.analysis()),
    "cluster_numbers_over_length": both_models,
    "clusters_over_beta": lambda: plots.clusters_over_beta(table_plots_phase.over_beta()),
    "clusters_over_length": lambda: plots.clusters_over_length(table_plots_phase.over_length()),
    "clusters of a comparison": lambda: plots.clusters(figures.comparison()),
    "clusters of a comparison, two angles": lambda: plots.clusters(figures.comparison(), radii=[0.4, 1.0]),
    "difference": lambda: plots.difference(figures.comparison()),
    "difference_figure": lambda: plots.difference_figure(figures.comparison()),
    "confidence": lambda: plots.confidence(results.confidence()),
    "confidence of two": lambda: plots.confidence({"a": results.confidence(), "b": results.confidence(1)}),
    "confidence_figure": lambda: plots.confidence_figure(results.confidence()),
    "cross_places": lambda: plots.cross_places(results.pairs()),
    "density": lambda: plots.density(table_plots_results.meeting()[1]),
    "emergence": lambda: plots.emergence(figures.comparison(names=(10, 200, 3000))),
    "emergence_figure": lambda: plots.emergence_figure(figures.comparison(names=(10, 200, 3000))),
    "encoder_decoder_figure": lambda: plots.encoder_decoder_figure(results.pairs()),
    "forecast": lambda: plots.forecast(results.forecast()),
    "forecast, clusters": lambda: plots.forecast(results.forecast(), quantity="clusters"),
    "forecast_figure": lambda: plots.forecast_figure({"a": results.forecast(), "b": results.forecast(1)}),
    "head_map": lambda: plots.head_map(figures.analysis(), quantity="entropy"),
    "interval": lambda: plots.interval(results.interval()),
    "interval of heads": lambda: plots.interval(results.interval(), quantity="entropy"),
    "largest_cluster": lambda: plots.largest_cluster([0.1, 0.4], table_plots_results.LARGEST),
    "layers_figure": lambda: plots.layers_figure(figures.analysis()),
    "layers_figure under controls": lambda: plots.layers_figure(figures.controlled()),
    "layers_figure of a comparison": lambda: plots.layers_figure(figures.comparison()),
    "merge_tree": lambda: plots.merge_tree(figures.with_tree()),
    "norm_ratio": lambda: plots.norm_ratio(figures.analysis()),
    "ov_spectra": lambda: plots.ov_spectra(results.forecast()),
    "ov_spectra of two": lambda: plots.ov_spectra({"a": results.forecast(), "b": results.forecast(1)}, block=2),
    "opinions": lambda: plots.opinions(on_line()),
    "order_over_beta": lambda: plots.order_over_beta(table_plots_phase.over_beta()),
    "order_over_noise": lambda: plots.order_over_noise(table_plots_phase.over_noise()),
    "overview of four dimensions": lambda: plots.overview(kd.Trajectory(np.arange(2.0), np.zeros((2, 3, 4)))),
    "particles_figure": lambda: plots.particles_figure(
        {"near": pair([10, 20]), "far": pair([60, 30])}, {"near": "Near", "far": "Far"}
    ),
    "phase": lambda: plots.phase(table_plots_grid.counts(), x="beta", y="radius", settled="settled"),
    "plane": lambda: plots.plane(table_plots_particles.roaming()),
    "sink_map": lambda: plots.sink_map(figures.analysis()),
    "sink_map of a comparison": lambda: plots.sink_map(figures.comparison(), eps=0.3),
    "sink_map under controls": lambda: plots.sink_map(figures.controlled(), eps=0.3),
    "sink_map of many heads": lambda: plots.sink_map(wide(), eps=0.3),
    "sinks_figure": lambda: plots.sinks_figure(figures.analysis()),
    "spectrum": lambda: plots.spectrum(figures.with_spectrum(), lines=3),
    "sphere": lambda: plots.sphere(table_plots_particles.on_sphere()),
    "stacks": lambda: plots.stacks(results.pairs(), quantity="entropy"),
    "synchronization": lambda: plots.synchronization(figures.analysis()),
    "synchronization, interval": lambda: plots.synchronization(figures.analysis(), band="interval"),
    "synchronization, entropy": lambda: plots.synchronization(figures.analysis(), quantity="entropy"),
    "synchronization, mean_cosine": lambda: plots.synchronization(figures.analysis(), quantity="mean_cosine"),
    "synchronization, effective_rank": lambda: plots.synchronization(figures.analysis(), quantity="effective_rank"),
    "synchronization of a run": lambda: plots.synchronization(pair([10, 20]), quantity="residual"),
    "tracks": lambda: plots.tracks(results.tracks()),
    "training_curves": lambda: plots.training_curves(table_plots_training.ROWS),
    "training_figure": lambda: plots.training_figure(table_plots_training.ROWS),
    "verdicts": deviations,
}


def words() -> Iterator[str]:
    """All figures, a block of lines each."""
    import matplotlib.pyplot as plt

    for name, draw in FIGURES.items():
        drawn = draw()
        figure = getattr(drawn, "figure", drawn) or drawn
        yield f"# {name}"
        if figure.get_suptitle():
            yield f"above: {figure.get_suptitle()!r}"
        for ax in figure.axes:
            yield from (f"  {line}" for line in _of_axes(ax))
        yield from _beyond(figure)
        yield from (f"  {line}" for line in confused(figure))
        plt.close(figure)


def _beyond(figure: Any) -> Iterator[str]:
    """What sticks out of the paper, or leaves no room for what is drawn; nothing of a figure that is well laid out."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    if max(-box.x0, -box.y0, box.x1 - width, box.y1 - height) > 0.01:
        yield f"  CUT: {box} of {width:.2f} x {height:.2f} inches"
    sizes = [ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted()) for ax in figure.axes]
    if min(one.height for one in sizes) < 0.5:
        yield "  SQUEEZED: axes of less than half an inch"
    words = [(name, box) for name, box in _words_of(figure) if box.width * box.height > 0]
    for (name, box), (other, place) in combinations(words, 2):
        shared = Bbox.intersection(box.padded(-1.0), place)
        if shared is not None and shared.width * shared.height > 0:
            yield f"  OVER ONE ANOTHER: {name} and {other}"


def _words_of(figure: Any) -> Iterator[tuple[str, Any]]:
    """Where labels, titles and legends are, in dots."""
    for ax in figure.axes:
        texts = [ax.xaxis.label, ax.yaxis.label, ax.title, *((ax.get_legend(),) if ax.get_legend() else ())]
        for text in texts:
            if text.get_visible() and ax.axison:
                name = text.get_text() if hasattr(text, "get_text") else f"legend of {ax.get_title()!r}"
                yield repr(name), text.get_window_extent()


def _of_axes(ax: Any) -> Iterator[str]:
    if ax.get_label() == "<colorbar>":
        yield f"colour bar {ax.get_ylabel()!r}"
        return
    shown = "" if ax.axison else ", frame hidden"
    yield f"axes {ax.get_label()!r} {ax.get_title()!r}, aspect {ax.get_aspect()}{shown}"
    for name in ("x", "y"):
        yield f"  {name}: " + ", ".join(_of_axis(ax, name))
    for artist in (*ax.lines, *ax.collections, *ax.images):
        yield f"  {_of_artist(artist)}"
    for text in ax.texts:
        yield f"  text {text.get_text()!r} at {_few(text.xy)} + {_few(text.xyann)} {text.anncoords!r}"
    if legend := ax.get_legend():
        title = legend.get_title().get_text()
        yield f"  legend {title!r}: {[entry.get_text() for entry in legend.get_texts()]}"


def _of_axis(ax: Any, name: str) -> Iterator[str]:
    axis = getattr(ax, f"{name}axis")
    yield f"{axis.get_label_text()!r}, {axis.get_scale()}"
    if not getattr(ax, f"get_autoscale{name}_on")():
        yield f"limits {_few(getattr(ax, f'get_{name}lim')())}"
    if any(line.get_visible() for line in axis.get_gridlines()):
        yield "grid"
    where, how = axis.get_major_locator(), axis.get_major_formatter()
    if type(where).__name__ == "FixedLocator":
        yield f"ticks {_few(where.locs)}"
        if type(how).__name__ == "FuncFormatter":
            yield f"called {[str(word) for word in how.format_ticks(where.locs)]}"
    elif type(where).__name__ == "LogLocator":
        yield f"ticks at {_few(np.atleast_1d(where._subs))} of a decade"
        if type(how).__name__ == "FuncFormatter":
            yield f"20 called {how(20.0)!r}"
    elif type(where).__name__ == "MaxNLocator":
        yield "whole ticks" if where._integer else "ticks"
    if axis.get_scale() == "log" and type(axis.get_minor_formatter()).__name__ == "NullFormatter":
        yield "none called between"


def _of_artist(artist: Any) -> str:
    name = artist.get_label()
    about = [type(artist).__name__, "" if str(name).startswith("_") else repr(name), artist.get_gid() or ""]
    if hasattr(artist, "get_drawstyle"):
        points = artist.get_xydata()
        about += [artist.get_drawstyle(), f"{len(points)} points"]
        if len(points):
            about += [f"from {_few(points[0])} to {_few(points[-1])}"]
    elif type(artist).__name__ == "PathCollection":
        about += [f"{len(artist.get_offsets())} dots, areas {_few(np.unique(artist.get_sizes()))}"]
    elif type(artist).__name__ == "LineCollection":
        about += [f"{len(artist.get_paths())} lines"]
    if getattr(artist, "get_array", lambda: None)() is not None:
        about += [f"{np.shape(artist.get_array())}, colours {_few(artist.get_clim())} {type(artist.norm).__name__}"]
    if not artist.get_clip_on():
        about.append("not clipped")
    return " ".join(part for part in about if part)


def _few(numbers: Any) -> str:
    return "[" + ", ".join(f"{round(float(number), 9) + 0.0:.3g}" for number in np.ravel(numbers)) + "]"


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("Agg")
    with plots.style(LOOK):
        print("\n".join(words()))
