"""One analysis or several side by side: what a plot draws of each, told apart by lines that survive a grey print."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import AutoLocator, MaxNLocator

from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

DASHES = ("-", "--", "-.", ":")
MARKS = ("", "o", "s", "^")  # of the fifth to the eighth case, and so on


@dataclass(frozen=True)
class Case:
    """What is drawn of one analysis.

    Attributes:
        name: Of the case; empty where there is one analysis only.
        data: A Trajectory, or a Dataset over ``layer`` (relative depth where there are several cases).
        line: Of its lines: nothing where there is one analysis only.
    """

    name: str
    data: Any
    line: dict[str, Any]


def is_comparison(data: Any) -> bool:
    """Whether it holds several cases: the Dataset of ``kd.compare``, or of ``kd.analyze`` under controls."""
    return not isinstance(data, Trajectory) and dimension(data) is not None


def dimension(data: xarray.Dataset) -> str | None:
    """Along which cases lie: ``case`` of a comparison, ``control`` of an analysis with controls."""
    return next((dim for dim in ("case", "control") if dim in getattr(data, "dims", ())), None)


def cases(data: Trajectory | xarray.Dataset) -> list[Case]:
    """The cases of a comparison or the controls of an analysis, in order; or the one analysis or run that is given."""
    if not is_comparison(data):
        return [Case("", data, {})]
    found = []
    dim = dimension(data)  # type: ignore[arg-type]
    depths = {"depth": "layer", "block_depth": "block"}
    for number, name in enumerate(data[dim].values):  # type: ignore[call-overload, index]
        one = data.isel({dim: number})  # type: ignore[union-attr, dict-item]
        one = one.rename({old: new for old, new in depths.items() if old in one.dims})
        here = one.dropna("sequence", how="all", subset=["length"])
        mark = MARKS[number // len(DASHES) % len(MARKS)]
        line = {"label": str(name), "linestyle": DASHES[number % len(DASHES)], "marker": mark, "markersize": 3}
        found.append(Case(str(name), here, line))
    return found


def label_depth(ax: Axes, data: Any, axis: str = "layer") -> None:
    """Words of the axis of depth: layers by number, or relative depth of a comparison, which gets a legend."""
    if is_comparison(data):
        ax.legend()
    if "depth" in getattr(data, "dims", ()):
        ax.set_xlabel("relative depth (0 = embedding, 1 = after the last block)")
        ax.xaxis.set_major_locator(AutoLocator())
        return
    ax.set_xlabel("layer (0 = embedding, i = after block i)" if axis == "layer" else axis)
    if axis in ("layer", "block"):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def title_of(data: xarray.Dataset) -> str:
    """Model, or number of cases, and number of tokens, for titles."""
    lengths = np.unique(data["length"].values[~np.isnan(data["length"].values.astype(float))]).astype(int)
    tokens = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    name = f"{data.sizes['case']} cases" if "case" in data.dims else json.loads(data.attrs["meta"])["model"]
    return f"{name} (T = {tokens})"
