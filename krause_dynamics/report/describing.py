"""Any result of the package in a few lines of words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics.report.beside import kind_of
from krause_dynamics.report.comparison import comparison_rows
from krause_dynamics.report.findings import findings
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, repr=False)
class Description:
    """Lines of words: they print as text and show as a list in a notebook.

    Attributes:
        title: What it is.
        lines: What it says, most important first.
    """

    title: str
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([self.title, *(f"  {line}" for line in self.lines)])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        return f"<div><b>{escape(self.title)}</b><ul>{items}</ul></div>"


def describe(data: Any) -> Description:
    """What a run, a sweep, an analysis, a comparison or a further result of a model holds, in words.

    Args:
        data: A `Trajectory`, a Dataset of ``kd.sweep``, ``kd.analyze``, ``kd.compare`` or ``Trajectory.to_xarray``, or
            what ``kd.checkpoints.forecast``, ``confidence``, ``tracks``, ``encoder_decoder`` and
            ``kd.models.branch_statistics`` give.

    Returns:
        A title and lines; it prints, and shows itself in a notebook.

    Raises:
        TypeError: Neither a run nor a Dataset.
    """
    if isinstance(data, Trajectory):
        return Description(repr(data), tuple(_of_a_run(data)))
    if (kind := kind_of(data)) is not None:
        return Description(_title(kind.title, list(kind.named(data).values())[-1]), (kind.sentence(data),))
    if not hasattr(data, "data_vars"):
        raise TypeError(f"data must be a Trajectory or an xarray Dataset of this package, got {type(data).__name__}")
    if "case" in data.dims and "depth" in data.dims:
        return Description(_title("Comparison", data), tuple(_of_a_comparison(data)))
    if "layer" in data.dims and "length" in data:
        return Description(_title("Analysis", data), tuple(findings(data)))
    return Description(_title("Sweep" if "seed" in data.dims else "Dataset", data), tuple(_ranges(data)))


def _title(what: str, data: xarray.Dataset) -> str:
    model = json.loads(data.attrs.get("meta", "{}")).get("model")
    sizes = " x ".join(f"{size} {name}" for name, size in data.sizes.items())
    return f"{what}{f' of {model}' if model else ''}: {sizes}"


def _of_a_run(run: Trajectory) -> list[str]:
    start, end = run.numpy().positions[[0, -1]]
    lines = [f"spread (mean distance from the centre): {_spread(start):.3g} at first, {_spread(end):.3g} in the end"]
    if run.steps is not None:
        lines.append(f"steps in which something moved: {run.steps}")
    lines += [f"also kept: {', '.join(run.extras)}"] if run.extras else []
    return lines + [
        f"{name}: {run.meta[name]}" for name in ("impl", "seed", "version") if run.meta.get(name) is not None
    ]


def _spread(x: np.ndarray) -> float:
    return float(np.linalg.norm(x - x.mean(-2, keepdims=True), axis=-1).mean())


def _of_a_comparison(data: xarray.Dataset) -> list[str]:
    """Differences whose interval leaves out 0, the largest shares of the reference's value first."""
    rows = [row for row in comparison_rows(data) if row["low"] > 0 or row["high"] < 0]
    rows.sort(key=lambda row: -abs(row["difference"]) / (abs(row["mean"] - row["difference"]) or 1.0))
    told = [
        f"{row['words']}: {row['case']} {row['mean']:.3g}, {row['difference']:+.2g} from the reference "
        f"({row['low']:+.2g} to {row['high']:+.2g})"
        for row in rows
    ]
    return told or ["no difference whose interval leaves out 0"]


def _ranges(data: xarray.Dataset) -> list[str]:
    lines = []
    for name, values in data.data_vars.items():
        over = " x ".join(f"{dim} ({values.sizes[dim]})" for dim in values.dims)
        if values.dtype.kind not in "fiub" or not values.size:
            lines.append(f"{name} over {over}")
            continue
        numbers = values.values[np.isfinite(values.values.astype(float))].astype(float)
        missing = values.size - numbers.size
        told = f"{numbers.min():.3g} to {numbers.max():.3g}, mean {numbers.mean():.3g}" if numbers.size else "no number"
        lines.append(f"{name} over {over}: {told}" + (f"; {missing} are no numbers" if missing else ""))
    return lines
