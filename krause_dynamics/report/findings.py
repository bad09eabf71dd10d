"""The numbers of an analysis in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krause_dynamics._arguments import Holds, Real, reads
from krause_dynamics.report.places import EPS, as_given, at_places, token_count, told

if TYPE_CHECKING:
    import xarray


@reads(dataset=Holds("kd.analyze", ("length",)), eps=Real())
def findings(dataset: xarray.Dataset, *, eps: float = EPS) -> list[str]:
    """The analysis in a few sentences, each of a measure in its own words; of one with controls what was as given.

    Args:
        dataset: From `kd.analyze`.
        eps: Threshold of a sink: the share of attention that the first token receives.
    """
    dataset = as_given(dataset)
    tokens = token_count(dataset)
    sentences = [
        words.finding(at_places(dataset[name], eps=eps), tokens)
        for name, words in told(dataset)
        if words.finding is not None
    ]
    return [line for line in sentences if line is not None]
