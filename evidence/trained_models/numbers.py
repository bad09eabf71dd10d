"""The page of numbers: tables of what is stored, beside published ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evidence.trained_models import RESULTS, stored
from krause_dynamics.report import EPS, RADIUS

if TYPE_CHECKING:
    import xarray

PAGE = Path(__file__).resolve().parents[2] / "figures" / "trained_models.md"
NAMES = {
    "smollm2": "SmolLM2-135M",
    "gemma": "Gemma 3 270M",
    "minilm": "MiniLM-L6",
    "albert": "ALBERT of reactions",
    "dinov2": "DINOv2-S",
}
DECODERS = ("smollm2", "gemma")
CONTROLS = {
    "as given": "text",
    "with_bos": "text after the first token of training",
    "random": "random tokens",
    "repeated": "one repeated token",
}
# Gu et al., arXiv:2410.10781, table 1: per cent of (layer, head), 100 sequences of 64 tokens.
PUBLISHED = {
    "GPT2-XL": {"as given": 77.00, "random": 70.29, "repeated": 62.28},
    "Mistral-7B": {"as given": 97.49, "random": 75.21, "repeated": 0.00},
    "Llama-2-7B": {"as given": 92.47, "random": 90.13, "repeated": 0.00},
    "Llama-3-8B": {"as given": 99.02, "random": 91.23, "repeated": 0.00},
}
REST = {"tokens": "without_first"}


SINKS = """
## Attention sinks under controls

Sink_1^{eps:g} in per cent at 64 tokens: the share of (sequence, block, head) whose first token receives more than that
of the attention. Published ones are of Gu et al. (arXiv 2410.10781, table 1). Rotary models lose their sink on a
repeated token, as all states are one. The tokenizer of Gemma 3 begins every text with one token: no other is a sink.
"""
VALUES = """
## Values at the sink

The norm of the first token's value over the median of the others', at 64 tokens. Published: tokens that are sinks have
small values (the same source), so that a head that rests there adds nothing.
"""
REACH = """
## Blocks with a window and blocks without

Gemma 3, three texts of 1024 tokens, each after the first token of training; a window is of 512. The share of the first
token is divided by the queries that can see it.
"""
OVERVIEW = """
## Synchronization and clusters

Tokens without the first, means over sequences. Clusters: directions within {angle:.0f} degrees of another member.
"""


def page() -> str:
    """Markdown of all models that are stored."""
    found = {name: stored(name) for name in NAMES if (RESULTS / f"{name}.nc").exists()}
    decoders = {name: found[name] for name in DECODERS if name in found}
    head = "# Five trained models\n\nPrinted by `python -m evidence.trained_models`; pictures are in the gallery."
    parts = [head, sinks(decoders), values(decoders), reach(found["gemma"]), overview(found), checks(found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sinks(found: dict[str, xarray.Dataset]) -> str:
    """Sink rates under the published controls."""
    head, rows = ["", *(NAMES[name] for name in found), *PUBLISHED], []
    for control, words in CONTROLS.items():
        ours = [f"{sink_rate(data, control):.1f}" for data in found.values()]
        rows.append([words, *ours, *(f"{row[control]:.1f}" if control in row else "-" for row in PUBLISHED.values())])
    return SINKS.format(eps=EPS) + _table(head, rows)


def sink_rate(data: xarray.Dataset, control: str) -> float:
    """Of all blocks and heads."""
    return float(data["sink_rate"].sel(control=control, eps=EPS).mean())


def value_norms(data: xarray.Dataset, start: str = "as given") -> np.ndarray:
    """(blocks, heads of values): the first token's over the median of the others', mean over sequences."""
    which = ("as given", "with_bos").index(start)
    norms: np.ndarray = data["value_norm"].isel(start=which).mean("sequence").values
    return norms


def values(found: dict[str, xarray.Dataset]) -> str:
    """How small the values of the first token are."""
    head = ["", "median over blocks and heads", "share below 1", "share below 1/2", "blocks where the mean is above 1"]
    rows = []
    for name, data in found.items():
        for start in ("as given", "with_bos"):
            norms = value_norms(data, start)
            above = [str(block) for block, mean in enumerate(norms.mean(-1), 1) if mean > 1] or ["none"]
            shares = [f"{100 * (norms < least).mean():.0f} %" for least in (1.0, 0.5)]
            rows.append([f"{NAMES[name]}, {CONTROLS[start]}", f"{np.median(norms):.2f}", *shares, ", ".join(above)])
    return VALUES + _table(head, rows)


def reach(gemma: xarray.Dataset) -> str:
    """Gemma's blocks that hear a window, and those that hear all."""
    head, rows = ["blocks", "number", "attention to the first token", "mean distance (tokens)", "Sink, 64 tokens"], []
    for kind in ("sliding", "full"):
        here = gemma["kind"].values == kind
        first, far = (float(gemma[f"long_{name}"][:, here].mean()) for name in ("importance_first", "mean_distance"))
        rate = float(gemma["sink_rate"].sel(control="with_bos", eps=EPS)[here].mean())
        rows.append([kind, str(here.sum()), f"{100 * first:.0f} %", f"{far:.0f}", f"{rate:.1f} %"])
    return REACH + _table(head, rows)


def overview(found: dict[str, xarray.Dataset]) -> str:
    """Each model as trained, and under the controls that change it."""
    head = ["model", "tokens", "R first", "R last", "highest cosine, after block", "clusters first", "clusters last",
            f"Sink_1^{EPS:g}", "most heard is the first"]  # fmt: skip
    shown = {"as given": "", "with_bos": ", after the first token of training", "random_weights": ", random weights"}
    rows = [
        [NAMES[name] + words, *_facts(data.sel(control=control))]
        for name, data in found.items()
        for control, words in shown.items()
        if control in data["control"].values
    ]
    return OVERVIEW.format(angle=np.degrees(2 * np.arcsin(RADIUS / 2))) + _table(head, rows)


def _facts(data: xarray.Dataset) -> Iterator[str]:
    order = data["order_parameter"].sel(REST).mean("sequence").values
    cosine = data["mean_cosine"].sel(REST).mean("sequence").values
    counts = data["clusters"].sel(REST).sel(radius=RADIUS, method="nearest").mean("sequence").values
    known = data["strongest_key"].values[data["strongest_key"].values >= 0]
    yield from (f"{data['length'].values.max():.0f}", f"{order[0]:.2f}", f"{order[-1]:.2f}")
    yield f"{cosine.max():.2f}, {cosine.argmax()}"
    yield from (f"{counts[0]:.1f}", f"{counts[-1]:.1f}", f"{float(data['sink_rate'].sel(eps=EPS).mean()):.1f} %")
    yield f"{100 * (known == 0).mean():.0f} %"


def checks(found: dict[str, xarray.Dataset]) -> str:
    """Whether the weights were read well."""
    lines = ["## Were the weights read well?", ""]
    for name, data in found.items():
        meta: dict[str, Any] = json.loads(data.attrs["meta"])
        if "loss" in meta:
            lines.append(f"- {NAMES[name]} predicts the text with {meta['loss']:.2f} nats a token.")
        if "largest_difference_from_onnx" in meta:
            far = meta["largest_difference_from_onnx"]
            lines.append(
                f"- {NAMES[name]} answers as the graph in its file by ONNX's reference does, within {far:.0e}."
            )
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]
    return "\n" + "\n".join(lines)
