"""The numbers of an analysis that matter most, also under its controls, and what it does not hold and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from krause_dynamics.report.places import as_given, at_places, averaged, filled, measured, numbers

if TYPE_CHECKING:
    import xarray

    from krause_dynamics.checkpoints.measure import Measure


def headlines(dataset: xarray.Dataset) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the cases (one without controls), and rows of words with a number for each case."""
    if "control" in dataset.dims:
        cases = {str(name): dataset.isel(control=i) for i, name in enumerate(dataset["control"].values)}
    else:
        cases = {"as given": dataset}
    rows = []
    for measure in measured(dataset):
        if measure.words.headline:
            told = [measure.words.headed.format(_number(case[measure.name], measure)) for case in cases.values()]
            rows.append((filled(measure.words.headline, dataset), told))
    return list(cases), rows


def _number(values: xarray.DataArray, measure: Measure) -> float:
    """The one number of a measure: after the last block, the largest over layers, or the mean of all."""
    curve = averaged(numbers(at_places(values)))
    if measure.words.at == "mean":
        return float(curve.mean())
    return float(curve.max() if measure.words.at == "largest" else curve[-1])


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
            found.append(
                (measure.long_name, f"left out as it costs more; measures=['default', {measure.name!r}] takes it")
            )
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
