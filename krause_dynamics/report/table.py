"""The table of an analysis over its layers, and what its columns mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._arguments import Holds, Real, Whole, reads
from krause_dynamics.errors import printable
from krause_dynamics.report.findings import EPS, as_given, findings, token_count

if TYPE_CHECKING:
    import xarray
    from rich.console import Console
    from rich.table import Table

# A chord of 0.8 is an angle of 47 degrees: there a trained decoder shows more than one cluster and fewer than tokens.
RADIUS = 0.8
ANALYSIS = Holds("kd.analyze", ("layer", "radius", "norm_ratio", "length"))
_PATHS = {
    "registry": "the attention registry of transformers",
    "eager": "the weights that the model returns",
    "krause": "the calls of Krause attention as they were made",
}


@reads(dataset=ANALYSIS, rows=Whole(1), radius=Real(), eps=Real())
def layer_table(dataset: xarray.Dataset, *, rows: int = 11, radius: float = RADIUS, eps: float = EPS) -> Table:
    """Table over layers, means over sequences (and heads); :func:`legend` explains its columns.

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
    state = dataset.assign(clusters=dataset["clusters"].where(dataset["clusters"] != -1)).mean("sequence")
    others = state.sel(tokens="without_first")
    radius = float(dataset["radius"].sel(radius=radius, method="nearest"))
    table = Table(title=_title(dataset), box=box.SIMPLE_HEAD, padding=(0, 1))
    columns = ["layer", "R\nall", "R\nrest", "cosine\nrest", "rank\nrest", "clusters\nrest", "norm of\nfirst"]
    attention = "importance_first" in dataset
    if attention:
        columns += ["attn to\nfirst", "sink\nrate", "entropy"]
        eps = float(dataset["eps"].sel(eps=eps, method="nearest"))
    for name in columns:
        table.add_column(name, justify="right")
    for layer in shown:
        at, rest = state.sel(layer=layer), others.sel(layer=layer)
        cells = [
            str(layer),
            f"{float(at['order_parameter'].sel(tokens='all')):.3f}",
            f"{float(rest['order_parameter']):.3f}",
            f"{float(rest['mean_cosine']):.3f}",
            f"{float(rest['effective_rank']):.1f}",
            f"{float(rest['clusters'].sel(radius=radius)):.1f}",
            f"{float(at['norm_ratio']):.1f}",
        ]
        if attention:
            cells += ["-"] * 3 if layer == 0 else _attention_cells(state.sel(block=layer).mean("head"), eps)
        table.add_row(*cells)
    return table


def _attention_cells(block: xarray.Dataset, eps: float) -> list[str]:
    return [
        f"{100 * float(block['importance_first']):.0f} %",
        f"{float(block['sink_rate'].sel(eps=eps)):.0f} %",
        f"{float(block['entropy']):.2f}",
    ]


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
    """What the columns of :func:`layer_table` mean, for readers who do not know the code."""
    radius = float(dataset["radius"].sel(radius=radius, method="nearest"))
    angle = np.degrees(2 * np.arcsin(radius / 2))
    lines = [
        "layer: 0 is the embedding, i the tokens after block i. all: every token; rest: without the first token.",
        "R: length of the mean direction of the tokens; 1 = all point one way, 0 = no common direction.",
        "cosine: mean cosine between two different tokens. rank: number of directions that the tokens fill.",
        f"clusters: groups of tokens whose directions lie within {angle:.0f} degrees of another member.",
        "norm of first: norm of the first token over the median norm (massive activation).",
    ]
    if "sink_rate" in dataset:
        eps = float(dataset["eps"].sel(eps=eps, method="nearest"))
        meta = json.loads(dataset.attrs["meta"])
        path = _PATHS[meta["attention_path"]]
        lines += [
            "attn to first: share of attention that the first token receives, mean over queries and heads.",
            f"sink rate: (sequence, head) pairs in which that share exceeds {100 * eps:.0f} %.",
            "entropy: of attention rows; 1 = spread evenly over the visible tokens, 0 = all on one.",
            f"Attention was read through {path}; statistics in float32.",
        ]
        if branch := meta.get("attention_branch"):
            lines.append(f"It is the {branch} branch's; kd.models.branch_weights has the Krause branch and the gate.")
    return lines


@reads(dataset=ANALYSIS)
def print_report(dataset: xarray.Dataset, console: Console) -> None:
    """Table, its legend and the findings on a console; of an analysis with controls those of what was given."""
    console.print(layer_table(dataset))
    for line in legend(dataset):
        console.print(f"  {line}", highlight=False, style="dim", markup=False)
    for line in findings(dataset):
        console.print(f"- {printable(line)}", highlight=False, markup=False)
