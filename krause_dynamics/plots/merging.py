"""How directions merge as the angle within which they are joined widens, and how many directions tokens fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from krause_dynamics._arguments import Holds, Maybe, Real, Whole, Word, reads
from krause_dynamics.plots.checkpoints import few_decades
from krause_dynamics.plots.style import ON, new_axes
from krause_dynamics.plots.words import level, upright

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
    if len(angles) < 2:
        raise ValueError(f"dataset must count clusters within at least 2 radii for a map over them, got {len(angles)}")
    middles = (angles[1:] + angles[:-1]) / 2
    edges = np.concatenate([[2 * angles[0] - middles[0]], middles, [2 * angles[-1] - middles[-1]]])
    layers = np.append(counts["layer"].values - 0.5, counts["layer"].values[-1] + 0.5)
    options: dict[str, Any] = {"norm": LogNorm(1, max(2.0, float(counts.max()))), "cmap": "viridis"} | mesh
    drawn = ax.pcolormesh(layers, np.maximum(edges, 0.0), counts.values, rasterized=True, **options)
    ax.grid(visible=False)
    ax.set(xlabel=level(ax, "layer (0 = embedding, i = after block i)"), ylabel="joined within (degrees)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar = ax.figure.colorbar(drawn, label=upright(ax, "clusters of token directions"))
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
    if values.min() > 0.01:  # in two decades numbers are read more easily than powers of ten
        few_decades(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


@reads(
    dataset=Holds("kd.analyze(measures=['default', 'merge_tree'])", ("merge_tree", "layer")),
    ax=ON,
    sequence=Whole(0),
    layer=Maybe(Whole(0)),
    radius=Real(0, 2, ends="(]"),
)
def merge_tree(
    dataset: xarray.Dataset,
    *,
    ax: Axes | None = None,
    sequence: int = 0,
    layer: int | None = None,
    radius: float = 0.8,
    **lines: Any,
) -> Axes:
    """The merge tree of one sequence: which tokens, or groups of them, join at which angle (single linkage).

    Args:
        dataset: Of ``kd.analyze`` with the measure ``merge_tree``, without controls; the first token is left out.
        ax: Where to draw.
        sequence: Place of the sequence in the Dataset.
        layer: Number of the layer (default: the last).
        radius: Chord below which groups have colours (0.8 is 47 degrees).
        **lines: For ``matplotlib.collections.LineCollection``.

    Raises:
        ValueError: No such sequence or layer, or one of fewer than two tokens without the first.
    """
    ax = new_axes(ax)
    layers = dataset["layer"].values
    chosen = layers[-1] if layer is None else layer
    if chosen not in layers or not sequence < dataset.sizes["sequence"]:
        raise ValueError(
            f"sequence and layer must be below {dataset.sizes['sequence']} and among {layers[0]} to {layers[-1]}, "
            f"got {sequence} and {layer}"
        )
    rows = dataset["merge_tree"].sel(layer=chosen).isel(sequence=sequence).transpose("merge", "join").values
    rows = rows[~np.isnan(rows[:, 0])]
    if not len(rows):
        raise ValueError(f"sequence {sequence} has fewer than two tokens without the first, and so no tree")
    order, paths, heights, colours = _branches(rows, radius)
    degrees = np.degrees(2 * np.arcsin(np.minimum(heights / 2, 1.0)))
    look: dict[str, Any] = {"colors": colours, "linewidths": 1.2}
    ax.add_collection(LineCollection(list(np.stack([paths, degrees], -1)), **(look | lines)))
    ax.axhline(np.degrees(2 * np.arcsin(radius / 2)), color="0.4", linewidth=0.8, linestyle=":")
    ax.grid(visible=False, axis="x")
    ax.set_xticks([])
    tokens = int(rows[-1, 3:].sum())
    groups = f"{tokens} tokens" if tokens == len(order) else f"{len(order)} groups of {tokens} tokens"
    ax.set(xlim=(-1, len(order)), ylim=(0, 1.03 * degrees.max()), xlabel=groups, ylabel="joined within (degrees)")
    return ax


def _branches(rows: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Order of the leaves, and of each join its four corners (places and chords) and colour; grey above the radius."""
    from scipy.cluster.hierarchy import dendrogram

    counts = np.ones(2 * len(rows) + 1)
    for row, (one, other) in enumerate(rows[:, :2].astype(int)):
        counts[len(rows) + 1 + row] = counts[one] + counts[other]
    matrix = np.column_stack([rows[:, :3], counts[len(rows) + 1 :]])
    drawn = dendrogram(matrix, no_plot=True, color_threshold=radius, above_threshold_color="0.5")
    places = (np.array(drawn["icoord"]) - 5) / 10  # scipy puts leaves at 5, 15, 25, ...
    return np.array(drawn["leaves"]), places, np.array(drawn["dcoord"]), drawn["color_list"]
