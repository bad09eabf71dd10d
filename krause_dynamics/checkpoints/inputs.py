"""Text or token ids, in any of the usual forms, as plain lists of token ids: one list a sequence, no padding."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import reading
from krause_dynamics.checkpoints.token_ids import rows_of
from krause_dynamics.checkpoints.tokenizing import check_vocabulary, tokenized
from krause_dynamics.checkpoints.tokens import UNCOUNTED, Tokens, check_company, pieces, rest


def prepare(
    inputs: Any,
    tokenizer: Any = None,
    *,
    context: int | None = None,
    vocabulary: int | None = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    truncate: bool = False,
    pad_token: int | None = None,
) -> Tokens:
    """Bring inputs of any accepted form to `Tokens`.

    Args:
        inputs: A text or a list of texts; a ``pathlib.Path`` of a text file, or of a file with token ids: JSON
            (``.json``), or an array (``.npy``) whose rows are the sequences (pictures become rows of their values);
            token ids as a list, a list of lists or an integer array (B, T); a mapping with ``input_ids`` and
            ``attention_mask`` (1 = real token; padding at either end).
        tokenizer: Needed for text; its own special tokens are added.
        context: Longest sequence that the model takes; None = no limit.
        vocabulary: Number of ids the model knows; ids outside are refused.
        sequence_length: Cut every text or long list of ids into consecutive sequences of exactly this many tokens
            (special tokens included); what is left at the end is left out and counted. None keeps sequences whole.
        max_sequences: Keep only the first ones.
        truncate: True cuts what is longer than ``context``; otherwise that is an error.
        pad_token: Id that is padding wherever it stands at either end of a list or row of ids.

    Raises:
        ValueError: Naming the argument, what was expected, what came and the way out.
        TypeError: If ``inputs`` has none of the forms above.
    """
    for name, value in (("sequence_length", sequence_length), ("max_sequences", max_sequences)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, received {value}")
    texts, ids = _read(inputs, pad_token)
    limit = sequence_length if sequence_length is not None else None
    if limit is not None and context is not None and limit > context:
        raise ValueError(f"sequence_length={limit} is longer than the context of the model, {context} tokens")
    if texts is not None:
        tokens = tokenized(texts, tokenizer, limit, max_sequences)
        check_vocabulary(tokens, tokenizer, vocabulary)
    else:
        tokens = Tokens(tuple(piece for row in ids for piece in pieces(row, limit)), "token ids", rest(ids, limit))
    if max_sequences is not None:
        dropped = sum(map(len, tokens.sequences[max_sequences:]))
        left_out = UNCOUNTED if tokens.left_out == UNCOUNTED else tokens.left_out + dropped
        tokens = replace(tokens, sequences=tokens.sequences[:max_sequences], left_out=left_out)
    return _check(tokens, context, vocabulary, truncate, limit)


def _read(inputs: Any, pad_token: int | None) -> tuple[list[str] | None, list[list[int]]]:
    """(texts, []) or (None, rows of ids)."""
    if isinstance(inputs, os.PathLike):
        path = Path(inputs)
        if not path.is_file():
            raise ValueError(
                f"inputs: no such file {str(path)!r}; pass the text itself as a string, or an existing file"
            )
        if path.suffix == ".json":
            return None, rows_of(_json(path), pad_token)
        if path.suffix == ".npy":
            return None, rows_of(_array(path), pad_token)
        return [_text(path)], []
    if isinstance(inputs, str):
        _refuse_file_name(inputs)
        return [inputs], []
    if isinstance(inputs, Sequence) and len(inputs) and all(isinstance(item, str) for item in inputs):
        return list(inputs), []
    return None, rows_of(inputs, pad_token)


def _refuse_file_name(text: str) -> None:
    """The name of a file given as a string would be analysed as if it were the text, and nobody would notice."""
    if os.path.isfile(text):  # unlike Path.is_file, False for what can be no name, such as a long text
        raise ValueError(f"inputs: {text!r} names a file; pass pathlib.Path({text!r}) to read it, or [text] as a text")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"inputs: {path} is not UTF-8 text ({error}); convert it, or pass the text as a string"
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"inputs: {path} is not JSON ({error}); expected a list of lists of token ids") from None


def _array(path: Path) -> np.ndarray:
    with reading(path):
        array = np.load(path, allow_pickle=False)
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _check(
    tokens: Tokens, context: int | None, vocabulary: int | None, truncate: bool, sequence_length: int | None
) -> Tokens:
    if not tokens.sequences:
        more = f": fewer than sequence_length={sequence_length} tokens" if sequence_length else ""
        raise ValueError(f"inputs hold no sequence{more}; pass a longer text")
    if (empty := np.flatnonzero(tokens.lengths == 0)).size:
        raise ValueError(f"inputs: sequence {empty[0]} has no tokens; leave it out")
    if context is not None and (longest := int(tokens.lengths.max())) > context:
        if not truncate:
            raise ValueError(
                f"inputs: a sequence of {longest} tokens is longer than the context of the model, {context} tokens; "
                f"pass truncate=True to cut it there, or sequence_length= (at most {context}) to cut it into pieces"
            )
        cut = tuple(ids[:context] for ids in tokens.sequences)
        lost = tokens.left_out + int(np.maximum(tokens.lengths - context, 0).sum())
        tokens = replace(tokens, sequences=cut, left_out=lost)
    smallest, largest = min(map(min, tokens.sequences)), max(map(max, tokens.sequences))
    if largest >= 2**63:
        raise ValueError(f"inputs: token ids must be below 2^63, received {largest}")
    if smallest < 0 or (vocabulary is not None and largest >= vocabulary):
        wrong = smallest if smallest < 0 else largest
        raise ValueError(
            f"inputs: token id {wrong} is outside 0..{(vocabulary or 0) - 1 if vocabulary else ''}; "
            "if it marks padding, pass pad_token=" + str(wrong)
        )
    check_company(tokens.lengths, tokens.source)
    return tokens
