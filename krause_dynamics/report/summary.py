"""The numbers of an analysis that matter most, also under its controls, and what it does not hold and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics.report.findings import EPS, as_given
from krause_dynamics.report.rows import averaged, chosen
from krause_dynamics.report.table import RADIUS

if TYPE_CHECKING:
    import xarray


def _last(name: str) -> Callable[[xarray.Dataset], float]:
    return lambda data: float(_curve(data, name)[-1])


def _curve(data: xarray.Dataset, name: str) -> np.ndarray:
    values = data[name]
    curve = chosen(values.where(values != -1) if name == "clusters" else values)
    assert curve is not None
    return curve.values


def _sinks(data: xarray.Dataset) -> float:
    return float(averaged(data["sink_rate"].sel(eps=EPS, method="nearest")).mean())


def _angle(data: xarray.Dataset) -> str:
    return f"{np.degrees(2 * np.arcsin(float(data['radius'].sel(radius=RADIUS, method='nearest')) / 2)):.0f}"


# words, what of the Dataset, how it is read, how it is written; without the first token where a measure tells.
HEADLINES: tuple[tuple[str, str, Callable[[xarray.Dataset], float], str], ...] = (
    ("alignment R after the last block", "order_parameter", _last("order_parameter"), "{:.2f}"),
    ("highest mean cosine", "mean_cosine", lambda data: float(np.nanmax(_curve(data, "mean_cosine"))), "{:.2f}"),
    ("clusters after the last block, within {angle} degrees", "clusters", _last("clusters"), "{:.1f}"),
    ("directions filled after the last block (effective rank)", "effective_rank", _last("effective_rank"), "{:.1f}"),
    ("first token at its largest, over the median norm", "norm_ratio",
     lambda data: float(np.nanmax(_curve(data, "norm_ratio"))), "{:.3g} x"),
    ("Sink_1^{eps:g}: the first token is a sink", "sink_rate", _sinks, "{:.1f} %"),
)  # fmt: skip


def headlines(dataset: xarray.Dataset) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the cases (one without controls), and rows of words with a number for each case."""
    if "control" in dataset.dims:
        cases = {str(name): dataset.isel(control=i) for i, name in enumerate(dataset["control"].values)}
    else:
        cases = {"as given": dataset}
    rows = []
    for words, name, read, written in HEADLINES:
        if name in dataset:
            words = words.format(angle=_angle(dataset) if "radius" in dataset.coords else "", eps=EPS)
            rows.append((words, [written.format(read(case)) for case in cases.values()]))
    return list(cases), rows


def not_measured(dataset: xarray.Dataset) -> list[tuple[str, str]]:
    """What this analysis does not hold, and why: what was left out, what stopped, what could not be seen."""
    from krause_dynamics.checkpoints.measures import MEASURES

    meta, given = json.loads(dataset.attrs["meta"]), as_given(dataset)
    found = list(_of_the_run(meta))
    attention = any(measure.of == "attention" and measure.name in given for measure in MEASURES)
    if not attention:
        found.append(("attention: sinks, entropies, heads", "left out; attention='statistics' records them"))
    for measure in MEASURES:
        if measure.name in given:
            if bool(given[measure.name].isnull().all()):
                found.append((measure.long_name, f"not a number anywhere, in the tier {meta.get('attention_tier')!r}"))
        elif measure.extra and (attention or measure.of != "attention"):
            found.append((measure.long_name, f"costs more; measures='all' or [..., {measure.name!r}] takes it"))
        elif attention and measure.of == "attention" or measure.of == "state":
            found.append((measure.long_name, f"not asked for; measures=[..., {measure.name!r}] takes it"))
    if "control" not in dataset.dims:
        found.append(("controls: shuffled text, random tokens, random weights", "not asked for; controls= names them"))
    return found


def _of_the_run(meta: dict[str, Any]) -> list[tuple[str, str]]:
    notes = []
    if stopped := meta.get("stopped"):
        notes.append(("the rest of the run", f"stopped: {stopped}"))
    if blocks := meta.get("blocks_without_attention"):
        notes.append((f"attention of blocks {', '.join(map(str, blocks))}", "they have none that could be recorded"))
    if left_out := meta.get("tokens_left_out"):
        notes.append((f"{left_out} tokens", "beyond the last whole sequence, or the context of the model"))
    if unused := meta.get("tensors_not_used"):
        notes.append((f"{len(unused)} tensors of the checkpoint", "no part of the model that was analysed"))
    return notes
