"""Rows of token ids from lists, arrays or a mapping with an attention mask, without their padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def rows_of(inputs: Any, pad_token: int | None) -> list[list[int]]:
    """Rows of real token ids from lists, arrays or a mapping with an attention mask."""
    mask = None
    if _kind(inputs) == "b":
        raise TypeError("inputs: input_ids must be integers, received True and False; a mask is passed beside them")
    if isinstance(inputs, Mapping) or hasattr(inputs, "input_ids"):
        if "input_ids" not in inputs:
            raise ValueError(f"inputs: a mapping needs the key 'input_ids', received the keys {sorted(inputs)}")
        kinds = inputs.get("token_type_ids")
        if kinds is not None and np.any(np.asarray(kinds)):
            raise ValueError(
                "inputs: token_type_ids other than 0 (pairs of sentences) are not analysed; pass one sentence a row"
            )
        mask = inputs.get("attention_mask")
        inputs = inputs["input_ids"]
    rows = _integers(inputs, "input_ids")
    if mask is not None:
        rows = [_real(row, keep, i) for i, (row, keep) in enumerate(_paired(rows, _integers(mask, "attention_mask")))]
    if pad_token is not None:
        rows = [_strip(row, pad_token) for row in rows]
    return rows


def _kind(values: Any) -> str:
    """Kind of the dtype of an array or tensor, of anything else the empty word."""
    return "b" if str(getattr(values, "dtype", "")).rpartition(".")[2] == "bool" else ""


def _paired(rows: list[list[int]], masks: list[list[int]]) -> list[tuple[list[int], list[int]]]:
    if [len(row) for row in rows] != [len(keep) for keep in masks]:
        raise ValueError("inputs: attention_mask must have the shape of input_ids")
    return list(zip(rows, masks, strict=True))


def _integers(values: Any, name: str) -> list[list[int]]:
    """A list of lists of int from lists, numpy arrays or tensors; one flat list is one sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iub" or values.ndim not in (1, 2):
            raise TypeError(
                f"inputs: {name} must be integers of shape (T,) or (B, T), received {values.dtype} {values.shape}"
            )
        values = values.astype(int).tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(
            "inputs must be a text, a list of texts, a pathlib.Path, or token ids (list, list of lists, integer array, "
            f"mapping with input_ids); received {type(values).__name__}"
        )
    if len(values) and _are_integers(values) and bool not in set(map(type, values)):
        values = [values]
    rows = []
    for i, row in enumerate(values):
        row = row.tolist() if hasattr(row, "tolist") else row
        if not isinstance(row, Sequence) or not _are_integers(row):
            raise TypeError(f"inputs: sequence {i} of {name} must be a list of whole numbers, received {str(row)[:60]}")
        rows.append(list(row))
    return rows


def _are_integers(row: Sequence[Any]) -> bool:
    """Whether all are int; asked of the types that occur, of which there are fewer than tokens."""
    return not [kind for kind in set(map(type, row)) if not issubclass(kind, int)]


def _real(row: list[int], keep: list[int], index: int) -> list[int]:
    """The tokens which the mask keeps; they must be consecutive, padding being at the ends only."""
    inside = np.flatnonzero(keep)
    if len(inside) and inside[-1] - inside[0] + 1 != len(inside):
        raise ValueError(f"inputs: attention_mask of sequence {index} has holes; padding may stand at either end only")
    return [row[i] for i in inside]


def _strip(row: list[int], pad_token: int) -> list[int]:
    if len(row) > 1 and row[0] == row[-1] == pad_token:
        # Where padding is also the first token (GPT-2: one token begins, ends and pads), the row cannot tell which.
        raise ValueError(
            f"inputs: a row begins and ends with pad_token={pad_token}, so that its first token may be padding or not; "
            "pass a mapping with input_ids and attention_mask"
        )
    real = [i for i, token in enumerate(row) if token != pad_token]
    return row[real[0] : real[-1] + 1] if real else []
