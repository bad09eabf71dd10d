"""How directions merge as the angle within which they are joined widens, and how many directions tokens fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from krause_dynamics._arguments import Holds, Whole, Word, reads
from krause_dynamics.plots.style import ON, new_axes

if TYPE_CHECKING:
    import xarray

TOKENS = Word(("all", "without_first"))


@reads(dataset=Holds("kd.analyze", ("clusters", "radius")), ax=ON, tokens=TOKENS)
def cluster_map(dataset: xarray.Dataset, *, ax: Axes | None = None, tokens: str = "without_first", **mesh: Any) -> Axes:
    """The merge trees of all sequences in one picture: mean number of clusters by layer and joining angle.

    A column is one layer: read upwards, tokens join until one cluster is left.

    Args:
        dataset: Of ``kd.analyze``, without controls.
        ax: Where to draw.
        tokens: ``all`` or ``without_first``.
        **mesh: For ``Axes.pcolormesh``.
    """
    ax = new_axes(ax)
    counts = dataset["clusters"].sel(tokens=tokens)
    counts = counts.where(counts != -1).mean("sequence").transpose("radius", "layer")  # -1: no tokens left
    angles = np.degrees(2 * np.arcsin(counts["radius"].values / 2))
    middles = (angles[1:] + angles[:-1]) / 2
    edges = np.concatenate([[2 * angles[0] - middles[0]], middles, [2 * angles[-1] - middles[-1]]])
    layers = np.append(counts["layer"].values - 0.5, counts["layer"].values[-1] + 0.5)
    options: dict[str, Any] = {"norm": LogNorm(1, max(2.0, float(counts.max()))), "cmap": "viridis"} | mesh
    drawn = ax.pcolormesh(layers, np.maximum(edges, 0.0), counts.values, rasterized=True, **options)
    ax.grid(visible=False)
    ax.set(xlabel="layer (0 = embedding, i = after block i)", ylabel="joined within (degrees)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar = ax.figure.colorbar(drawn, label="clusters of token directions")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return ax


@reads(dataset=Holds("kd.analyze", ("spectrum",)), ax=ON, tokens=TOKENS, lines=Whole(1))
def spectrum(
    dataset: xarray.Dataset,
    *,
    ax: Axes | None = None,
    tokens: str = "without_first",
    lines: int = 6,
    **line: Any,
) -> Axes:
    """Singular values of the token matrix over the largest, means over sequences, a line a layer.

    Args:
        dataset: Of ``kd.analyze`` with the measure ``spectrum``, without controls.
        ax: Where to draw.
        tokens: ``all`` or ``without_first``.
        lines: Layers drawn, spread evenly; first and last always.
        **line: For ``Axes.plot``.
    """
    ax = new_axes(ax)
    values = dataset["spectrum"].sel(tokens=tokens).mean("sequence").transpose("layer", "singular_value").values
    places = np.unique(np.linspace(0, len(values) - 1, min(lines, len(values))).round().astype(int))
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(places)))
    for place, shade in zip(places, shades, strict=True):
        label = f"layer {dataset['layer'].values[place]}"
        numbers = np.arange(1, values.shape[1] + 1)
        ax.plot(numbers, values[place], **({"color": shade, "label": label} | line))
    ax.set(xlabel="singular value, largest first", ylabel="over the largest", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax
