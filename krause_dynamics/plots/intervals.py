"""Means of one analysis with the intervals in which they may lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Real, Whole, Word, reads
from krause_dynamics.plots.bands import draw, words_of
from krause_dynamics.plots.cases import DASHES, Analysed, Case, Named, label_depth
from krause_dynamics.plots.style import ON, new_axes
from krause_dynamics.plots.words import legend_above, upright

if TYPE_CHECKING:
    import xarray

PLACES = {"estimate", "layer", "block", "head", "tokens", "radius", "eps"}


@reads(
    dataset=Named("kd.checkpoints.interval", ("estimate",)),
    ax=ON,
    tokens=Word(("all", "without_first")),
    radius=Real(),
    eps=Real(),
    heads=Whole(1),
)
def interval(
    dataset: Analysed,
    *,
    ax: Axes | None = None,
    quantity: str = "order_parameter",
    tokens: str = "without_first",
    radius: float = 0.8,
    eps: float = 0.3,
    heads: int = 3,
    **line: Any,
) -> Axes:
    """A mean over layers or blocks within its interval; of what heads have, a line for some of them.

    An interval is of one place: along a line of many, some leave out the true mean by chance.

    Args:
        dataset: Of ``kd.checkpoints.interval``, or several by name.
        ax: Where to draw.
        quantity: A variable over layers or blocks.
        tokens: ``all`` or ``without_first``, where the quantity tells them apart.
        radius: Chord at which clusters are counted, where it does (0.8 is 47 degrees).
        eps: Threshold of sinks, where it does (0.3 as published).
        heads: Lines of a quantity of heads: from the head of the largest mean over blocks to that of the smallest.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: A quantity of another name.
    """
    known = [name for name in _known(dataset[0].data) if all(name in case.data for case in dataset)]
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}")
    ax = new_axes(ax)
    for number, case in enumerate(dataset):
        values = _at(case.data[quantity], {"tokens": tokens, "radius": radius, "eps": eps})
        place = "layer" if "layer" in values.dims else "block"
        for i, (name, one) in enumerate(_lines(values, heads)):
            label = ", ".join(part for part in (case.label, name) if part) or "mean"
            look = {"color": f"C{number if case.name else i}", "linestyle": _stroke(case, i), "label": label}
            mean, *bounds = (one.sel(estimate=which).values for which in ("mean", "low", "high"))
            draw(ax, one[place].values, mean, np.stack(bounds), **(look | line))
    level = json.loads(dataset[0].data.attrs.get("meta", "{}")).get("level")
    ax.set_ylabel(upright(ax, words_of(dataset[0].data, quantity)))
    label_depth(ax, dataset[0].data, place)
    legend_above(ax, f"band: {level:.0%} interval" if level else None)
    return ax


def _known(dataset: xarray.Dataset) -> list[str]:
    """Variables that lines can show."""
    return sorted(
        str(name)
        for name, values in dataset.data_vars.items()
        if set(values.dims) <= PLACES and len({"layer", "block"} & set(values.dims)) == 1
    )


def _at(values: xarray.DataArray, places: dict[str, Any]) -> xarray.DataArray:
    """A variable at one of each of its further dimensions; numbers to the nearest."""
    for dim, place in places.items():
        if dim in values.dims:
            values = values.sel({dim: place}, method=None if isinstance(place, str) else "nearest")
    return values


def _lines(values: xarray.DataArray, heads: int) -> list[tuple[str, xarray.DataArray]]:
    """The one line of a quantity without heads; else those of some heads, largest first."""
    if "head" not in values.dims:
        return [("", values)]
    means = values.sel(estimate="mean").mean("block").values
    order = np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable")
    chosen = np.unique(np.linspace(0, len(order) - 1, min(heads, len(order))).round().astype(int))
    names = values["head"].values if "head" in values.coords else np.arange(len(order))
    return [(f"head {names[order[i]]}", values.isel(head=order[i])) for i in chosen]


def _stroke(case: Case, line: int) -> str:
    return str(case.line["linestyle"]) if case.name else DASHES[line % len(DASHES)]
