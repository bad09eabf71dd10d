"""Texts -> tokens: bytes, a vocabulary learned from the training part, or the tokenizer of a model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import reading, write_bytes
from krause_dynamics.checkpoints.bundled import SMOLLM2, cache_folder, smollm2_folder
from krause_dynamics.training.formats import PARTS

LEARNED_FROM = 1 << 23  # characters of the training part from which a vocabulary is learned: a few seconds
PIECE = 1 << 16  # characters that are made tokens at once; cut at the end of a line
END = "<|endoftext|>"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens of the parts of a text.

    Attributes:
        tokens: By part, int32; documents are joined by the token that ends a text.
        bytes_a_token: By part, how many bytes of UTF-8 a token stands for on average; exact for the whole part.
        vocabulary: How many tokens there are.
        tokenizer: Saves itself by ``save_pretrained`` beside the model, so that texts can be analysed and continued.
    """

    tokens: Mapping[str, np.ndarray]
    bytes_a_token: Mapping[str, float]
    vocabulary: int
    tokenizer: Any = None


def corpus(parts: Mapping[str, list[str]], data: Any) -> Corpus:
    """Make tokens of the documents of each part.

    Args:
        parts: Documents by part.
        data: The table ``[data]``.

    Raises:
        ValueError: A tokenizer that is none, or a part too short for one row.
    """
    if data.tokenizer == "bytes":
        tokens = {part: _joined([np.frombuffer(d.encode(), np.uint8) for d in ds], 256) for part, ds in parts.items()}
        tokenizer, vocabulary = _of_bytes(), 257
    else:
        tokens, tokenizer = _kept(parts, data)
        vocabulary = len(tokenizer)
    for part in PARTS:
        if len(tokens[part]) < data.length:
            raise ValueError(f"data.length must be at most the {len(tokens[part])} tokens of {part}, got {data.length}")
    sizes = {part: sum(len(d.encode()) for d in ds) / len(tokens[part]) for part, ds in parts.items()}
    return Corpus(tokens, sizes, vocabulary, tokenizer)


def _kept(parts: Mapping[str, list[str]], data: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Tokens and their tokenizer, from the user's cache where the same texts were read before: it takes minutes."""
    import tokenizers
    from safetensors import safe_open
    from safetensors.numpy import save

    given = None if data.tokenizer == "bpe" else _given(data.tokenizer)
    by = f"bpe {data.vocabulary}" if given is None else given.backend_tokenizer.to_str()
    told = [tokenizers.__version__, by, *(f"{part} {len(d)} {d}" for part, ds in parts.items() for d in ds)]
    digest = hashlib.sha256("\0".join(told).encode())
    path = cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.safetensors"
    if path.exists():
        with contextlib.suppress(ValueError), reading(path), safe_open(path, "np") as opened:
            known = _fast(opened.metadata()["tokenizer"]) if given is None else given
            return {part: opened.get_tensor(part) for part in parts}, known
    tokenizer = _fast(_learned(parts["train"], data.vocabulary)) if given is None else given
    end = tokenizer.eos_token_id
    tokens = {part: _joined([_encoded(tokenizer, d) for d in ds], end) for part, ds in parts.items()}
    with contextlib.suppress(OSError):  # a home that cannot be written to costs the time again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(tokens, {"tokenizer": tokenizer.backend_tokenizer.to_str()}))
    return tokens, tokenizer


def _of_bytes() -> Any:
    """The tokenizer whose ids are the bytes of UTF-8 themselves, and 256 the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # The alphabet gives printable bytes their own letters, and the others those from 256 on, in order.
    own = {code for run in (range(33, 127), range(161, 173), range(174, 256)) for code in run}
    others = iter(range(256, 512))
    letters = {chr(byte if byte in own else next(others)): byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=letters | {END: 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer.to_str())


def _fast(description: str) -> Any:
    """A tokenizer of transformers from its JSON."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(description), bos_token=END, eos_token=END)


def _joined(documents: list[np.ndarray], end: int | None) -> np.ndarray:
    """All documents, with the ending token between two."""
    between = np.asarray([] if end is None else [end], np.int32)
    pieces = [piece for document in documents for piece in (document.astype(np.int32), between)]
    return np.concatenate(pieces[:-1])


def _pieces(text: str) -> list[str]:
    """A text in pieces that end with a line, so that no word is cut."""
    pieces, begin = [], 0
    while begin < len(text):
        end = text.find("\n", begin + PIECE) + 1 or len(text)
        pieces.append(text[begin:end])
        begin = end
    return pieces


def _encoded(tokenizer: Any, text: str) -> np.ndarray:
    encodings = tokenizer.backend_tokenizer.encode_batch(_pieces(text), add_special_tokens=False)
    return np.concatenate([np.asarray(e.ids, np.int32) for e in encodings] or [np.zeros(0, np.int32)])


def _learned(documents: list[str], vocabulary: int) -> str:
    """Byte-level pairs (BPE) learned from the beginning of the documents: the same for all runs on the same text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    share = LEARNED_FROM // max(len(documents), 1) + 1
    tokenizer.train_from_iterator((piece for d in documents for piece in _pieces(d[:share])), trainer)
    return tokenizer.to_str()  # type: ignore[no-any-return]


def _given(name: str) -> Any:
    """The tokenizer of a folder, or of the model ``smollm2-135m``; never one from a hub."""
    from transformers import AutoTokenizer

    folder = smollm2_folder() if name == SMOLLM2 else Path(name)
    if not folder.is_dir():
        raise ValueError(
            f"data.tokenizer must be 'bytes', 'bpe', {SMOLLM2!r} or the folder of a tokenizer, got {name!r}"
        )
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
