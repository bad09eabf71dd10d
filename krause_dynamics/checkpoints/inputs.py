"""Text or token ids, in any of the usual forms, as plain lists of token ids: one list a sequence, no padding."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from krause_dynamics.checkpoints.blocks import device_of

LONG_TEXT = 1 << 20  # characters: shorter texts are read whole, in a second
UNCOUNTED = -1


@dataclass(frozen=True)
class Tokens:
    """Sequences of token ids, each of its own length.

    Attributes:
        sequences: One tuple of ids a sequence; only real tokens.
        source: ``"text"`` or ``"token ids"``.
        left_out: Tokens that did not fill a sequence, lie beyond ``max_sequences``, or were cut because that was asked;
            -1 where they were not counted, as of a long text only its first sequences are asked for.
    """

    sequences: tuple[tuple[int, ...], ...]
    source: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.sequences)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each sequence, shape (sequences,)."""
        return np.array([len(ids) for ids in self.sequences])

    def batches(self, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Batches of equal length, so that no model ever sees padding: (indices of the sequences, ids (b, T))."""
        for length in sorted(set(self.lengths.tolist())):
            members = np.flatnonzero(self.lengths == length)
            for start in range(0, len(members), size):
                chosen = members[start : start + size].tolist()
                yield chosen, np.array([self.sequences[i] for i in chosen])

    def arguments(self, batch: np.ndarray, model: Any) -> dict[str, Any]:
        """Ids (b, T) and a mask of ones, where the model's embeddings are."""
        if hasattr(model, "get_input_embeddings"):
            device = model.get_input_embeddings().weight.device
            device = model.device if device.type == "meta" else device
        else:
            device = device_of(model)
        ids = torch.as_tensor(batch, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def described(self) -> dict[str, np.ndarray]:
        """``token_ids`` (sequences, longest), -1 beyond the end of a sequence."""
        ids = np.full((len(self), int(self.lengths.max())), -1)
        for i, sequence in enumerate(self.sequences):
            ids[i, : len(sequence)] = sequence
        return {"token_ids": ids}


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
    """Bring inputs of any accepted form to :class:`Tokens`.

    Args:
        inputs: A text or a list of texts; a ``pathlib.Path`` of a text file or of a JSON file (``.json``) with token
            ids; token ids as a list, a list of lists or an integer array (B, T); a mapping with ``input_ids`` and
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
        tokens = _tokenize(texts, tokenizer, limit, max_sequences)
        _check_vocabulary(tokens, tokenizer, vocabulary)
    else:
        tokens = Tokens(tuple(piece for row in ids for piece in _pieces(row, limit)), "token ids", _rest(ids, limit))
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
            return None, _rows(_json(path), pad_token)
        return [_text(path)], []
    if isinstance(inputs, str):
        _refuse_file_name(inputs)
        return [inputs], []
    if isinstance(inputs, Sequence) and len(inputs) and all(isinstance(item, str) for item in inputs):
        return list(inputs), []
    return None, _rows(inputs, pad_token)


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


def _rows(inputs: Any, pad_token: int | None) -> list[list[int]]:
    """Rows of real token ids from lists, arrays or a mapping with an attention mask."""
    mask = None
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


def _pieces(row: Sequence[int], length: int | None) -> list[tuple[int, ...]]:
    if length is None:
        return [tuple(row)]
    return [tuple(row[start : start + length]) for start in range(0, len(row) - length + 1, length)]


def _rest(rows: list[list[int]], length: int | None) -> int:
    return 0 if length is None else sum(len(row) % length for row in rows)


def _tokenize(texts: list[str], tokenizer: Any, length: int | None, most: int | None) -> Tokens:
    if tokenizer is None:
        raise ValueError(
            "inputs: text needs a tokenizer and this model came without one; pass tokenizer=, or token ids"
        )
    before, after = _special_tokens(tokenizer)
    inner = None if length is None else length - len(before) - len(after)
    if inner is not None and inner < 1:
        raise ValueError(f"sequence_length={length} leaves no room beside {len(before) + len(after)} special tokens")
    wanted = None if inner is None or most is None else most * inner
    plain = [_ids(text, tokenizer, wanted) for text in texts]
    sequences = tuple((*before, *piece, *after) for ids, _ in plain for piece in _pieces(ids, inner))
    counted = all(whole for _, whole in plain)
    return Tokens(sequences, "text", _rest([ids for ids, _ in plain], inner) if counted else UNCOUNTED)


def _ids(text: str, tokenizer: Any, wanted: int | None) -> tuple[list[int], bool]:
    """Ids of a text, and whether of all of it: of a long one no more is read than the first ``wanted`` ids need.

    Those are settled when twice as much text begins with the same ids.
    """

    def ids_of(part: str) -> list[int]:
        # verbose=False: a text longer than the context is judged in _check, with our own message
        return list(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"])

    if wanted is None or len(text) <= LONG_TEXT:
        return ids_of(text), True
    size, before = max(LONG_TEXT // 16, 8 * wanted), ids_of("")
    while size < len(text):
        ids = ids_of(text[:size])
        if len(before) >= wanted and ids[:wanted] == before[:wanted]:
            return ids[:wanted], False
        size, before = 2 * size, ids
    return ids_of(text), True


def _check_vocabulary(tokens: Tokens, tokenizer: Any, vocabulary: int | None) -> None:
    """Refuse a tokenizer that cannot be the model's: its ids would mean something else, and nobody would notice.

    Raises:
        ValueError: It knows less than half of the model's ids, or most of the text is unknown to it.
    """
    if vocabulary is not None and hasattr(tokenizer, "__len__") and 2 * len(tokenizer) < vocabulary:
        raise ValueError(
            f"tokenizer knows {len(tokenizer)} tokens where the model has {vocabulary}: it is not the model's own (a "
            "folder without its tokenizer files, perhaps); pass tokenizer=, or token ids"
        )
    unknown: int = -1 if (known := getattr(tokenizer, "unk_token_id", None)) is None else known
    special = set(getattr(tokenizer, "all_special_ids", ())) - {unknown}
    words = [token for row in tokens.sequences for token in row if token not in special]
    share = words.count(unknown) / max(1, len(words))
    if unknown >= 0 and share > 0.5:
        raise ValueError(
            f"inputs: {share:.0%} of the text is unknown to the tokenizer ({tokenizer.unk_token}): it is not made for "
            "such text, or not the model's own; pass tokenizer=, or token ids"
        )


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a sequence, seen on a sequence of one token."""
    probe = list(tokenizer("C", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("C")["input_ids"])
    for start in range(len(full) - len(probe) + 1):
        if full[start : start + len(probe)] == probe:
            return tuple(full[:start]), tuple(full[start + len(probe) :])
    raise ValueError("tokenizer changes a text when it adds special tokens; pass token ids instead")


def _check(
    tokens: Tokens, context: int | None, vocabulary: int | None, truncate: bool, sequence_length: int | None
) -> Tokens:
    if not tokens.sequences:
        more = f": fewer than sequence_length={sequence_length} tokens" if sequence_length else ""
        raise ValueError(f"inputs hold no sequence{more}; pass a longer text")
    if tokens.source == "text" and tokens.lengths.max() < 2:
        raise ValueError(
            "inputs: the text has fewer than two tokens, and one alone has nothing to meet; pass more text"
        )
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
    return tokens
