"""One thing that is measured of a trained model, and how a report tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

NAMED = "join"  # dimension of what names groups of tokens: a mean of that, or a place between layers, says nothing


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


@dataclass(frozen=True)
class Measure:
    """One number, or one array of numbers, that is measured of a model.

    Attributes:
        name: Of the variable in the Dataset.
        dims: Its dimensions; those of a state begin with sequence and layer, those of attention with sequence, block.
        long_name: What it is, in words.
        of: What the formula is given: ``"state"`` a `LayerState`, ``"attention"`` the `HeadStatistics` of a block
            (both of b sequences of one length, answered by an array (b, ...)), ``"corpus"`` a `Corpus`, all sequences
            (answered by the whole array, or None where what it needs was not recorded).
        formula: The measure.
        extra: Whether it is measured only where it is asked for: it costs much, or is for few.
        centred: Whether it needs the moments of the corpus.
        words: How a report tells it, beyond ``long_name``.
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    of: Literal["state", "attention", "corpus"]
    formula: Callable[[Any], Any]
    extra: bool = False
    centred: bool = False
    words: Words = field(default=Words())
