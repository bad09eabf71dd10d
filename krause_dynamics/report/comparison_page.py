"""A comparison as one page of HTML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import FILE, Is, reads
from krause_dynamics._files import write_bytes
from krause_dynamics.report.comparison import COMPARED, cell, comparison_rows, rows_text
from krause_dynamics.report.files import write_dataset
from krause_dynamics.report.html import rendered
from krause_dynamics.report.page import check_page
from krause_dynamics.report.panels import compared, differing, emerging, further, further_differing, pictures
from krause_dynamics.report.places import filled, told

if TYPE_CHECKING:
    import xarray

DETAILED = 3  # cases beside the reference, of which each is told in detail


@reads(comparison=COMPARED, path=FILE, parameters=Is(dict, "{}"))
def write_comparison_page(
    comparison: xarray.Dataset, path: str | os.PathLike[str], parameters: dict[str, Any]
) -> list[Path]:
    """Everything ``krause compare --report`` leaves: the page, and beside it its numbers as ``.csv`` and ``.nc``.

    The page needs no other file, has no script, follows the reader's light or dark theme and the width of the screen.

    Args:
        comparison: Of ``kd.compare``.
        path: Of the page, ``.html``.
        parameters: What the page says of how it was made, together with the metadata of the comparison.
    """
    page, rows = check_page(path), comparison_rows(comparison)
    beside = [page.with_suffix(".csv"), write_dataset(comparison, page.with_suffix(".nc"))]
    write_bytes(beside[0], rows_text(rows).encode())
    about = parameters | {"files": [one.name for one in beside]}
    write_bytes(page, _html(comparison, rows, about).encode())
    return [page, *beside]


def _html(comparison: xarray.Dataset, rows: list[dict[str, Any]], parameters: dict[str, Any]) -> str:
    meta = json.loads(comparison.attrs["meta"])
    groups = {
        "emerging": emerging(comparison),
        "shown": compared(comparison),
        "differences": differing(comparison),
        "more": [*further(comparison), *further_differing(comparison)],
    }
    drawn = {name: list(pictures(comparison, panels)) for name, panels in groups.items()}
    words = {
        "cases": [str(case) for case in comparison["case"].values],
        "facts": [f"{comparison.sizes['case']} cases", f"on relative depth, against {meta['reference']}"],
        "reference": meta["reference"],
        "level": f"{meta['level']:.0%}",
        "findings": _findings(comparison, rows),
        "compared": list(_compared(meta, comparison)),
        "rows": list(_table(rows, meta["reference"])),
        "places": filled("clusters within {angle} degrees, sinks above {percent} % of the attention", comparison),
        "left_out": [name.replace("_", " ") for name in meta["left_out"]],
        "files": parameters.pop("files", []),
        "made": json.dumps(parameters | {"comparison": meta}, indent=1, sort_keys=True, default=str),
    }
    return rendered("comparison.html.jinja", words | drawn, [svg for group in drawn.values() for _, svg in group])


@reads(comparison=COMPARED)
def comparison_findings(comparison: xarray.Dataset) -> dict[str, list[str]]:
    """How each case differs from the reference: in the measures that matter most, and in how many of all.

    Args:
        comparison: From `kd.compare`.

    Returns:
        Sentences by case. Of more than ``DETAILED`` cases only the last is told in detail, as the last of a training.
    """
    return _findings(comparison, comparison_rows(comparison))


def _findings(comparison: xarray.Dataset, rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    meta = json.loads(comparison.attrs["meta"])
    reference, by = meta["reference"], {(row["quantity"], row["case"]): row for row in rows}
    leading = [name for name, words in told(comparison) if words.headline]
    cases = [str(name) for name in comparison["case"].values if str(name) != reference]
    found: dict[str, list[str]] = {}
    for case in cases:
        detailed = leading if len(cases) <= DETAILED or case == cases[-1] else []
        both = [(by[name, case], by[name, reference]) for name in detailed if (name, case) in by]
        found[case] = [_difference(row, base["mean"]) for row, base in both]
        ours = [row for row in rows if row["case"] == case and not np.isnan(row["low"])]
        if not ours:
            found[case].append("No measure has an interval: that takes two sequences or more.")
            continue
        found[case].append(
            f"{sum(map(_is_apart, ours))} of {len(ours)} measures differ beyond their {meta['level']:.0%} intervals; "
            f"chance alone would give about {(1 - meta['level']) * len(ours):.1f}."
        )
    return found


def _is_apart(row: dict[str, Any]) -> bool:
    return bool(row["low"] > 0 or row["high"] < 0)


def _difference(row: dict[str, Any], base: float) -> str:
    words = row["words"][:1].upper() + row["words"][1:]
    if np.isnan(row["difference"]):
        return f"{words}: not known of both at one depth."
    if np.isnan(row["low"]):
        verdict = "too few sequences for an interval"
    elif _is_apart(row):
        verdict = "higher" if row["difference"] > 0 else "lower"
    else:
        verdict = "no difference that these sequences can tell"
    interval = "" if np.isnan(row["low"]) else f", {row['low']:+.2g} to {row['high']:+.2g}"
    return f"{words}: {row['mean']:.3g} against {base:.3g} ({row['difference']:+.2g}{interval}), {verdict}."


def _compared(meta: dict[str, Any], comparison: xarray.Dataset) -> Iterator[list[str]]:
    """Facts of each case; how its sequences are set against those of the reference."""
    for case in comparison["case"].values:
        name, lengths = str(case), comparison["length"].sel(case=case).values.astype(float)
        here, one = lengths[~np.isnan(lengths)], meta["cases"][str(case)]
        tokens = f"{here.max():.0f}" if here.min() == here.max() else f"{here.min():.0f} to {here.max():.0f}"
        how = "reference" if name == meta["reference"] else "in pairs" if meta["paired"][name] else "apart"
        known = [str(one.get(key, "-")) for key in ("model", "layers", "dtype")]
        yield [name, *known, str(len(here)), tokens, how]


def _table(rows: list[dict[str, Any]], reference: str) -> Iterator[tuple[str, str, list[str]]]:
    for name in dict.fromkeys(row["quantity"] for row in rows):
        ours = [row for row in rows if row["quantity"] == name]
        yield ours[0]["words"], name, [cell(row, reference) for row in ours]
