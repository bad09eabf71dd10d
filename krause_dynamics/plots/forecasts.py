"""What theory predicts of a trained model beside what is measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from krause_dynamics._arguments import Word, reads
from krause_dynamics.plots.bands import draw, mean_and_spread
from krause_dynamics.plots.cases import Analysed, Case, Named
from krause_dynamics.plots.heads import head_map
from krause_dynamics.plots.style import ON, across, new_axes
from krause_dynamics.plots.words import legend_above, upright

FORECAST = Named("kd.checkpoints.forecast", ("side", "contraction", "winning_mode", "clusters"))
OF_SEQUENCES = {"winning_mode": "winning mode (degree)", "clusters": "clusters of tokens"}
SHAPES = "os^D"  # of several models, whose colours a grey print makes alike


@reads(dataset=FORECAST, ax=ON, quantity=Word(("contraction", *OF_SEQUENCES)))
def forecast(dataset: Analysed, *, ax: Axes | None = None, quantity: str = "contraction", **artist: Any) -> Axes:
    """Predicted beside measured: contraction over blocks, or a dot for each sequence that would lie on the diagonal.

    Args:
        dataset: Of ``kd.checkpoints.forecast``, or several by name.
        ax: Where to draw.
        quantity: ``contraction`` of every block, predicted dashed and measured solid, with the middle 80 per cent of
            the sequences; below 1 tokens come together. ``winning_mode`` and ``clusters``, one number a sequence:
            measured over predicted, dots by the number of sequences that they stand for.
        **artist: For ``Axes.plot`` of lines, or ``Axes.scatter`` of dots.
    """
    ax = new_axes(ax)
    draws = _over_blocks if quantity == "contraction" else _of_sequences
    for number, case in enumerate(dataset):
        draws(ax, case, number, quantity, artist)
    if quantity == "contraction":
        ax.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":")
        ax.set(xlabel="block", ylabel="contraction (1 = none)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(ax)
    else:
        _square(ax, dataset, quantity)
    return ax


def _over_blocks(ax: Axes, case: Case, number: int, quantity: str, artist: dict[str, Any]) -> None:
    for side, dash in (("measured", "-"), ("predicted", "--")):
        label = f"{case.label}, {side}" if case.name else side
        colour = number if case.name else ("measured", "predicted").index(side)  # of one, each side has its own
        look: dict[str, Any] = {"color": f"C{colour}", "linestyle": dash, "label": label, "zorder": 2.5}
        look |= {"marker": SHAPES[number % 4], "markersize": 4} if case.name else {}
        draw(ax, *mean_and_spread(case.data[quantity].sel(side=side), "block"), **(look | artist))


def _of_sequences(ax: Axes, case: Case, number: int, quantity: str, artist: dict[str, Any]) -> None:
    values = case.data[quantity].transpose("side", "sequence")
    pairs = np.stack([values.sel(side=side).values for side in ("predicted", "measured")], -1)
    counted = Counter(map(tuple, pairs[np.isfinite(pairs).all(-1)].tolist()))
    places = np.array(list(counted)).reshape(-1, 2)
    look: dict[str, Any] = {
        "s": 25.0 * np.array(list(counted.values())), "marker": SHAPES[number % 4], "color": f"C{number}",
        "alpha": 0.8, "zorder": 2.5,
    }  # fmt: skip
    ax.scatter(*places.T, **(look | artist))
    if case.name:  # in a legend all are of one size
        ax.scatter([], [], **(look | artist | {"s": 25.0, "label": case.label}))


def _square(ax: Axes, found: list[Case], quantity: str) -> None:
    """Both axes alike, and the diagonal between them."""
    values = np.concatenate([case.data[quantity].values.ravel() for case in found])
    known = values[np.isfinite(values)]
    most = float(known.max(initial=1.0))
    ax.plot([0, 1.08 * most], [0, 1.08 * most], color="0.4", linewidth=0.8, linestyle=":")
    words = OF_SEQUENCES[quantity]
    ax.set(xlim=(0, 1.08 * most), ylim=(0, 1.08 * most), aspect="equal")
    ax.set(xlabel=f"predicted {words}", ylabel=upright(ax, f"measured {words}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    if not len(known):
        ax.text(0.5, 0.5, "no prediction", transform=ax.transAxes, ha="center", va="center", color="0.4")
    if any(case.name for case in found):
        ax.legend()


@reads(dataset=FORECAST)
def forecast_figure(dataset: Analysed) -> Figure:
    """Contraction over blocks above; below clusters and winning mode by sequence, and of one model beta by head.

    Args:
        dataset: Of ``kd.checkpoints.forecast``, or several by name.
    """
    alone = not dataset[0].name
    below = ["clusters", "winning_mode"] + (["beta"] if alone else [])
    rows: list[Any] = [["contraction"] * len(below), below]
    figure, axes = plt.subplot_mosaic(rows, figsize=across(9.0, 6.0))
    for quantity in ("contraction", *OF_SEQUENCES):
        forecast(dataset, ax=axes[quantity], quantity=quantity)
    if alone:
        head_map(dataset[0].data, ax=axes["beta"], quantity="effective_beta")
    return figure
