"""What the decoder of an encoder-decoder hears of its encoder, and both stacks side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from krause_dynamics._arguments import Holds, reads
from krause_dynamics.plots.bands import draw, mean_and_spread, words_of
from krause_dynamics.plots.cases import DASHES, line_of
from krause_dynamics.plots.heads import head_map
from krause_dynamics.plots.style import ON, across, new_axes
from krause_dynamics.plots.words import level, upright

if TYPE_CHECKING:
    import xarray

SOURCE = "kd.checkpoints.encoder_decoder"
STACKS = ("encoder", "decoder")
WORDS = {"order_parameter": "order parameter R", "importance_first": "attention to the first token"}  # both in [0, 1]


@dataclass(frozen=True)
class Cross:
    """The ``"cross"`` of `encoder_decoder`, alone or among the three."""

    variables: tuple[str, ...]

    def read(self, name: str, value: Any) -> xarray.Dataset:
        """The Dataset over pairs, blocks of the decoder and heads."""
        if isinstance(value, Mapping) and not hasattr(value, "data_vars") and "cross" in value:
            value = value["cross"]
        found: xarray.Dataset = Holds(f"{SOURCE}(...)['cross']", self.variables).read(name, value)
        return found


@dataclass(frozen=True)
class Three:
    """Everything that `encoder_decoder` gives."""

    def read(self, name: str, value: Any) -> dict[str, xarray.Dataset]:
        """Encoder, decoder, cross."""
        if not isinstance(value, Mapping) or not {*STACKS, "cross"} <= set(value):
            given = f"a mapping of {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
            raise TypeError(f"{name} must be the three Datasets of {SOURCE}, by name, got {given}")
        stacks = {
            stack: Holds(SOURCE, ("order_parameter",)).read(f"{name}[{stack!r}]", value[stack]) for stack in STACKS
        }
        return {**stacks, "cross": Cross(("place_by_quarter", "strongest_importance")).read(name, value["cross"])}


@reads(dataset=Cross(("place_by_quarter",)), ax=ON)
def cross_places(dataset: Any, *, ax: Axes | None = None, **line: Any) -> Axes:
    """Where in the encoder's sequence each quarter of the decoder's tokens looks, a line a block; darker is earlier.

    A decoder that reads along, as of speech, climbs along the diagonal; attention that is even lies at one half.

    Args:
        dataset: Of ``kd.checkpoints.encoder_decoder``, or its ``"cross"``; means over pairs and heads.
        ax: Where to draw.
        **line: For ``Axes.plot``.
    """
    ax = new_axes(ax)
    values = dataset["place_by_quarter"]
    blocks = values["block"].values if "block" in values.coords else np.arange(1, values.sizes["block"] + 1)
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(blocks)))
    quarters = np.arange(1, values.sizes["quarter"] + 1)
    diagonal = (quarters - 0.5) / len(quarters)
    ax.plot(quarters, diagonal, color="0.4", linewidth=0.8, linestyle=":", label="reading along")
    for i, (block, shade) in enumerate(zip(blocks, shades, strict=True)):
        _, means, _ = mean_and_spread(values.isel(block=i), "quarter")
        look: dict[str, Any] = {"color": shade, "linestyle": DASHES[i % len(DASHES)]}
        named = {"label": f"block {block}"} if i in _named(len(blocks)) else {}
        ax.plot(quarters, means, **(look | {"marker": "o", "markersize": 3} | named | line))
    ax.set_xlabel(level(ax, "quarter of the decoder's tokens"))
    ax.set_ylabel(upright(ax, "place of what is heard (0 first source, 1 last)"))
    ax.set(ylim=(-0.02, 1.02), xticks=quarters)
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _named(count: int) -> set[int]:
    """Lines that a legend names: first, last, and some between."""
    return set(np.linspace(0, count - 1, min(count, 8)).round().astype(int).tolist())


@reads(found=Three(), ax=ON)
def stacks(
    found: Mapping[str, xarray.Dataset], *, ax: Axes | None = None, quantity: str = "order_parameter", **line: Any
) -> Axes:
    """A number of the encoder's tokens and of the decoder's over the depth of each, without the first token.

    Lines are means over pairs (and heads), bands the middle 80 per cent of them.

    Args:
        found: Of ``kd.checkpoints.encoder_decoder``.
        ax: Where to draw.
        quantity: A variable of both over layers, or over blocks and heads.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: A quantity of another name.
    """
    known = sorted(set.intersection(*(_over_depth(found[stack]) for stack in STACKS)))
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}")
    ax = new_axes(ax)
    for number, stack in enumerate(STACKS):
        values = found[stack][quantity]
        values = values.sel(tokens="without_first") if "tokens" in values.dims else values
        places, means, bounds = mean_and_spread(values, "layer" if "layer" in values.dims else "block")
        last = float(found[stack]["layer"].values[-1]) or 1.0
        draw(ax, places / last, means, bounds, **(line_of(number, stack) | line))
    ax.set_xlabel(level(ax, "relative depth (0 = embedding, 1 = last block)"))
    ax.set_ylabel(upright(ax, WORDS.get(quantity, words_of(found["encoder"], quantity))))
    if quantity in WORDS:
        ax.set_ylim(-0.02, 1.02)
    ax.legend()
    return ax


def _over_depth(data: xarray.Dataset) -> set[str]:
    """Variables that a line over depth can show."""
    return {
        str(name)
        for name, values in data.data_vars.items()
        if values.dtype.kind == "f"
        and (
            {"layer"} <= set(values.dims) <= {"sequence", "layer", "tokens"}
            or {"block"} <= set(values.dims) <= {"sequence", "block", "head"}
        )
    }


@reads(found=Three())
def encoder_decoder_figure(found: Mapping[str, xarray.Dataset]) -> Figure:
    """Alignment and sinks of both stacks over their depth; below, the strongest source by head and where quarters look.

    Args:
        found: Of ``kd.checkpoints.encoder_decoder``.
    """
    figure, axes = plt.subplots(2, 2, figsize=across(9.6, 6.4))
    stacks(found, ax=axes[0, 0])
    stacks(found, ax=axes[0, 1], quantity="importance_first")
    axes[0, 0].set_title("alignment of tokens")
    axes[0, 1].set_title("attention sinks")
    head_map(found["cross"], ax=axes[1, 0], quantity="strongest_importance", vmin=0)
    axes[1, 0].set_title("cross-attention to its strongest source")
    cross_places(found["cross"], ax=axes[1, 1])
    axes[1, 1].set_title("where the decoder looks")
    return figure
