"""A comparison in a table, and what it leaves on disk."""

from __future__ import annotations

import csv
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import FOLDER, Holds, Is, reads
from krause_dynamics._files import write_bytes
from krause_dynamics._thresholds import RADIUS
from krause_dynamics.analysis import intervals
from krause_dynamics.report.files import ENDING, write_dataset, write_table
from krause_dynamics.report.places import EPS, at_places

if TYPE_CHECKING:
    import xarray
    from rich.console import Console

COMPARED = Holds("kd.compare", ("case", "depth"))


@reads(comparison=COMPARED)
def comparison_rows(comparison: xarray.Dataset) -> list[dict[str, Any]]:
    """Every quantity of a comparison, averaged over depth: a row for each case. Profiles are left out.

    Clusters are counted at a chord of ``RADIUS``, sinks at ``EPS``, tokens without the first. Means are over the depths
    that all cases have (NaN: none); the intervals are theirs, as those of `kd.compare`.

    Returns:
        Rows with ``quantity``, ``words``, ``case``, ``mean``, ``last`` (at the deepest place), ``difference`` from the
        reference, and ``low`` and ``high`` of its interval (0 for the reference itself).
    """
    meta = json.loads(comparison.attrs["meta"])
    rows = []
    for name in [str(key) for key in comparison if f"{key}_difference" in comparison]:
        values = at_places(comparison[name])
        if values.ndim > 3:  # a profile, whose mean would say nothing
            continue
        by_case, words = _by_case(values), str(values.attrs.get("long_name", name))
        base = by_case[meta["reference"]]
        for case, each in by_case.items():
            row = {"quantity": name, "words": words, "case": case}
            rows.append(row | _row(each, base, case == meta["reference"], meta["paired"][case], meta))
    return rows


def _row(each: np.ndarray, base: np.ndarray, same: bool, paired: bool, meta: dict[str, Any]) -> dict[str, float]:
    """Numbers of one case (sequences, places) beside the reference."""
    one, other = each.mean(1), base.mean(1)
    low = high = apart = 0.0
    if not same:
        apart = float(intervals.apart(one, other, paired=paired))
        about: dict[str, Any] = {"level": meta["level"], "draws": meta["draws"], "rng": np.random.default_rng(0)}
        low, high = intervals.difference(one, other, paired=paired, **about).tolist()
    last = float(intervals.mean(each[:, -1]))
    return {"mean": float(intervals.mean(one)), "last": last, "difference": apart, "low": low, "high": high}


def rows_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV with a line of names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _by_case(values: xarray.DataArray) -> dict[str, np.ndarray]:
    """(sequences, places) by case, of those places that all cases have: means over other depths are no comparison."""
    ordered = values.transpose("case", "sequence", ...).values
    rows = ordered.reshape(*ordered.shape[:2], -1)
    counted = ~np.isnan(rows).all(axis=2, keepdims=True)
    common = ((~np.isnan(rows) | ~counted).all(axis=1) & counted.any(axis=1)).all(axis=0)
    places = rows[:, :, common] if common.any() else np.full((*rows.shape[:2], 1), np.nan)
    return dict(zip(map(str, values["case"].values), places, strict=True))


@reads(comparison=COMPARED)
def print_comparison(comparison: xarray.Dataset, console: Console | None = None) -> None:
    """The rows as a table: cases side by side, with the differences from the reference and their intervals.

    Args:
        comparison: From `kd.compare`.
        console: Of rich; by default the standard output.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console()

    meta, rows = json.loads(comparison.attrs["meta"]), comparison_rows(comparison)
    cases = [str(case) for case in comparison["case"].values]
    table = Table(title="Means over depth and sequences", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("quantity", *cases):
        table.add_column(name, justify="left" if name == "quantity" else "right")
    for name in dict.fromkeys(row["quantity"] for row in rows):
        table.add_row(name, *(cell(row, meta["reference"]) for row in rows if row["quantity"] == name))
    console.print(table)
    sequences = "the same sequences, in pairs" if all(meta["paired"].values()) else "sequences"
    lines = [
        f"In brackets: the difference from {meta['reference']!r} within its {meta['level']:.0%} interval, over "
        f"{sequences}; of many rows, some leave out 0 by chance.",
        f"Tokens without the first; clusters at a chord of {RADIUS:g}, sinks above {100 * EPS:.0f} % of the attention.",
    ]
    if meta["left_out"]:
        lines.append(f"Not compared, as not all cases have it over the same places: {', '.join(meta['left_out'])}.")
    for line in lines:
        console.print(f"  {line}", highlight=False, style="dim", markup=False)


def cell(row: dict[str, Any], reference: str) -> str:
    """The mean of a row; of another case than the reference with the difference and its interval."""
    if row["case"] == reference:
        return f"{row['mean']:.3g}"
    if np.isnan(row["difference"]):
        return f"{row['mean']:.3g}"
    # What rounding leaves of 0 is written as 0.
    exact = {name: row[name] if abs(row[name]) > 1e-9 * abs(row["mean"]) else 0.0 for name in ("low", "high")}
    if np.isnan(row["low"]):
        return f"{row['mean']:.3g} ({row['difference']:+.2g})"
    return f"{row['mean']:.3g} ({row['difference']:+.2g}: {exact['low']:+.2g} to {exact['high']:+.2g})"


@reads(comparison=COMPARED, folder=FOLDER, parameters=Is(dict, "{}"), ending=ENDING)
def write_comparison(
    comparison: xarray.Dataset, folder: str | os.PathLike[str], parameters: dict[str, Any], *, ending: str = "png"
) -> list[Path]:
    """Everything ``krause compare --out`` leaves: comparison.nc, comparison.csv, table.txt, figures with parameters.

    Args:
        comparison: Of ``kd.compare``.
        folder: An existing folder.
        parameters: What is written beside each figure, together with the metadata of the comparison.
        ending: Of the figures: ``"png"``, which every viewer shows; ``"pdf"`` or ``"svg"`` for print.
    """
    from krause_dynamics import plots

    folder, described = Path(folder), parameters | {"comparison": json.loads(comparison.attrs["meta"])}
    written = [write_dataset(comparison, folder / "comparison.nc"), folder / "comparison.csv"]
    write_bytes(written[1], rows_text(comparison_rows(comparison)).encode())
    written.append(write_table(folder / "table.txt", partial(print_comparison, comparison), width=160))
    with plots.style():
        figures = {"synchronization": plots.layers_figure(comparison), "clusters": plots.clusters_figure(comparison)}
        figures["difference"] = plots.difference_figure(comparison)
        if "sink_rate" in comparison:
            figures["sinks"] = plots.sinks_figure(comparison, eps=EPS)
        if comparison["case"].dtype.kind in "iu":
            figures["emergence"] = plots.emergence_figure(comparison)
        return written + [
            plots.save_figure(fig, folder / f"{name}.{ending}", described) for name, fig in figures.items()
        ]
