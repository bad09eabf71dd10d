"""How reports tell measures of trained models that have more to say than their ``long_name``; without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Words:
    """What a report says of a measure. Where it tells tokens apart, a report is of those without the first.

    ``legend`` and ``headline`` may hold ``{angle}`` (degrees within which clusters are joined), ``{eps}`` and
    ``{percent}`` (the threshold of sinks).

    Attributes:
        column: Its heading in the table over layers; empty: it has no column.
        legend: What the column means.
        written: Format of its numbers there.
        scale: What numbers there are multiplied by, such as 100 for per cent.
        both: Whether the table has a column of all tokens too.
        headline: Words of its one number among those that matter most; empty: it is none of them.
        at: Which number that is: after the last block, the largest over layers, or the mean of all.
        headed: Format of that number.
        finding: A sentence from its values, at the usual radius and threshold, and the number of tokens; None where
            there is nothing to say.
    """

    column: str = ""
    legend: str = ""
    written: str = "{:.3g}"
    scale: float = 1.0
    both: bool = False
    headline: str = ""
    at: Literal["last", "largest", "mean"] = "last"
    headed: str = "{:.2f}"
    finding: Callable[[Any, str], str | None] | None = None


MASSIVE = 2.0  # times the median norm: below it nothing stands out
ABNORMAL = 0.05  # of the Krause authors: a block whose mean score is higher


def _alike(values: xarray.DataArray, tokens: str) -> str | None:
    cosine = values.mean("sequence")
    if not cosine.notnull().any():
        return None
    top = int(cosine["layer"][int(np.nanargmax(cosine.values))])
    return (
        f"Tokens other than the first are most alike after layer {top}: mean cosine {float(cosine.max()):.2f}; "
        f"it is {float(cosine[0]):.2f} at the embedding and {float(cosine[-1]):.2f} after the last block."
    )


def _loud(values: xarray.DataArray, tokens: str) -> str:
    ratio = values.mean("sequence")
    peak = int(ratio["layer"][int(np.argmax(ratio.values))])
    if float(ratio.max()) < MASSIVE:
        return f"The first token stands out in no layer: at most {float(ratio.max()):.1f} times the median norm."
    return f"The first token is largest after layer {peak}: {float(ratio.max()):.0f} times the median norm."


def _sinks(values: xarray.DataArray, tokens: str) -> str | None:
    if not values.notnull().any():
        return None
    return (
        f"Sink_1^{float(values['eps']):g} = {float(values.mean()):.1f} %: the first token is a sink in that share of "
        f"(sequence, block, head), at {tokens} tokens."
    )


def _score(values: xarray.DataArray, tokens: str) -> str | None:
    score = values.mean(["sequence", "head"])
    if not score.notnull().any():
        return None
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
    share = 100 * float(values.mean())
    return f"Logits without a token (learned sinks, padding of windows) take {share:.0f} % of all attention."


# By the name of a measure, in the order of a report: states, then sinks and attention.
WORDS: dict[str, Words] = {
    "order_parameter": Words(
        column="R",
        legend="length of the mean direction of the tokens; 1 = all point one way, 0 = no common direction.",
        written="{:.3f}",
        both=True,
        headline="alignment R after the last block",
    ),
    "mean_cosine": Words(
        column="cosine",
        legend="mean cosine between two different tokens.",
        written="{:.3f}",
        headline="highest mean cosine",
        at="largest",
        finding=_alike,
    ),
    "effective_rank": Words(
        column="rank",
        legend="number of directions that the tokens fill.",
        written="{:.1f}",
        headline="directions filled after the last block (effective rank)",
        headed="{:.1f}",
    ),
    "clusters": Words(
        column="clusters",
        legend="groups of tokens whose directions lie within {angle} degrees of another member.",
        written="{:.1f}",
        headline="clusters after the last block, within {angle} degrees",
        headed="{:.1f}",
    ),
    "norm_ratio": Words(
        column="norm of first",
        legend="norm of the first token over the median norm (massive activation).",
        written="{:.1f}",
        headline="first token at its largest, over the median norm",
        at="largest",
        headed="{:.3g} x",
        finding=_loud,
    ),
    "sink_rate": Words(
        column="sink rate",
        legend="(sequence, head) pairs in which the first token receives more than {percent} % of the attention.",
        written="{:.0f} %",
        headline="Sink_1^{eps}: the first token is a sink",
        at="mean",
        headed="{:.1f} %",
        finding=_sinks,
    ),
    "importance_first": Words(
        column="attn to first",
        legend="share of attention that the first token receives, mean over queries and heads.",
        written="{:.0f} %",
        scale=100.0,
    ),
    "entropy": Words(
        column="entropy",
        legend="of attention rows; 1 = spread evenly over the visible tokens, 0 = all on one.",
        written="{:.2f}",
    ),
    "first_token_score": Words(finding=_score),
    "strongest_key": Words(finding=_strongest),
    "learned_sink": Words(finding=_learned),
}
