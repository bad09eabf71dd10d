"""Whole figures of an analysis: what ``krause analyze`` and ``make demo`` write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from krause_dynamics._arguments import Holds, Is, Maybe, Real, reads
from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.cases import is_comparison, title_of
from krause_dynamics.plots.checkpoints import clusters, norm_ratio, sink_map, synchronization
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


@reads(dataset=Holds("kd.analyze", ("order_parameter", "norm_ratio")))
def layers_figure(dataset: xarray.Dataset) -> Figure:
    """Order parameter and mean cosine with and without the first token, and below them the norm of that token."""
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 5.6), sharex=True, height_ratios=(2, 1))
    several = is_comparison(dataset)
    if several:
        synchronization(dataset, ax=top, tokens="without_first")
    else:
        _alignment_and_cosine(dataset, top)
    words = "alignment R without first token\n(1 = all point one way)" if several else "1 = all tokens point one way"
    top.set(ylabel=words, xlabel="", ylim=(None, 1.02))
    top.legend(ncols=2)
    top.set_title(f"{title_of(dataset)}: synchronization of tokens over layers")
    norm_ratio(dataset, ax=bottom)
    return fig


def _alignment_and_cosine(dataset: xarray.Dataset, ax: Axes) -> None:
    for quantity, symbol, colour in (("order_parameter", "alignment R", "C0"), ("mean_cosine", "mean cosine", "C1")):
        for tokens, which, dash in (("all", "all tokens", "-"), ("without_first", "without first token", "--")):
            line: dict[str, Any] = {"label": f"{symbol}, {which}", "color": colour, "linestyle": dash}
            synchronization(dataset, ax=ax, quantity=quantity, tokens=tokens, **line)


@reads(dataset=Holds("kd.analyze", ("clusters", "radius")))
def clusters_figure(dataset: xarray.Dataset) -> Figure:
    """Clusters over layers, the first token left out."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    clusters(dataset, ax=ax)
    ax.set_title(f"{title_of(dataset)}: clusters of tokens over layers (without the first)")
    return fig


@reads(dataset=Holds("kd.analyze", ("sink_rate", "eps")), eps=Maybe(Real()))
def sinks_figure(dataset: xarray.Dataset, eps: float | None = None) -> Figure:
    """Map of attention sinks, block by head."""
    fig, ax = plt.subplots(figsize=(6.0, 5.0))
    sink_map(dataset, ax=ax, eps=eps)
    ax.set_title(f"{title_of(dataset)}: where the first token is an attention sink")
    return fig


@reads(dataset=Holds("kd.analyze", ("clusters", "sink_rate")), eps=Maybe(Real()))
def clusters_and_sinks_figure(dataset: xarray.Dataset, eps: float | None = None) -> Figure:
    """Clusters over layers beside the map of sinks, in one picture."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), width_ratios=(6, 5))
    clusters(dataset, ax=left)
    left.set_title("clusters of tokens (without the first)")
    sink_map(dataset, ax=right, eps=eps)
    right.set_title("attention sinks")
    fig.suptitle(title_of(dataset))
    return fig


@reads(runs=Is(Mapping, "{'softmax': kd.simulate(...)}"), titles=Is(Mapping, "{'softmax': 'a title'}"))
def particles_figure(runs: Mapping[str, Trajectory], titles: Mapping[str, str]) -> Figure:
    """Angles of particles on the circle, one panel a run, and their order parameters below.

    Args:
        runs: Two runs by name, positions (T, n, 2).
        titles: Title of each panel, by the same names.

    Raises:
        ValueError: No runs, or titles of others.
    """
    names: list[Any] = list(runs)
    if not names or set(titles) != set(names):
        raise ValueError(f"runs and titles must have the same names, at least one, got {names} and {list(titles)}")
    fig, axes = plt.subplot_mosaic([names, ["R"] * len(names)], figsize=(7.2, 5.4), height_ratios=(3, 2))
    for i, (name, run) in enumerate(runs.items()):
        angles(run, ax=axes[name], color=f"C{i}")
        axes[name].set_title(titles[name])
        synchronization(run, ax=axes["R"], label=name, color=f"C{i}")
        if i:
            axes[name].set_ylabel("")
    axes["R"].set_ylabel("alignment R\n(1 = all point one way)")
    axes["R"].legend()
    return fig
