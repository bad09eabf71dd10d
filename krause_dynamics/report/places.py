"""Where a report reads a measure: without the first token, at the usual angle and threshold, as given."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import Holds, reads
from krause_dynamics._thresholds import RADIUS, SINK
from krause_dynamics._words import WORDS, Words

if TYPE_CHECKING:
    import xarray

EPS = SINK
TOKENS = "without_first"  # the first token most often is the attention sink
LAST = re.compile(r"\bthe last block\b")
MEMBERS = ("sequence", "head", "other_head")  # averaged over


def as_given(dataset: xarray.Dataset) -> xarray.Dataset:
    """The analysis itself, where controls lie beside it."""
    return dataset.isel(control=0, drop=True) if "control" in dataset.dims else dataset


@reads(dataset=Holds("kd.analyze", ("length",)))
def token_count(dataset: xarray.Dataset) -> str:
    """'64', or '12 to 64' when the sequences differ.

    Args:
        dataset: From `kd.analyze`.
    """
    shortest, longest = int(dataset["length"].min()), int(dataset["length"].max())
    return str(longest) if shortest == longest else f"{shortest} to {longest}"


def at_places(
    values: xarray.DataArray, *, tokens: str = TOKENS, radius: float = RADIUS, eps: float = EPS
) -> xarray.DataArray:
    """A measure of one kind of tokens, at the nearest radius and threshold that it has."""
    places: dict[str, Any] = {"tokens": tokens, "radius": radius, "eps": eps}
    for dim, place in places.items():
        if dim in values.dims:
            values = values.sel({dim: place}, method=None if dim == "tokens" else "nearest")
    return values


def numbers(values: xarray.DataArray) -> xarray.DataArray:
    """Counts with NaN where there was nothing to count (-1 in the Dataset)."""
    return values.where(values != -1) if values.dtype.kind == "i" else values


def averaged(values: xarray.DataArray) -> xarray.DataArray:
    """The mean over sequences and heads."""
    return values.mean([dim for dim in MEMBERS if dim in values.dims])


def told(dataset: xarray.Dataset) -> list[tuple[str, Words]]:
    """Names and words of the measures that a Dataset holds and that have something to say, in the order of a report."""
    return [(name, words) for name, words in WORDS.items() if name in dataset]


def reached(words: str, dataset: xarray.Dataset) -> str:
    """Words about the last block, of an analysis that ended before it about the block where it did."""
    layers = json.loads(dataset.attrs.get("meta", "{}")).get("layers")
    if layers is None or "layer" not in dataset.dims or layers == (last := int(dataset["layer"].max())):
        return words  # a comparison is over relative depth
    return LAST.sub(f"block {last} of {layers}", words)


def filled(words: str, dataset: xarray.Dataset, *, radius: float = RADIUS, eps: float = EPS) -> str:
    """Words with the angle and the threshold at which a Dataset is read."""
    known: dict[str, Any] = {"angle": "", "eps": "", "percent": ""}
    if "radius" in dataset.coords:
        chord = float(dataset["radius"].sel(radius=radius, method="nearest"))
        known["angle"] = f"{np.degrees(2 * np.arcsin(chord / 2)):.0f}"
    if "eps" in dataset.coords:
        share = float(dataset["eps"].sel(eps=eps, method="nearest"))
        known |= {"eps": f"{share:g}", "percent": f"{100 * share:.0f}"}
    return reached(words.format(**known), dataset)
