"""The table of an analysis over its layers, and what its columns mean."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._arguments import Holds, Real, Whole, reads
from krause_dynamics._thresholds import RADIUS
from krause_dynamics._words import Words
from krause_dynamics.errors import printable
from krause_dynamics.report.findings import findings
from krause_dynamics.report.places import (
    EPS,
    TOKENS,
    as_given,
    at_places,
    averaged,
    filled,
    numbers,
    token_count,
    told,
)

if TYPE_CHECKING:
    import xarray
    from rich.console import Console
    from rich.table import Table

ANALYSIS = Holds("kd.analyze", ("layer", "length"))
_PATHS = {
    "registry": "the attention registry of transformers",
    "eager": "the weights that the model returns",
    "krause": "the calls of Krause attention as they were made",
    "windows": "the weights within each window of a picture (scores over the whole picture are left out)",
    "calls": "the calls of attention as they were made",
}


@reads(dataset=ANALYSIS, rows=Whole(1), radius=Real(), eps=Real())
def layer_table(dataset: xarray.Dataset, *, rows: int = 11, radius: float = RADIUS, eps: float = EPS) -> Table:
    """Table over layers, means over sequences (and heads); `legend` explains its columns.

    Args:
        dataset: Of ``kd.analyze``.
        rows: Layers shown, spread evenly; first and last always.
        radius: Chord at which clusters are counted (the nearest one in the Dataset).
        eps: Threshold of the sink rate (the nearest one in the Dataset).
    """
    from rich import box
    from rich.table import Table

    dataset = as_given(dataset)
    layers = dataset["layer"].values
    shown = layers[np.unique(np.linspace(0, len(layers) - 1, min(rows, len(layers))).round().astype(int))]
    table = Table(title=_title(dataset), box=box.SIMPLE_HEAD, padding=(0, 1))
    columns = {"layer": [str(layer) for layer in shown]}
    for heading, name, words, tokens in _columns(dataset):
        curve = averaged(numbers(at_places(dataset[name], tokens=tokens, radius=radius, eps=eps)))
        columns[heading] = [_cell(curve, layer, words) for layer in shown]
    for name in columns:
        table.add_column(name, justify="right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _columns(dataset: xarray.Dataset) -> Iterator[tuple[str, str, Words, str]]:
    """Headings, measures and which tokens: the columns of the table after that of layers."""
    for name, words in told(dataset):
        if not words.column:
            continue
        if "tokens" not in dataset[name].dims:
            yield "\n".join(words.column.rsplit(" ", 1)), name, words, TOKENS
            continue
        if words.both:
            yield f"{words.column}\nall", name, words, "all"
        yield f"{words.column}\nrest", name, words, TOKENS


def _cell(curve: xarray.DataArray, layer: int, words: Words) -> str:
    place = str(curve.dims[0])
    if layer not in curve[place]:  # the embedding has no attention
        return "-"
    number = words.scale * float(curve.sel({place: layer}))
    return "-" if math.isnan(number) else words.written.format(number)  # a block without attention


def _title(dataset: xarray.Dataset) -> str:
    from rich.markup import escape

    meta = json.loads(dataset.attrs["meta"])
    heads = f" x {dataset.sizes['head']} heads" if "head" in dataset.sizes else ""
    return escape(
        printable(
            f"{meta['model']}: {meta['layers']} blocks{heads}, {meta['dtype']} weights; "
            f"{meta['sequences']} sequences of {token_count(dataset)} tokens"
        )
    )


@reads(dataset=ANALYSIS, radius=Real(), eps=Real())
def legend(dataset: xarray.Dataset, *, radius: float = RADIUS, eps: float = EPS) -> list[str]:
    """What the columns of `layer_table` mean, for readers who do not know the code.

    Args:
        dataset: From `kd.analyze`.
        radius: Of clusters, a chord on the unit sphere.
        eps: Threshold of a sink: the share of attention that the first token receives.
    """
    lines = ["layer: 0 is the embedding, i the tokens after block i. all: every token; rest: without the first token."]
    for _, words in told(dataset):
        if words.column:
            lines.append(f"{words.column}: {filled(words.legend, dataset, radius=radius, eps=eps)}")
    if "block" in dataset.dims:
        meta = json.loads(dataset.attrs["meta"])
        path = _PATHS[meta["attention_path"]]
        lines.append(f"Attention was read through {path}; statistics in float32.")
        if branch := meta.get("attention_branch"):
            lines.append(f"It is the {branch} branch's; kd.models.branch_weights has the Krause branch and the gate.")
    return lines


@reads(dataset=ANALYSIS)
def print_report(dataset: xarray.Dataset, console: Console | None = None) -> None:
    """Table, its legend and the findings on a console; of an analysis with controls those of what was given.

    Args:
        dataset: From `kd.analyze`.
        console: Of rich; by default the standard output.
    """
    from rich.console import Console

    console = console or Console()
    console.print(layer_table(dataset))
    for line in legend(dataset):
        console.print(f"  {line}", highlight=False, style="dim", markup=False)
    for line in findings(dataset):
        console.print(f"- {printable(line)}", highlight=False, markup=False)
