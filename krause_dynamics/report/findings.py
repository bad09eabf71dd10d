"""The numbers of an analysis in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krause_dynamics._arguments import Holds, Real, reads
from krause_dynamics.report.places import EPS, as_given, at_places, measured, token_count

if TYPE_CHECKING:
    import xarray


@reads(dataset=Holds("kd.analyze", ("length",)), eps=Real())
def findings(dataset: xarray.Dataset, *, eps: float = EPS) -> list[str]:
    """The analysis in a few sentences, each of a measure in its own words; of one with controls what was as given."""
    dataset = as_given(dataset)
    tokens = token_count(dataset)
    told = [
        measure.words.finding(at_places(dataset[measure.name], eps=eps), tokens)
        for measure in measured(dataset)
        if measure.words.finding is not None
    ]
    return [line for line in told if line is not None]
