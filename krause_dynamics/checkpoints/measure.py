"""One thing that is measured of a trained model; what a report says of it beyond ``long_name`` is in `_words`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

NAMED = "join"  # dimension of what names groups of tokens: a mean of that, or a place between layers, says nothing


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
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    of: Literal["state", "attention", "corpus"]
    formula: Callable[[Any], Any]
    extra: bool = False
    centred: bool = False
