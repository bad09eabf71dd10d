"""Whole figures of an analysis: what ``krause analyze`` and ``make demo`` write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from krause_dynamics._arguments import Is, Maybe, Real, reads
from krause_dynamics.plots.angles import angles, least_crossed
from krause_dynamics.plots.cases import Analysed, Analyses, is_comparison, line_of, title_of
from krause_dynamics.plots.checkpoints import clusters, norm_ratio, sink_map, synchronization
from krause_dynamics.plots.style import across, column
from krause_dynamics.plots.words import heading, headline, legend_above
from krause_dynamics.trajectory import Trajectory

JOINED = 0.1  # chord within which particles are one cluster, 6 degrees


@reads(dataset=Analyses(("order_parameter", "norm_ratio")))
def layers_figure(dataset: Analysed) -> Figure:
    """Order parameter over layers against that of independent tokens, and below it the norm of the first token.

    Tokens whose directions are independent and even have R near T^(-1/2). Of one analysis R is drawn with and without
    the first token, of several without it. (The mean cosine says the same: R^2 = 1/T + (1 - 1/T) cosine.)

    Args:
        dataset: Of ``kd.analyze`` or ``kd.compare``, or several analyses by name.
    """
    fig, (top, bottom) = plt.subplots(2, 1, figsize=column(1.6), sharex=True, height_ratios=(2, 1))
    if is_comparison(dataset):
        synchronization(dataset, ax=top, tokens="without_first")
    else:
        for tokens, words, dash in (("all", "all tokens", "-"), ("without_first", "without first token", "--")):
            synchronization(dataset, ax=top, tokens=tokens, label=words, color="C0", linestyle=dash)
    top.axhline(
        float(dataset["length"].mean()) ** -0.5,
        color="0.4",
        linestyle=":",
        linewidth=1.2,
        label="independent tokens, $T^{-1/2}$",
    )
    several = dataset.sizes.get("sequence", 1) > 1
    without = ["without the first token"] if is_comparison(dataset) else []
    band = ["mean, band: middle 80 % of sequences"] if several else []
    legend_above(top, "\n".join([*without, *band]) or None)
    # The legend may be as high as a panel; without room of its own it would squeeze both.
    fig.set_figheight(fig.get_figheight() + top.get_legend().get_window_extent().height / fig.dpi)
    top.set(xlabel="", ylabel="order parameter R", ylim=(0, 1.02))
    headline(fig, f"{title_of(dataset)}: synchronization of tokens over layers")
    norm_ratio(dataset, ax=bottom)
    if bottom.get_legend():
        bottom.get_legend().remove()
    return fig


@reads(dataset=Analyses(("clusters", "radius")))
def clusters_figure(dataset: Analysed) -> Figure:
    """Clusters over layers, the first token left out.

    Args:
        dataset: An analysis, a comparison, or several analyses by name.
    """
    fig, ax = plt.subplots(figsize=column(1.0))
    clusters(dataset, ax=ax)
    headline(fig, f"{title_of(dataset)}: clusters of tokens over layers (without the first)")
    return fig


@reads(dataset=Analyses(("sink_rate", "eps")), eps=Maybe(Real()))
def sinks_figure(dataset: Analysed, eps: float | None = None) -> Figure:
    """Map of attention sinks, block by head.

    Args:
        dataset: An analysis, a comparison, or several analyses by name.
        eps: Threshold of a sink, out of those of the analysis; by default the report's.
    """
    fig, ax = plt.subplots(figsize=column(1.2))
    sink_map(dataset, ax=ax, eps=eps)
    heading(ax, f"{title_of(dataset)}: where the first token is an attention sink")
    return fig


@reads(dataset=Analyses(("clusters", "sink_rate")), eps=Maybe(Real()))
def clusters_and_sinks_figure(dataset: Analysed, eps: float | None = None) -> Figure:
    """Clusters over layers beside the map of sinks, in one picture.

    Args:
        dataset: An analysis, a comparison, or several analyses by name.
        eps: Threshold of a sink, out of those of the analysis; by default the report's.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=across(10.5, 4.6), width_ratios=(6, 5))
    clusters(dataset, ax=left)
    left.set_title("clusters of tokens (without the first)")
    sink_map(dataset, ax=right, eps=eps)
    right.set_title("attention sinks")
    headline(fig, title_of(dataset))
    return fig


@reads(runs=Is(Mapping, "{'softmax': kd.simulate(...)}"), titles=Is(Mapping, "{'softmax': 'a title'}"))
def particles_figure(runs: Mapping[str, Trajectory], titles: Mapping[str, str]) -> Figure:
    """Angles of particles on the circle, one panel a run; below, order parameter and number of clusters of all.

    Particles within 0.1 (6 degrees) of another are one cluster.

    Args:
        runs: Runs by name, positions (T, n, 2).
        titles: Title of each panel, and name of its lines, by the same names.

    Raises:
        ValueError: No runs, or titles of others.
    """
    names: list[Any] = list(runs)
    if not names or set(titles) != set(names):
        raise ValueError(f"runs and titles must have the same names, at least one, got {names} and {list(titles)}")
    cut = least_crossed(runs.values())
    above: list[Any] = [name for name in names for _ in range(2)]
    below: list[Any] = ["R"] * len(names) + ["clusters"] * len(names)
    fig, axes = plt.subplot_mosaic([above, below], figsize=across(7.6, 5.4), height_ratios=(3, 2))
    for i, (name, run) in enumerate(runs.items()):
        angles(run, cut=cut, ax=axes[name], color=f"C{i}")
        axes[name].set_title(titles[name])
        line = line_of(i, titles[name]) | {"color": f"C{i}"}
        synchronization(run, ax=axes["R"], **line)
        _cluster_numbers(run, axes["clusters"], line)
        if i:
            axes[name].set_ylabel("")
    axes["R"].set_ylabel("order parameter R")
    axes["clusters"].legend(fontsize="small", loc="upper right", handlelength=1.4, borderaxespad=0.0)
    return fig


def _cluster_numbers(run: Trajectory, ax: Axes, line: dict[str, Any]) -> None:
    """Clusters over time; the axis is logarithmic, since every particle is one at first."""
    from krause_dynamics.analysis import clusters as found

    history = found.over_time(run.positions, [JOINED], metric="chord")
    ax.plot(run.times, history.count[:, 0], **line)
    ax.set(xlabel="time", ylabel="clusters", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
