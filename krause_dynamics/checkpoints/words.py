"""How reports tell the measures that have more to say than their ``long_name``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics.checkpoints.measure import Words

if TYPE_CHECKING:
    import xarray

ABNORMAL = 0.05  # of the Krause authors: a block whose mean score is higher


def _alike(values: xarray.DataArray, tokens: str) -> str:
    cosine = values.mean("sequence")
    top = int(cosine["layer"][int(np.argmax(cosine.values))])
    return (
        f"Tokens other than the first are most alike after layer {top}: mean cosine {float(cosine.max()):.2f}; "
        f"it is {float(cosine[0]):.2f} at the embedding and {float(cosine[-1]):.2f} after the last block."
    )


def _loud(values: xarray.DataArray, tokens: str) -> str:
    ratio = values.mean("sequence")
    peak = int(ratio["layer"][int(np.argmax(ratio.values))])
    return f"The first token is largest after layer {peak}: {float(ratio.max()):.0f} times the median norm."


def _sinks(values: xarray.DataArray, tokens: str) -> str:
    return (
        f"Sink_1^{float(values['eps']):g} = {float(values.mean()):.1f} %: the first token is a sink in that share of "
        f"(sequence, block, head), at {tokens} tokens."
    )


def _score(values: xarray.DataArray, tokens: str) -> str:
    score = values.mean(["sequence", "head"])
    return (
        f"Mean score of the Krause authors {float(score.mean()):.3f}; {int((score > ABNORMAL).sum())} of "
        f"{int(score.notnull().sum())} blocks lie above their threshold {ABNORMAL:g}."
    )


def _strongest(values: xarray.DataArray, tokens: str) -> str | None:
    known = values.values[values.values >= 0]
    if not known.size:
        return None
    share = 100 * float((known == 0).mean())
    return f"In {share:.0f} % of (sequence, block, head) no token receives more attention than the first."


def _learned(values: xarray.DataArray, tokens: str) -> str | None:
    if not float(values.max()) > 0:
        return None
    return f"Learned sinks, which are no tokens, take {100 * float(values.mean()):.0f} % of all attention."


ORDER_PARAMETER = Words(
    column="R",
    legend="length of the mean direction of the tokens; 1 = all point one way, 0 = no common direction.",
    written="{:.3f}",
    both=True,
    headline="alignment R after the last block",
)
MEAN_COSINE = Words(
    column="cosine",
    legend="mean cosine between two different tokens.",
    written="{:.3f}",
    headline="highest mean cosine",
    at="largest",
    finding=_alike,
)
EFFECTIVE_RANK = Words(
    column="rank",
    legend="number of directions that the tokens fill.",
    written="{:.1f}",
    headline="directions filled after the last block (effective rank)",
    headed="{:.1f}",
)
CLUSTERS = Words(
    column="clusters",
    legend="groups of tokens whose directions lie within {angle} degrees of another member.",
    written="{:.1f}",
    headline="clusters after the last block, within {angle} degrees",
    headed="{:.1f}",
)
NORM_RATIO = Words(
    column="norm of first",
    legend="norm of the first token over the median norm (massive activation).",
    written="{:.1f}",
    headline="first token at its largest, over the median norm",
    at="largest",
    headed="{:.3g} x",
    finding=_loud,
)
IMPORTANCE_FIRST = Words(
    column="attn to first",
    legend="share of attention that the first token receives, mean over queries and heads.",
    written="{:.0f} %",
    scale=100.0,
)
ENTROPY = Words(
    column="entropy",
    legend="of attention rows; 1 = spread evenly over the visible tokens, 0 = all on one.",
    written="{:.2f}",
)
SINK_RATE = Words(
    column="sink rate",
    legend="(sequence, head) pairs in which the first token receives more than {percent} % of the attention.",
    written="{:.0f} %",
    headline="Sink_1^{eps}: the first token is a sink",
    at="mean",
    headed="{:.1f} %",
    finding=_sinks,
)
FIRST_TOKEN_SCORE = Words(finding=_score)
STRONGEST_KEY = Words(finding=_strongest)
LEARNED_SINK = Words(finding=_learned)
