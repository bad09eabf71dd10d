"""The numbers of an analysis that matter most, also under its controls, and what it does not hold and why."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from krause_dynamics._words import Words
from krause_dynamics.report.places import as_given, at_places, averaged, filled, numbers, told

if TYPE_CHECKING:
    import xarray


def headlines(dataset: xarray.Dataset) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the cases (one without controls), and rows of words with a number for each case."""
    if "control" in dataset.dims:
        cases = {str(name): dataset.isel(control=i) for i, name in enumerate(dataset["control"].values)}
    else:
        cases = {"as given": dataset}
    rows = []
    for name, words in told(dataset):
        if words.headline:
            written = [_written(_number(case[name], words), words) for case in cases.values()]
            rows.append((filled(words.headline, dataset), written))
    return list(cases), rows


def _written(number: float, words: Words) -> str:
    return "-" if math.isnan(number) else words.headed.format(number)


def _number(values: xarray.DataArray, words: Words) -> float:
    """The one number of a measure: after the last block, the largest over layers, or the mean of all."""
    curve = averaged(numbers(at_places(values)))
    if words.at == "mean":
        return float(curve.mean())
    return float(curve.max() if words.at == "largest" else curve[-1])


def not_measured(dataset: xarray.Dataset) -> list[tuple[str, str]]:
    """What this analysis does not hold, and why: what was left out, what stopped, what could not be seen."""
    meta, given = json.loads(dataset.attrs["meta"]), as_given(dataset)
    found = list(_of_the_run(meta))
    try:
        from krause_dynamics.checkpoints.measures import MEASURES
    except ModuleNotFoundError:  # a stored analysis, read where there is no torch
        return [*found, ("further measures", "cannot be listed here without torch")]
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
