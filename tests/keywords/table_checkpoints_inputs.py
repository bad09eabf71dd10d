"""Inputs of trained models as sequences of token ids: Tokens and prepare."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

ck = kd.checkpoints
ROWS = ((5, 6, 7), (8, 9))
LONG = tuple(range(10, 20))


class Letters:
    """Tokenizer of one id a letter, a = 10, which puts 1 before and 2 after a sequence."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids = [ord(letter) - 87 for letter in text]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


@row(
    "kd.checkpoints.Tokens",
    "sequences",
    ROWS,
    (*ROWS, (1, 2, 3)),
    "their lengths, and batches of equal length in which each stands once",
)
def sequences(first, second):
    for given in (first, second):
        tokens = ck.Tokens(given, "token ids")
        assert tokens.lengths.tolist() == [len(ids) for ids in given]
        found = {
            i: tuple(ids) for members, rows in tokens.batches(2) for i, ids in zip(members, rows.tolist(), strict=True)
        }
        assert found == dict(enumerate(given))
    assert [len(members) for members, _ in ck.Tokens(second, "text").batches(1)] == [1, 1, 1]


@row("kd.checkpoints.Tokens", "source", "text", "token ids", "what prepare says of a text, and of ids")
def source(first, second):
    assert ck.prepare("ab", Letters()) == ck.Tokens(((1, 10, 11, 2),), first)
    assert ck.prepare([list(ids) for ids in ROWS]) == ck.Tokens(ROWS, second)


@row(
    "kd.checkpoints.Tokens", "left_out", 0, 2, "tokens that no sequence holds: none of 10 in fives, 2 of them in fours"
)
def left_out(first, second):
    assert ck.prepare(list(LONG), sequence_length=5) == ck.Tokens((LONG[:5], LONG[5:]), "token ids", first)
    assert ck.prepare(list(LONG), sequence_length=4) == ck.Tokens((LONG[:4], LONG[4:8]), "token ids", second)
    assert ck.Tokens(ROWS, "text").left_out == first


PADDED = {"input_ids": np.array([[5, 6, 7], [0, 8, 9]]), "attention_mask": np.array([[1, 1, 1], [0, 1, 1]])}


@row(
    "kd.checkpoints.prepare",
    "inputs",
    [list(ids) for ids in ROWS],
    PADDED,
    "lists, arrays with a mask and a file of ids are the same real tokens",
)
def inputs(first, second):
    for given in (first, second):
        assert ck.prepare(given).sequences == ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids.json"
        path.write_text(json.dumps(first))
        assert ck.prepare(path).sequences == ROWS
    with pytest.raises(TypeError, match="inputs"):
        ck.prepare(3)


@row(
    "kd.checkpoints.prepare",
    "tokenizer",
    None,
    Letters(),
    "its ids with its special tokens around; text without one is refused, ids need none",
)
def tokenizer(first, second):
    assert ck.prepare(["abc", "a"], second).sequences == ((1, 10, 11, 12, 2), (1, 10, 2))
    assert ck.prepare([[5, 6]], first).sequences == ck.prepare([[5, 6]], second).sequences
    with pytest.raises(ValueError, match="tokenizer"):
        ck.prepare("abc", first)


@row("kd.checkpoints.prepare", "context", None, 9, "10 tokens pass without a limit and with 10, and are refused with 9")
def context(first, second):
    for limit in (first, second + 1):
        assert ck.prepare(list(LONG), context=limit).sequences == (LONG,)
    with pytest.raises(ValueError, match="context of the model, 9 tokens"):
        ck.prepare(list(LONG), context=second)


@row(
    "kd.checkpoints.prepare",
    "vocabulary",
    None,
    19,
    "the id 19 passes without a limit and with 20 ids, and is refused with 19",
)
def vocabulary(first, second):
    for known in (first, second + 1):
        assert ck.prepare(list(LONG), vocabulary=known).sequences == (LONG,)
    with pytest.raises(ValueError, match="token id 19 is outside"):
        ck.prepare(list(LONG), vocabulary=second)


@row(
    "kd.checkpoints.prepare",
    "sequence_length",
    None,
    4,
    "whole, or consecutive pieces of exactly so many, special tokens counted",
)
def sequence_length(first, second):
    assert ck.prepare(list(LONG), sequence_length=first).sequences == (LONG,)
    assert ck.prepare(list(LONG), sequence_length=second).sequences == (LONG[:4], LONG[4:8])
    assert ck.prepare("abcde", Letters(), sequence_length=second).sequences == ((1, 10, 11, 2), (1, 12, 13, 2))


@row(
    "kd.checkpoints.prepare",
    "max_sequences",
    None,
    1,
    "all, or the first ones; the tokens of the others are counted as left out",
)
def max_sequences(first, second):
    whole, few = (ck.prepare([list(ids) for ids in ROWS], max_sequences=most) for most in (first, second))
    assert (whole.sequences, whole.left_out) == (ROWS, 0)
    assert (few.sequences, few.left_out) == (ROWS[:1], 2)


@row(
    "kd.checkpoints.prepare", "truncate", False, True, "beyond the context: refused, or cut there and the rest counted"
)
def truncate(first, second):
    cut = ck.prepare(list(LONG), context=7, truncate=second)
    assert (cut.sequences, cut.left_out) == ((LONG[:7],), 3)
    for options in ({}, {"truncate": first}):
        with pytest.raises(ValueError, match="truncate=True"):
            ck.prepare(list(LONG), context=7, **options)


@row(
    "kd.checkpoints.prepare",
    "pad_token",
    None,
    0,
    "that id is cut at both ends and stays inside; by default it is a token like others",
)
def pad_token(first, second):
    given = [[0, 0, 5, 0, 7], [8, 9, 0, 0]]
    assert ck.prepare(given, pad_token=second).sequences == ((5, 0, 7), (8, 9))
    assert ck.prepare(given, pad_token=first).sequences == tuple(map(tuple, given))
