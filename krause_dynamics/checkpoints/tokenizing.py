"""Texts as token ids, by a tokenizer that can be the model's own."""

from __future__ import annotations

from typing import Any

from krause_dynamics.checkpoints.tokens import UNCOUNTED, Tokens, pieces, rest

LONG_TEXT = 1 << 20  # characters: shorter texts are read whole, in a second


def tokenized(texts: list[str], tokenizer: Any, length: int | None, most: int | None) -> Tokens:
    """Texts as ids, cut into sequences of ``length`` tokens, special ones included: ``most`` of them at least."""
    if tokenizer is None:
        raise ValueError(
            "inputs: text needs a tokenizer and this model came without one; pass tokenizer=, save the tokenizer into "
            "the model's folder, or give token ids (on the command line --token-ids FILE)"
        )
    before, after = _special_tokens(tokenizer)
    inner = None if length is None else length - len(before) - len(after)
    if inner is not None and inner < 1:
        raise ValueError(f"sequence_length={length} leaves no room beside {len(before) + len(after)} special tokens")
    wanted = None if inner is None or most is None else most * inner
    plain = [_ids(text, tokenizer, wanted) for text in texts]
    sequences = tuple((*before, *piece, *after) for ids, _ in plain for piece in pieces(ids, inner))
    counted = all(whole for _, whole in plain)
    return Tokens(sequences, "text", rest([ids for ids, _ in plain], inner) if counted else UNCOUNTED)


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


def check_vocabulary(tokens: Tokens, tokenizer: Any, vocabulary: int | None) -> None:
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
