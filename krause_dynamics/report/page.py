"""An analysis as one page of HTML, which is read offline, in the dark and on a telephone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krause_dynamics._arguments import FILE, Holds, Is, reads
from krause_dynamics._files import check_target, write_bytes
from krause_dynamics.report.beside import Beside, Kind, not_beside
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

ANALYSIS = Holds("kd.analyze", ("layer", "length"))
PARAMETERS = Is(dict, "{}")
BESIDE = Beside()


@reads(path=FILE)
def check_page(path: str | os.PathLike[str]) -> Path:
    """Make sure, before anything is computed, that a page can be written.

    Args:
        path: Of the page, ``.html``.

    Raises:
        ValueError: Another ending than ``.html``, or no place where a file can be written.
    """
    path = check_target("report", path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"report must end in .html, received {path.name!r}")
    return path


@reads(dataset=ANALYSIS, path=FILE, parameters=PARAMETERS, beside=BESIDE)
def write_page(
    dataset: xarray.Dataset, path: str | os.PathLike[str], parameters: dict[str, Any], *, beside: Sequence[Any] = ()
) -> list[Path]:
    """Everything ``krause analyze --report`` leaves: the page, and beside it its numbers as ``.csv`` and ``.nc``.

    Args:
        dataset: Of ``kd.analyze``, with or without controls.
        path: Of the page, ``.html``.
        parameters: What the page says of how it was made, together with the metadata of the analysis.
        beside: Further results of the model, each a section and a ``.nc`` of its own: of ``kd.checkpoints.forecast``,
            ``confidence``, ``tracks``, ``encoder_decoder``, and ``kd.models.branch_statistics``.
    """
    page, further_results = check_page(path), list(beside)
    files = [write_csv(dataset, page.with_suffix(".csv")), write_dataset(dataset, page.with_suffix(".nc"))]
    for kind, result in further_results:
        for name, data in kind.named(result).items():
            files.append(write_dataset(data, page.with_name(f"{page.stem}_{name}.nc")))
    about = parameters | {"files": [one.name for one in files]}
    return [write_html(dataset, page, about, beside=[result for _, result in further_results]), *files]


@reads(dataset=ANALYSIS, path=FILE, parameters=PARAMETERS, beside=BESIDE)
def write_html(
    dataset: xarray.Dataset,
    path: str | os.PathLike[str],
    parameters: dict[str, Any] | None = None,
    *,
    beside: Sequence[Any] = (),
) -> Path:
    """One HTML file that needs no other: words, the numbers that matter, pictures, all measures, what was not measured.

    It follows the reader's light or dark theme and the width of the screen, has no script, and its pictures are SVG
    from the functions of ``kd.plots``. A measure that the package does not know of is listed and drawn like the others,
    in the words of its ``long_name``.

    Args:
        dataset: Of ``kd.analyze``; with controls they are drawn and tabled beside what was given.
        path: Of the page, ``.html``.
        parameters: What the page says of how it was made (default: nothing but the metadata of the analysis); names
            under ``files`` are linked.
        beside: Further results of the model, as of `write_page`.
    """
    page = check_page(path)
    write_bytes(page, _html(dataset, dict(parameters or {}), list(beside)).encode())
    return page


def _html(dataset: xarray.Dataset, parameters: dict[str, Any], beside: list[tuple[Kind, Any]]) -> str:
    meta, given = json.loads(dataset.attrs["meta"]), as_given(dataset)
    cases, numbers = headlines(dataset)
    table = layer_table(dataset, rows=1000)
    shown, more = (list(pictures(dataset, panels)) for panels in (drawn(dataset), further(dataset)))
    sections = [(kind, kind.sentence(result), list(pictures(result, list(kind.panels)))) for kind, result in beside]
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
        "sections": sections,
        "missing": [*not_measured(dataset), *not_beside([kind for kind, _ in beside])],
        "files": parameters.pop("files", []),
        "made": json.dumps(parameters | {"analysis": meta}, indent=1, sort_keys=True, default=str),
    }
    all_pictures = [*shown, *more, *(one for _, _, drawn_beside in sections for one in drawn_beside)]
    return rendered("page.html.jinja", words, [svg for _, svg in all_pictures])


def _facts(given: xarray.Dataset, meta: dict[str, Any]) -> list[str]:
    heads = [f"{given.sizes['head']} heads"] if "head" in given.sizes else []
    tokens = f"{meta['sequences']} sequences of {token_count(given)} tokens"
    return [f"{meta['layers']} blocks", *heads, f"{meta['dtype']} weights", tokens]
