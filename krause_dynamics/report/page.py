"""An analysis as one page of HTML, which is read offline, in the dark and on a telephone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krause_dynamics._arguments import FILE, Holds, Is, reads
from krause_dynamics._files import check_target, write_bytes
from krause_dynamics.report.files import write_dataset
from krause_dynamics.report.findings import findings
from krause_dynamics.report.html import rendered
from krause_dynamics.report.panels import drawn, further, pictures
from krause_dynamics.report.places import as_given, token_count
from krause_dynamics.report.rows import measure_rows, write_csv
from krause_dynamics.report.summary import headlines, not_measured
from krause_dynamics.report.table import layer_table, legend

if TYPE_CHECKING:
    import xarray

ANALYSIS = Holds("kd.analyze", ("layer", "radius", "norm_ratio", "length"))
PARAMETERS = Is(dict, "{}")


@reads(path=FILE)
def check_page(path: str | os.PathLike[str]) -> Path:
    """Make sure, before anything is computed, that a page can be written.

    Raises:
        ValueError: Another ending than ``.html``, or no place where a file can be written.
    """
    path = check_target("report", path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"report must end in .html, received {path.name!r}")
    return path


@reads(dataset=ANALYSIS, path=FILE, parameters=PARAMETERS)
def write_page(dataset: xarray.Dataset, path: str | os.PathLike[str], parameters: dict[str, Any]) -> list[Path]:
    """Everything ``krause analyze --report`` leaves: the page, and beside it its numbers as ``.csv`` and ``.nc``.

    Args:
        dataset: Of ``kd.analyze``, with or without controls.
        path: Of the page, ``.html``.
        parameters: What the page says of how it was made, together with the metadata of the analysis.
    """
    page = check_page(path)
    beside = [write_csv(dataset, page.with_suffix(".csv")), write_dataset(dataset, page.with_suffix(".nc"))]
    return [write_html(dataset, page, parameters | {"files": [one.name for one in beside]}), *beside]


@reads(dataset=ANALYSIS, path=FILE, parameters=PARAMETERS)
def write_html(dataset: xarray.Dataset, path: str | os.PathLike[str], parameters: dict[str, Any] | None = None) -> Path:
    """One HTML file that needs no other: words, the numbers that matter, pictures, all measures, what was not measured.

    It follows the reader's light or dark theme and the width of the screen, has no script, and its pictures are SVG
    from the functions of ``kd.plots``. A measure that the package does not know of is listed and drawn like the others,
    in the words of its ``long_name``.

    Args:
        dataset: Of ``kd.analyze``; with controls they are drawn and tabled beside what was given.
        path: Of the page, ``.html``.
        parameters: What the page says of how it was made (default: nothing but the metadata of the analysis); names
            under ``files`` are linked.
    """
    page = check_page(path)
    write_bytes(page, _html(dataset, dict(parameters or {})).encode())
    return page


def _html(dataset: xarray.Dataset, parameters: dict[str, Any]) -> str:
    meta, given = json.loads(dataset.attrs["meta"]), as_given(dataset)
    cases, numbers = headlines(dataset)
    table = layer_table(dataset, rows=1000)
    shown, more = (list(pictures(dataset, panels)) for panels in (drawn(dataset), further(dataset)))
    words = {
        "meta": meta,
        "facts": _facts(given, meta),
        "findings": findings(dataset),
        "cases": cases,
        "numbers": numbers,
        "shown": shown,
        "more": more,
        "columns": [str(column.header).replace("\n", " ") for column in table.columns],
        "rows": list(zip(*(column.cells for column in table.columns), strict=True)),
        "legend": legend(given),
        "measures": measure_rows(dataset),
        "missing": not_measured(dataset),
        "files": parameters.pop("files", []),
        "made": json.dumps(parameters | {"analysis": meta}, indent=1, sort_keys=True, default=str),
    }
    return rendered("page.html.jinja", words, [svg for _, svg in (*shown, *more)])


def _facts(given: xarray.Dataset, meta: dict[str, Any]) -> list[str]:
    heads = [f"{given.sizes['head']} heads"] if "head" in given.sizes else []
    tokens = f"{meta['sequences']} sequences of {token_count(given)} tokens"
    return [f"{meta['layers']} blocks", *heads, f"{meta['dtype']} weights", tokens]
