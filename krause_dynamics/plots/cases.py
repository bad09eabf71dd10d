"""One analysis or several side by side: what a plot draws of each, told apart by lines that survive a grey print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import AutoLocator, MaxNLocator

from krause_dynamics._arguments import Holds
from krause_dynamics.plots.words import level, plain
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

Analysed = Any  # a Dataset of one analysis or several, or Datasets by name: what `Analyses` and `Named` read
DASHES = ("-", "--", "-.", ":")
MARKS = ("", "o", "s", "^")  # of the fifth to the eighth case, and so on
OF_ONE = {"sequence", "layer", "block", "head", "tokens", "radius", "eps", "depth", "block_depth", "singular_value"}
TOLD_BY = ("order_parameter", "clusters", "sink_rate", "norm_ratio")  # variables whose dimensions show those of cases


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

    @property
    def label(self) -> str:
        """The name as it is drawn."""
        return plain(self.name)


@dataclass(frozen=True)
class Analyses:
    """One analysis or several: a Dataset, a mapping of them by name, or Datasets that xarray put behind one another.

    Attributes:
        variables: What each must hold.
    """

    variables: tuple[str, ...]

    def read(self, name: str, value: Any) -> Any:
        """One Dataset; several share layers where they have as many, and relative depth where not."""
        if not isinstance(value, Mapping) or hasattr(value, "data_vars"):
            return _with_cases(Holds("kd.analyze", self.variables).read(name, value))
        if not value:
            raise ValueError(f"{name} must hold at least one analysis, got an empty mapping")
        domain = Holds("kd.analyze", self.variables)
        return _joined({case: domain.read(f"{name}[{case!r}]", data) for case, data in value.items()})


@dataclass(frozen=True)
class Named:
    """One result or several by name: a Dataset, or a mapping of Datasets, none of which is changed.

    Attributes:
        source: The function that makes one.
        variables: What each must hold.
    """

    source: str
    variables: tuple[str, ...]

    def read(self, name: str, value: Any) -> list[Case]:
        """A case each; cases that were read before stay."""
        if isinstance(value, list) and value and all(isinstance(case, Case) for case in value):
            return value
        domain = Holds(self.source, self.variables)
        if not isinstance(value, Mapping) or hasattr(value, "data_vars"):
            return [Case("", domain.read(name, value), {})]
        if not value:
            raise ValueError(f"{name} must hold at least one Dataset of {self.source}, got an empty mapping")
        read = [domain.read(f"{name}[{case!r}]", data) for case, data in value.items()]
        return [
            Case(str(case), data, line_of(i, str(case))) for i, (case, data) in enumerate(zip(value, read, strict=True))
        ]


def _joined(named: Mapping[Any, xarray.Dataset]) -> xarray.Dataset:
    """Analyses side by side along ``case``."""
    import xarray

    every = list(named.values())
    if len(every) == 1:
        return every[0]
    alike = all(one.sizes.get(dim) == every[0].sizes.get(dim) for one in every for dim in ("layer", "block", "head"))
    if not alike:
        from krause_dynamics.checkpoints import compare

        return compare(named, draws=1)
    common = [name for name in every[0].data_vars if all(name in one for one in every)]
    parts = [one[common].assign_coords(sequence=np.arange(one.sizes["sequence"])) for one in every]
    along = xarray.DataArray([str(name) for name in named], dims="case", name="case")
    joined = xarray.concat(parts, along, join="outer", combine_attrs="drop")
    models = {_model(one) for one in every}
    return joined.assign_attrs({"model": models.pop()} if len(models) == 1 else {})


def _model(data: xarray.Dataset) -> str:
    """The name of the model of an analysis, empty where it is not told."""
    return str(json.loads(data.attrs.get("meta", "{}")).get("model", ""))


def _with_cases(data: xarray.Dataset) -> xarray.Dataset:
    """A Dataset whose further dimension, as ``xarray.concat`` makes it, is called ``case``."""
    shown = next((data[name].dims for name in TOLD_BY if name in data), ())
    further = [str(dim) for dim in shown if dim not in OF_ONE | {"case", "control"}]
    if len(further) != 1:
        return data
    names = [str(name) for name in data[further[0]].values]
    return data.rename({further[0]: "case"}).assign_coords(case=names)


def is_comparison(data: Any) -> bool:
    """Whether it holds several cases: by name, of ``kd.compare``, or of ``kd.analyze`` under controls."""
    return not isinstance(data, Trajectory) and (dimension(data) is not None or _of_runs(data))


def _of_runs(data: Any) -> bool:
    return isinstance(data, Mapping) and not hasattr(data, "data_vars")


def dimension(data: Any) -> str | None:
    """Along which cases lie: ``case`` of a comparison, ``control`` of an analysis with controls."""
    return next((dim for dim in ("case", "control") if dim in getattr(data, "dims", ())), None)


def cases(data: Any) -> list[Case]:
    """The cases of a comparison, controls of an analysis, or runs by name; or the one analysis or run that is given."""
    if not is_comparison(data):
        return [Case("", data, {})]
    if _of_runs(data):
        return [Case(str(name), run, line_of(number, str(name))) for number, (name, run) in enumerate(data.items())]
    found = []
    dim = dimension(data)
    depths = {"depth": "layer", "block_depth": "block"}
    for number, name in enumerate(data[dim].values):
        one = data.isel({dim: number})
        one = one.rename({old: new for old, new in depths.items() if old in one.dims})
        here = one.dropna("sequence", how="all", subset=["length"])
        found.append(Case(str(name), here, line_of(number, str(name))))
    return found


def line_of(number: int, name: str) -> dict[str, Any]:
    """Name, stroke and mark of the line of a case."""
    mark = MARKS[number // len(DASHES) % len(MARKS)]
    return {"label": plain(name), "linestyle": DASHES[number % len(DASHES)], "marker": mark, "markersize": 3}


def label_depth(ax: Axes, data: Any, axis: str = "layer", share: float = 1.0) -> None:
    """Words of the axis of depth: layers by number, or relative depth of a comparison, which gets a legend."""
    if is_comparison(data) and ax.get_legend_handles_labels()[1]:
        ax.legend()
    if "depth" in getattr(data, "dims", ()):
        ax.set_xlabel(level(ax, "relative depth (0 = embedding, 1 = after the last block)", share))
        ax.xaxis.set_major_locator(AutoLocator())
        return
    ax.set_xlabel(level(ax, "layer (0 = embedding, i = after block i)" if axis == "layer" else axis, share))
    if axis in ("layer", "block"):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def title_of(data: xarray.Dataset) -> str:
    """Model, or number of cases, and number of tokens, for titles."""
    lengths = np.unique(data["length"].values[~np.isnan(data["length"].values.astype(float))]).astype(int)
    tokens = " to ".join(dict.fromkeys(map(str, lengths[[0, -1]]))) if len(lengths) else ""
    cases = f"{data.sizes['case']} cases" if "case" in data.dims else ""
    name = data.attrs.get("model") if cases else _model(data)
    name = name or cases
    return plain(f"{name} (T = {tokens})" if tokens else name)
