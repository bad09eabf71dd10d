"""What several sequences say of one model: means over them, and between which numbers those may lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import Real, Whole, Word, reads
from krause_dynamics._files import attributes
from krause_dynamics.analysis import intervals
from krause_dynamics.checkpoints.measure import NAMED
from krause_dynamics.checkpoints.relative_depth import sink_share

if TYPE_CHECKING:
    import xarray

ESTIMATES = ("mean", "low", "high")


@reads(level=Real(0, 1, ends="()"), method=Word(("auto", "t", "bootstrap")), draws=Whole(1))
def interval(
    dataset: xarray.Dataset,
    *,
    level: float = 0.95,
    method: str = "auto",
    draws: int = 2000,
    rng: int | np.random.Generator = 0,
) -> xarray.Dataset:
    """Means over the sequences of an analysis with their intervals, per layer, block and head.

    What is resampled are sequences, since tokens, layers and heads of one sequence are not independent. An interval is
    of one place: of a hundred heads five leave out the true mean by chance.

    Args:
        dataset: Of `analyze`, with at least two sequences.
        level: Of the intervals.
        method: ``"t"``: mean +- t s / sqrt(n); ``"bootstrap"``: percentiles of resampled means, at levels widened to
            those of t (Hesterberg 2015), which follows skewed data and stays within what was seen; ``"auto"``
            (default): t below 8 sequences, where resampling covers too little (of three normal numbers 75 % instead of
            95 %).
        draws: Resamples of the bootstrap; of 2000 the ends are settled to a few per cent of the width.
        rng: Seed or generator of the resampling.

    Returns:
        Dataset with a first dimension ``estimate`` (mean, low, high) instead of ``sequence``: every variable over
        sequences but places of tokens (``strongest_key``), of which a mean says nothing. ``sink_rate`` is among them,
        in per cent. Sequences that are NaN (-1 of counts) at a place are left out there.

    Raises:
        ValueError: Fewer than two sequences.
    """
    import xarray

    number = int(dataset.sizes.get("sequence", 0))
    if number < 2:
        raise ValueError(
            f"dataset must hold at least 2 sequences for an interval, got {number}; pass sequence_length= to analyze, "
            "which cuts a text into several"
        )
    generator, found = np.random.default_rng(rng), {}
    for name, values in _over_sequences(dataset).items():
        ordered = values.transpose("sequence", ...)
        numbers = ordered.values.astype(float)
        if values.dtype.kind in "iu":
            numbers[ordered.values == -1] = np.nan
        bounds = intervals.of_mean(numbers, method=method, level=level, draws=draws, rng=generator)
        middle = intervals.mean(numbers)
        found[name] = (("estimate", *ordered.dims[1:]), np.stack([middle, *bounds]), values.attrs)
    coords = {str(dim): dataset[dim] for _, (dims, *_) in found.items() for dim in dims if dim in dataset.coords}
    told = json.loads(dataset.attrs.get("meta", "{}")) | {"level": level, "draws": draws, "method": method}
    return xarray.Dataset(found, coords={"estimate": list(ESTIMATES), **coords}, attrs=attributes(told))


def _over_sequences(dataset: xarray.Dataset) -> dict[str, Any]:
    """Variables of which a mean over sequences says something."""
    found = {
        str(name): values
        for name, values in dataset.data_vars.items()
        if "sequence" in values.dims
        and NAMED not in values.dims
        and not ("block" in values.dims and values.dtype.kind in "iu")
    }
    if "importance_first" in dataset and "eps" in dataset.coords:
        found["sink_rate"] = sink_share(dataset)
    return found
