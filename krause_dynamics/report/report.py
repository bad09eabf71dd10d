"""The Dataset of an analysis for readers: a table in words, figures, and files on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray
    from rich.console import Console
    from rich.table import Table

# A chord of 0.8 is an angle of 47 degrees: there a trained decoder shows more than one cluster and fewer than tokens.
RADIUS = 0.8
EPS = 0.3
_PATHS = {"registry": "the attention registry of transformers", "eager": "the weights that the model returns"}


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

    layers = dataset["layer"].values
    shown = layers[np.unique(np.linspace(0, len(layers) - 1, min(rows, len(layers))).round().astype(int))]
    state = dataset.assign(clusters=dataset["clusters"].where(dataset["clusters"] >= 0)).mean("sequence")
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
    meta = json.loads(dataset.attrs["meta"])
    heads = f" x {dataset.sizes['head']} heads" if "head" in dataset.sizes else ""
    return (
        f"{meta['model']}: {meta['layers']} blocks{heads}, {meta['dtype']} weights; "
        f"{meta['sequences']} sequences of {token_count(dataset)} tokens"
    )


def token_count(dataset: xarray.Dataset) -> str:
    """'64', or '12 to 64' when the sequences differ."""
    shortest, longest = int(dataset["length"].min()), int(dataset["length"].max())
    return str(longest) if shortest == longest else f"{shortest} to {longest}"


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
        path = _PATHS[json.loads(dataset.attrs["meta"])["attention_path"]]
        lines += [
            "attn to first: share of attention that the first token receives, mean over queries and heads.",
            f"sink rate: (sequence, head) pairs in which that share exceeds {100 * eps:.0f} %.",
            "entropy: of attention rows; 1 = spread evenly over the visible tokens, 0 = all on one.",
            f"Attention was read through {path}; statistics in float32.",
        ]
    return lines


def findings(dataset: xarray.Dataset, *, eps: float = EPS) -> list[str]:
    """The analysis in a few sentences."""
    ratio = dataset["norm_ratio"].mean("sequence")
    peak = int(ratio["layer"][int(np.argmax(ratio.values))])
    cosine = dataset["mean_cosine"].mean("sequence").sel(tokens="without_first")
    top = int(cosine["layer"][int(np.argmax(cosine.values))])
    lines = [
        f"Tokens other than the first are most alike after layer {top}: mean cosine {float(cosine.max()):.2f}; "
        f"it is {float(cosine[0]):.2f} at the embedding and {float(cosine[-1]):.2f} after the last block.",
        f"The first token is largest after layer {peak}: {float(ratio.max()):.0f} times the median norm.",
    ]
    if "sink_rate" not in dataset:
        return lines
    eps = float(dataset["eps"].sel(eps=eps, method="nearest"))
    rate = float(dataset["sink_rate"].sel(eps=eps).mean())
    score = dataset["first_token_score"].mean(["sequence", "head"])
    strongest = dataset["strongest_key"].values
    known = strongest[strongest >= 0]
    lines.append(
        f"Sink_1^{eps:g} = {rate:.1f} %: the first token is a sink in that share of (sequence, block, head), at "
        f"{token_count(dataset)} tokens. Mean score of the Krause authors {float(score.mean()):.3f}; "
        f"{int((score > 0.05).sum())} of {score.size} blocks lie above their threshold 0.05."
    )
    if known.size:
        share = 100 * float((known == 0).mean())
        lines.append(f"In {share:.0f} % of (sequence, block, head) no token receives more attention than the first.")
    return lines


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Make sure, before anything is computed, that results can be written.

    Raises:
        ValueError: If the folder cannot be made or written to.
    """
    folder = Path(folder)
    probe = folder / ".write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"out must be a folder that can be written to, received {str(folder)!r} ({reason})") from None
    return folder


def write_dataset(dataset: xarray.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write netCDF, compressed; metadata are the one JSON string ``attrs["meta"]``."""
    path = Path(path)
    encoding: dict[Any, dict[str, Any]] = {name: {"zlib": True, "complevel": 4} for name in dataset.data_vars}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def write_figures(dataset: xarray.Dataset, folder: str | os.PathLike[str], parameters: dict[str, Any]) -> list[Path]:
    """Write synchronization.png, clusters.png and, where attention was recorded, sinks.png, each with its JSON.

    Args:
        dataset: Of ``kd.analyze``.
        folder: An existing folder.
        parameters: What is written beside each figure, together with the metadata of the analysis.
    """
    from krause_dynamics import plots

    folder, described = Path(folder), parameters | {"analysis": json.loads(dataset.attrs["meta"])}
    with plots.style():
        figures = {
            "synchronization": plots.layers_figure(dataset),
            "clusters": plots.clusters_figure(dataset),
        }
        if "sink_rate" in dataset:
            figures["sinks"] = plots.sinks_figure(dataset, eps=EPS)
        return [plots.save_figure(fig, folder / f"{name}.png", described) for name, fig in figures.items()]


def write_all(dataset: xarray.Dataset, folder: Path, parameters: dict[str, Any]) -> list[Path]:
    """Everything ``krause analyze --out`` leaves: analysis.nc, table.txt, figures with their parameters."""
    from rich.console import Console

    table = folder / "table.txt"
    with table.open("w", encoding="utf-8") as stream:
        print_report(dataset, Console(file=stream, width=140))
    return [write_dataset(dataset, folder / "analysis.nc"), table, *write_figures(dataset, folder, parameters)]


def print_report(dataset: xarray.Dataset, console: Console) -> None:
    """Table, its legend and the findings on a console."""
    console.print(layer_table(dataset))
    for line in legend(dataset):
        console.print(f"  {line}", highlight=False, style="dim")
    for line in findings(dataset):
        console.print(f"- {line}", highlight=False)


@contextmanager
def progress_bar(label: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A rich progress bar, in a terminal or a notebook, as an ``progress(done, total)`` function."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
