"""Texts: plain files, folders of them, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krause_dynamics.training.formats.files import NAMES, Reader, files_below, misnamed
from krause_dynamics.training.formats.values import Found

TEXT = "train.txt, valid.txt and test.txt, or any .txt files (one document each), or be one .txt file"
LINES = "train.jsonl, valid.jsonl and test.jsonl, or any .jsonl files, or be one .jsonl file"


def text(path: Path, sha256: Mapping[str, str], **_: Any) -> Found:
    """Plain UTF-8 text."""
    return _found(path, sha256, ".txt", TEXT, lambda name, content: [content])


def lines(path: Path, sha256: Mapping[str, str], field: str = "text", **_: Any) -> Found:
    """JSON lines: one object a line, whose ``field`` is a document."""

    def documents(name: Path, content: str) -> list[str]:
        found = []
        for number, line in enumerate(content.split("\n"), 1):  # other ends of lines may stand in a text
            if not line.strip():
                continue
            try:
                document = json.loads(line)[field]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"line {number} of {name} must be a JSON object with {field!r} (data.field names it): {error!r}"
                ) from error
            if not isinstance(document, str):
                raise ValueError(f"{field!r} in line {number} of {name} must be a text, got {type(document).__name__}")
            if any("\ud800" <= letter <= "\udfff" for letter in set(document)):
                raise ValueError(f"{field!r} in line {number} of {name} must be text, got half a surrogate pair")
            found.append(document)
        return found

    return _found(path, sha256, ".jsonl", LINES, documents)


def _found(path: Path, sha256: Mapping[str, str], ending: str, expected: str, documents: Any) -> Found:
    """Documents of one file, of the files of the three parts, or of all files of a folder."""
    if path.is_file():
        reader, files = Reader(path.parent, expected, sha256), [path]
    else:
        reader = Reader(path, expected, sha256)
        files = files_below(path, {ending})
    if not files:
        reader.need(f"*{ending}")

    def read(paths: list[Path]) -> list[str]:
        return [document for p in paths for document in documents(p, _decoded(p, reader.content(p)))]

    parts = {part: [p for p in files if p.parent == path and p.stem in names] for part, names in NAMES.items()}
    if not parts["train"] and (named := [p.name for some in parts.values() for p in some]):
        raise ValueError(misnamed(path, named, [p.name for p in files if p.name not in named], ending))
    if not parts["train"]:
        return Found(_some(read(files), path), None, checksums=reader.checksums)
    train, validation, test = (read(parts[part]) for part in ("train", "validation", "test"))
    return Found(_some(train, path), test or None, validation or None, checksums=reader.checksums)


def _some(documents: list[str], path: Path) -> list[str]:
    if not any(documents):
        raise ValueError(f"{path} must hold text, got none")
    return documents


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # without the mark that some editors begin a file with
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text ({error})") from error
