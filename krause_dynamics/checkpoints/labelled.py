"""Arrays of measures as labelled Datasets, with the dimensions and words of their measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._files import attributes
from krause_dynamics.checkpoints import measures as table
from krause_dynamics.checkpoints.attention_call import QUARTERS
from krause_dynamics.checkpoints.attention_statistics import DISTANCES
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.measures_of_clusters import JOIN

if TYPE_CHECKING:
    import xarray


def analysis(
    measures: Sequence[Measure],
    arrays: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    eps: np.ndarray,
    radii: np.ndarray,
    meta: dict[str, Any],
) -> xarray.Dataset:
    """What was measured of all sequences, and the measures of the corpus.

    Args:
        measures: Those that were asked for.
        arrays: By the names of measures, (sequences, ...).
        lengths: Tokens of each sequence.
        eps: Thresholds of sink rates.
        radii: Chords at which clusters were counted.
        meta: Facts, kept as attributes, all of them as JSON in ``attrs["meta"]``.
    """
    whole = dict(arrays)
    for measure in measures:
        if measure.of == "corpus":
            found = measure.formula(table.Corpus(whole, lengths, eps))
            whole |= {} if found is None else {measure.name: np.asarray(found)}
    return dataset(measures, whole, {"radius": radii, "eps": eps}, meta)


def dataset(
    measures: Sequence[Measure], arrays: Mapping[str, np.ndarray], labels: Mapping[str, Any], meta: dict[str, Any]
) -> xarray.Dataset:
    """The arrays of these measures; ``labels`` of further dimensions, which otherwise are counted from 0."""
    import xarray

    measured = [measure for measure in measures if measure.name in arrays]
    sizes = {dim: n for m in measured for dim, n in zip(m.dims, arrays[m.name].shape, strict=True)}
    known: dict[str, Any] = {"block": np.arange(1, sizes.get("block", 0) + 1), "tokens": list(table.TOKENS)}
    known |= {"distance": list(DISTANCES), "quarter": np.arange(1, QUARTERS + 1), "join": list(JOIN), **labels}
    coords = {dim: known.get(dim, np.arange(n)) for dim, n in sizes.items()}
    variables = {m.name: (m.dims, arrays[m.name], {"long_name": m.long_name}) for m in measured}
    return xarray.Dataset(variables, coords=coords, attrs=attributes(meta))
