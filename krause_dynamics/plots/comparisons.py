"""Differences between analyses with their intervals, and what emerges over the steps of a training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from krause_dynamics._arguments import Holds, Maybe, Real, Word, reads
from krause_dynamics.plots.cases import cases, label_depth
from krause_dynamics.plots.style import ON, column, new_axes
from krause_dynamics.plots.words import headline, plain, upright

if TYPE_CHECKING:
    import xarray

TOKENS = Word(("all", "without_first"))
COMPARED = Holds("kd.compare", ("case", "depth"))


@reads(comparison=COMPARED, ax=ON, tokens=TOKENS, radius=Real(), eps=Real())
def difference(
    comparison: xarray.Dataset,
    *,
    ax: Axes | None = None,
    quantity: str = "order_parameter",
    tokens: str = "without_first",
    radius: float = 0.8,
    eps: float = 0.3,
    **line: Any,
) -> Axes:
    """How far the mean of each case is from that of the reference, over relative depth, within its interval.

    Args:
        comparison: Of ``kd.compare``.
        ax: Where to draw.
        quantity: A variable of the comparison over depth or depth of blocks.
        tokens: ``all`` or ``without_first``, where the quantity tells them apart.
        radius: Chord at which clusters are counted, where it does (0.8 is 47 degrees).
        eps: Threshold of sinks, where it does (0.3 as published).
        **line: For ``Axes.plot``.

    Raises:
        ValueError: A quantity of another name.
    """
    known = _quantities(comparison)
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, received {quantity!r}")
    ax = new_axes(ax)
    ax.axhline(0.0, color="0.4", linewidth=0.8)
    reference = json.loads(comparison.attrs["meta"])["reference"]
    for number, case in enumerate(cases(comparison)):
        if case.name == reference:
            continue
        at = {"tokens": tokens, "radius": radius, "eps": eps}
        look = {"color": f"C{number}"} | case.line | line  # as in the figures where the reference is drawn too
        mean, bounds = (_at(case.data[f"{quantity}_{what}"], **at) for what in ("difference", "interval"))
        places = mean[str(mean.dims[0])].values
        drawn = ax.plot(places, mean.values, **look)[0]
        low, high = bounds.transpose("bound", ...).values
        ax.fill_between(places, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
    label_depth(ax, comparison)
    ax.set_ylabel(upright(ax, f"difference of {_words(quantity)}"))
    return ax


@reads(comparison=COMPARED, ax=ON, depth=Maybe(Real(0, 1, ends="[]")), tokens=TOKENS, radius=Real(), eps=Real())
def emergence(
    comparison: xarray.Dataset,
    *,
    ax: Axes | None = None,
    quantity: str = "order_parameter",
    depth: float | None = None,
    tokens: str = "without_first",
    radius: float = 0.8,
    eps: float = 0.3,
    **line: Any,
) -> Axes:
    """A quantity over the steps of a training: mean over sequences, and a band over the middle 80 per cent of them.

    Args:
        comparison: Of ``kd.compare`` of a folder of checkpoints, or of cases whose names are numbers.
        ax: Where to draw.
        quantity: A variable of the comparison over depth or depth of blocks.
        depth: Relative depth (the nearest one there is); None: mean over depth.
        tokens: ``all`` or ``without_first``, where the quantity tells them apart.
        radius: Chord at which clusters are counted, where it does.
        eps: Threshold of sinks, where it does.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: A quantity of another name, or cases that are no numbers.
    """
    known = _quantities(comparison)
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, received {quantity!r}")
    steps = comparison["case"].values
    if steps.dtype.kind not in "iuf":
        raise ValueError(f"comparison must have steps of a training as cases, received {[str(x) for x in steps]}")
    values = _at(comparison[quantity], tokens=tokens, radius=radius, eps=eps)
    place = "depth" if "depth" in values.dims else "block_depth"
    values = values.mean(place) if depth is None else values.sel({place: depth}, method="nearest")
    ax = new_axes(ax)
    look: dict[str, Any] = {"marker": "o", "markersize": 3}
    drawn = ax.plot(steps, values.mean("sequence").values, **(look | line))[0]
    low, high = values.quantile([0.1, 0.9], "sequence").values
    ax.fill_between(steps, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
    where = "mean over depth" if depth is None else f"at depth {depth:g}"
    ax.set(xlabel="training step", ylabel=f"{_words(quantity)}\n({where})")
    return ax


@reads(comparison=COMPARED)
def emergence_figure(comparison: xarray.Dataset) -> Figure:
    """Alignment and clusters after the last block, and sinks over all blocks, over the steps of a training.

    Args:
        comparison: From `kd.compare` of the checkpoints of a training.
    """
    wanted = {"order_parameter": 1.0, "clusters": 1.0, "sink_rate": None}
    shown = {name: depth for name, depth in wanted.items() if name in comparison}
    fig, axes = plt.subplots(len(shown), 1, figsize=column(0.6 * len(shown)), sharex=True, squeeze=False)
    for ax, (name, depth) in zip(axes[:, 0], shown.items(), strict=True):
        emergence(comparison, ax=ax, quantity=name, depth=depth)
        if ax is not axes[-1, 0]:
            ax.set_xlabel("")
    headline(fig, "what emerges in training")
    return fig


@reads(comparison=COMPARED)
def difference_figure(comparison: xarray.Dataset) -> Figure:
    """Differences of alignment, clusters and sinks from the reference, over relative depth.

    Args:
        comparison: From `kd.compare`.
    """
    shown = [name for name in ("order_parameter", "clusters", "sink_rate") if name in comparison]
    fig, axes = plt.subplots(len(shown), 1, figsize=column(0.6 * len(shown)), sharex=True, squeeze=False)
    for ax, name in zip(axes[:, 0], shown, strict=True):
        difference(comparison, ax=ax, quantity=name)
        ax.set_ylabel(_words(name))
        if ax is not axes[0, 0] and ax.get_legend():
            ax.get_legend().remove()  # one serves all
        if ax is not axes[-1, 0]:
            ax.set_xlabel("")
    meta = json.loads(comparison.attrs["meta"])
    headline(fig, f"difference from {plain(str(meta['reference']))} ({meta['level']:.0%} intervals)")
    return fig


def _words(quantity: str) -> str:
    """A variable for an axis, with its unit."""
    return quantity.replace("_", " ") + (" (%)" if quantity == "sink_rate" else "")


def _quantities(comparison: xarray.Dataset) -> list[str]:
    drawn = {"case", "depth", "block_depth", "tokens", "radius", "eps"}
    ours = [str(name) for name, x in comparison.data_vars.items() if set(x.dims) <= drawn]
    return sorted(name.removesuffix("_difference") for name in ours if name.endswith("_difference"))


def _at(values: xarray.DataArray, **places: Any) -> xarray.DataArray:
    """A variable at one of each of its further dimensions; numbers to the nearest."""
    for dim, place in places.items():
        if dim in values.dims:
            values = values.sel({dim: place}, method=None if isinstance(place, str) else "nearest")
    return values
