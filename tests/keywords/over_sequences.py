"""Rows of keywords that functions over the sequences of a model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.keywords.letters import Letters
from tests.keywords.row import row


def cutting(path: str, told: Callable[..., Any], same: Callable[..., None], ids: Sequence[list[int]]) -> None:
    """Register the rows of ``tokenizer``, ``sequence_length`` and ``max_sequences``.

    Args:
        path: Of the function.
        told: Its answer for ``inputs=`` (default: ``ids``) and keywords.
        same: Holds two answers against each other.
        ids: Two sequences, the first of 16 tokens.
    """

    @row(path, "tokenizer", None, Letters(), "text becomes its ids; without one text is refused")
    def tokenizer(first, second):
        same(told(inputs="abcabcab", tokenizer=second), told(inputs=[[1, 10, 11, 12, 10, 11, 12, 10, 11]]))
        with pytest.raises(ValueError, match="tokenizer"):
            told(inputs="abcabcab", tokenizer=first)

    @row(path, "sequence_length", None, 8, "pieces of that many tokens are sequences")
    def sequence_length(first, second):
        same(told(inputs=ids[:1], sequence_length=second), told(inputs=[ids[0][:8], ids[0][8:]]))
        assert told(inputs=ids[:1], sequence_length=first).sizes["sequence"] == 1

    @row(path, "max_sequences", None, 1, "the first ones alone")
    def max_sequences(first, second):
        same(told(max_sequences=second), told(inputs=ids[:second]))
        assert told(max_sequences=first).sizes["sequence"] == 2


def batches(path: str, told: Callable[..., Any], same: Callable[..., None], ids: Sequence[list[int]]) -> None:
    """Register the rows of ``batch_size`` and ``progress``; arguments as of `cutting`, sequences of unlike lengths."""

    @row(path, "batch_size", 8, 1, "one by one or together: the same numbers")
    def batch_size(first, second):
        sequences = [ids[0], ids[0][::-1], ids[1]]
        same(*(told(inputs=sequences, batch_size=size) for size in (first, second)))

    @row(path, "progress", False, None, "a function is told of the sequences that are done")
    def progress(first, second):
        heard = []
        told(batch_size=8, progress=lambda *numbers: heard.append(numbers))
        assert heard == [(1, 2), (2, 2)]
        for nobody in (first, second):
            told(progress=nobody)
        assert len(heard) == 2


def options(path: str, told: Callable[..., Any], same: Callable[..., None], ids: Sequence[list[int]]) -> None:
    """Register the row of ``options``, further keywords of ``kd.analyze``; arguments as of `cutting`."""

    @row(path, "options", {}, {"pad_token": 0}, "rows lose their padding; what kd.analyze has not is answered")
    def options(first, second):
        padded = [[*ids[1], *[0] * (len(ids[0]) - len(ids[1]))]]
        same(told(inputs=padded, **second), told(inputs=ids[1:], **first))
        with pytest.raises(TypeError, match=r"no argument 'pad_tokens'; did you mean 'pad_token'\?"):
            told(inputs=padded, pad_tokens=0)
