"""The numbers of an analysis in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._arguments import Holds, Real, reads

if TYPE_CHECKING:
    import xarray

EPS = 0.3  # share of attention from which a key is a sink, as in the published rates Sink_1^0.3


@reads(dataset=Holds("kd.analyze", ("norm_ratio", "length")), eps=Real())
def findings(dataset: xarray.Dataset, *, eps: float = EPS) -> list[str]:
    """The analysis in a few sentences; of one with controls what was found as given."""
    dataset = as_given(dataset)
    ratio = dataset["norm_ratio"].mean("sequence")
    peak = int(ratio["layer"][int(np.argmax(ratio.values))])
    cosine = dataset["mean_cosine"].mean("sequence").sel(tokens="without_first")
    top = int(cosine["layer"][int(np.argmax(cosine.values))])
    lines = [
        f"Tokens other than the first are most alike after layer {top}: mean cosine {float(cosine.max()):.2f}; "
        f"it is {float(cosine[0]):.2f} at the embedding and {float(cosine[-1]):.2f} after the last block.",
        f"The first token is largest after layer {peak}: {float(ratio.max()):.0f} times the median norm.",
    ]
    if "sink_rate" not in dataset:
        return lines
    eps = float(dataset["eps"].sel(eps=eps, method="nearest"))
    rate = float(dataset["sink_rate"].sel(eps=eps).mean())
    score = dataset["first_token_score"].mean(["sequence", "head"])
    strongest = dataset["strongest_key"].values
    known = strongest[strongest >= 0]
    lines.append(
        f"Sink_1^{eps:g} = {rate:.1f} %: the first token is a sink in that share of (sequence, block, head), at "
        f"{token_count(dataset)} tokens. Mean score of the Krause authors {float(score.mean()):.3f}; "
        f"{int((score > 0.05).sum())} of {int(score.notnull().sum())} blocks lie above their threshold 0.05."
    )
    if known.size:
        share = 100 * float((known == 0).mean())
        lines.append(f"In {share:.0f} % of (sequence, block, head) no token receives more attention than the first.")
    learned = dataset.get("learned_sink")
    if learned is not None and float(learned.max()) > 0:
        lines.append(f"Learned sinks, which are no tokens, take {100 * float(learned.mean()):.0f} % of all attention.")
    return lines


def as_given(dataset: xarray.Dataset) -> xarray.Dataset:
    """The analysis itself, where controls lie beside it."""
    return dataset.isel(control=0, drop=True) if "control" in dataset.dims else dataset


@reads(dataset=Holds("kd.analyze", ("length",)))
def token_count(dataset: xarray.Dataset) -> str:
    """'64', or '12 to 64' when the sequences differ."""
    shortest, longest = int(dataset["length"].min()), int(dataset["length"].max())
    return str(longest) if shortest == longest else f"{shortest} to {longest}"
