"""The numbers of an analysis in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krause_dynamics._arguments import Holds, Real, reads
from krause_dynamics.report.places import EPS, as_given, at_places, reached, token_count, told

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
    sentences.append(_even(dataset, eps))
    return [reached(line, dataset) for line in sentences if line is not None]


def _even(dataset: xarray.Dataset, eps: float) -> str | None:
    """How many sinks are none: short sequences and narrow windows, in which even attention reaches the threshold."""
    if "even_importance_first" not in dataset or "sink_rate" not in dataset:
        return None
    even, bound = dataset["even_importance_first"], float(dataset["eps"].sel(eps=eps, method="nearest"))
    share = 100 * float((even > bound).where(even.notnull()).mean())
    if not share > 0:
        return None
    return (
        f"In {share:.1f} % of (sequence, block, head) even attention, too, would give the first token more than "
        f"{bound:g}, as few tokens are within reach: only what exceeds it is a sink."
    )
