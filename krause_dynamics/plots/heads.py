"""One number of every head as a map of blocks and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Holds, reads
from krause_dynamics.plots.bands import words_of
from krause_dynamics.plots.cases import dimension
from krause_dynamics.plots.style import ON, new_axes
from krause_dynamics.plots.words import upright

if TYPE_CHECKING:
    import xarray

MISSING = "0.6"  # grey of what was not measured, on light and dark paper


@reads(dataset=Holds("kd.analyze", ()), ax=ON)
def head_map(
    dataset: xarray.Dataset, *, ax: Axes | None = None, quantity: str = "importance_first", **image: Any
) -> Axes:
    """Heat map, block by head, of any number that heads have: the mean over sequences.

    Args:
        dataset: Of ``kd.analyze``, ``kd.checkpoints.forecast``, ``kd.checkpoints.confidence``, the ``"cross"`` of
            ``kd.checkpoints.encoder_decoder``, or one branch of ``kd.models.branch_statistics``
            (``.sel(branch="krause")``).
        ax: Where to draw.
        quantity: A variable over blocks and heads, and sequences or not. Heads without it are grey.
        **image: For ``Axes.imshow``.

    Raises:
        ValueError: A quantity of another name, or of further dimensions.
    """
    known = _over_heads(dataset)
    if quantity not in known:
        further = dimension(dataset) or ("branch" if "branch" in dataset.dims else "")
        way_out = f"; choose one {further} with dataset.sel({further}=...)" if further else ""
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}{way_out}")
    ax = new_axes(ax)
    values = dataset[quantity]
    means = (values.mean("sequence") if "sequence" in values.dims else values).transpose("block", "head")
    picture = ax.imshow(means.values, **({"aspect": "auto", "cmap": "viridis"} | image))
    label_heads(ax, means["block"].values, means["head"].values if "head" in means.coords else None)
    words = words_of(dataset, quantity)
    if bool(means.isnull().any()):
        ax.set_facecolor(MISSING)
        words += " (grey: none)"
    ax.figure.colorbar(picture, ax=ax, label=upright(ax, words))
    return ax


def _over_heads(dataset: xarray.Dataset) -> list[str]:
    """Variables that a map can show."""
    return sorted(
        str(name)
        for name, values in dataset.data_vars.items()
        if {"block", "head"} <= set(values.dims) <= {"sequence", "block", "head"} and values.dtype.kind in "fiu"
    )


def label_heads(ax: Axes, blocks: np.ndarray, heads: np.ndarray | None) -> None:
    """Blocks and heads by number, as many as there is room for."""
    every = max(1, len(blocks) // 10)
    ax.set_yticks(range(0, len(blocks), every), blocks[::every])
    count = int(np.ceil(ax.get_xlim()[1]))
    shown = range(0, count, max(1, count // 12))
    ax.set_xticks(shown, [str(i if heads is None else heads[i]) for i in shown])
    ax.set(xlabel="head", ylabel="block")
    ax.grid(visible=False)
