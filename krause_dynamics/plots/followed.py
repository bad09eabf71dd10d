"""Clusters of tokens followed through the layers: who is with whom, where, with the tokens' text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from krause_dynamics._arguments import Holds, Whole, reads
from krause_dynamics.plots.style import ON
from krause_dynamics.plots.words import drawable, level, upright, wide

if TYPE_CHECKING:
    import xarray

# Hues that stay apart, light and dark in turns, so that grey print tells neighbours apart too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#56b4e9", "#7b3294", "#c2e699", "#8c510a", "#fb9a99",
           "#1b4f72", "#cab2d6")  # fmt: skip
LETTERS = 34  # of the words of a track in the legend


@reads(dataset=Holds("kd.checkpoints.tracks", ("number", "size", "words")), ax=ON, named=Whole(0, len(COLOURS)))
def tracks(dataset: xarray.Dataset, *, ax: Axes | None = None, named: int = 8, **image: Any) -> Axes:
    """Clusters over layers: a row is a token with its text, a colour a cluster that is followed; blank is alone.

    Rows are in the order of the last clusters, so that tokens that end together stand together. The largest clusters
    have colours, and a number where a token enters, and are named by their texts; others are grey.

    Args:
        dataset: Of ``kd.checkpoints.tracks``.
        ax: Where to draw; a new figure is as high as its rows need.
        named: Tracks with colours of their own, those of most tokens over all layers.
        **image: For ``Axes.imshow``.
    """
    numbers = dataset["number"].transpose("layer", "token").values
    rows = _together(numbers)
    ax = _new(len(rows)) if ax is None else ax
    totals = dataset["size"].transpose("layer", "track").values.sum(0)
    chosen = np.argsort(-totals, kind="stable")[:named]
    colour = np.full(len(totals) + 1, 1)  # 0: nothing, 1: grey, then the named ones
    colour[chosen] = 2 + np.arange(len(chosen))
    colour[-1] = 0
    shown = colour[numbers[:, rows]].T
    palette = ListedColormap(["#00000000", "0.7", *COLOURS])
    layers = dataset["layer"].values
    edges = (layers[0] - 0.5, layers[-1] + 0.5, len(rows) - 0.5, -0.5)
    look: dict[str, Any] = {"cmap": palette, "vmin": -0.5, "vmax": len(COLOURS) + 1.5, "aspect": "auto"}
    ax.imshow(shown, **(look | {"extent": edges, "interpolation": "nearest"} | image))
    ax.grid(visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(level(ax, "layer (0 = embedding, i = after block i)"))
    _name_rows(ax, dataset, rows)
    _number_cells(ax, np.where(shown > 1, shown - 1, 0), layers, palette)
    _legend(ax, dataset, chosen, len(totals))
    return ax


def _new(rows: int) -> Axes:
    """As high as the rows need, within what a page holds."""
    width, height = mpl.rcParams["figure.figsize"]
    letters = mpl.rcParams["font.size"] / 10.0
    figure, ax = plt.subplots(figsize=(width, float(np.clip(0.14 * letters * rows + 0.9, height, 3.0 * height))))
    return ax


def _together(numbers: np.ndarray) -> np.ndarray:
    """Tokens by their cluster in the last layer, within it by the one before, and so on; those alone at the end."""
    last = np.where(numbers < 0, np.iinfo(numbers.dtype).max, numbers)
    places = np.arange(numbers.shape[1])[None]
    return np.lexsort(np.concatenate([places, last]))


def _name_rows(ax: Axes, dataset: xarray.Dataset, rows: np.ndarray) -> None:
    """The text of each row, in letters that fit, or their number where none do."""
    height = _row_height(ax, len(rows))
    if height < 4.5 or "text" not in dataset.coords:
        ax.set_yticks([])
        ax.set_ylabel(upright(ax, f"{len(rows)} tokens, those that end together side by side"))
        return
    texts = [drawable(repr(str(dataset["text"].values[i]))[1:-1], 14) for i in rows]
    size = min(0.9 * height, float(mpl.rcParams["font.size"]))
    ax.set_yticks(range(len(rows)), texts, fontsize=size, parse_math=False)
    ax.tick_params(axis="y", length=0)


def _number_cells(ax: Axes, tracks: np.ndarray, layers: np.ndarray, palette: ListedColormap) -> None:
    """The number of a track (row, layer; 0: none) in the cell where a token enters it: colours are not all."""
    size = min(_row_height(ax, len(tracks)) - 1.0, 0.85 * float(mpl.rcParams["font.size"]))
    if size < 4.0 or not wide(ax, 3 * len(layers)):
        return
    look: dict[str, Any] = {"size": size, "ha": "center", "va": "center_baseline"}
    before = np.pad(tracks, ((0, 0), (1, 0)))[:, :-1]
    for row, place in np.argwhere((tracks > 0) & (tracks != before)):
        number = tracks[row, place]
        light = np.dot(palette(int(number) + 1)[:3], (0.299, 0.587, 0.114)) > 0.5
        ax.annotate(str(number), (layers[place], row), **look, color="black" if light else "white")


def _row_height(ax: Axes, rows: int) -> float:
    """Points."""
    return float(72.0 * ax.bbox.height / ax.figure.dpi / max(rows, 1))


def _legend(ax: Axes, dataset: xarray.Dataset, chosen: np.ndarray, number: int) -> None:
    """The words of each named track where it is largest."""
    patches = []
    for i, track in enumerate(chosen):
        words = drawable(" ".join(str(dataset["words"].values[track]).split()), 2 * LETTERS)
        patches.append(Patch(facecolor=COLOURS[i], label=textwrap.fill(f"{i + 1}: {words}", LETTERS)))
    if number > len(chosen):
        patches.append(Patch(facecolor="0.7", label=f"{number - len(chosen)} more"))
    if not number:
        ax.set_title("no cluster of several tokens")
        return
    angle = np.degrees(2.0 * np.arcsin(float(dataset.attrs.get("radius", np.nan)) / 2.0))
    title = f"clusters within {angle:.0f}\N{DEGREE SIGN}" if np.isfinite(angle) else "clusters"
    beside = wide(ax, 2 * LETTERS)
    # Below the numbers and the words of the axis, in points: the layout changes how high the axes are.
    points = 0.0 if beside else (3.6 + 1.3 * ax.get_xlabel().count("\n")) * mpl.rcParams["font.size"]
    figure: Any = ax.figure
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (float(beside), float(beside))}
    place["bbox_transform"] = offset_copy(ax.transAxes, fig=figure, y=-points, units="points")
    legend = ax.legend(handles=patches, title=title, fontsize="small", alignment="left", **place)
    for text in legend.get_texts():
        text.set_parse_math(False)
