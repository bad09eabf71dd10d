"""Keys that a configuration sets and that nothing would read: refused, as who sets one expects something of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from krause_dynamics.training.formats import PICTURES
from krause_dynamics.training.kinds import KINDS

AUGMENTATION = ("label_smoothing", "mixup", "cutmix", "crop", "flip")


def check_used(configuration: Any) -> None:
    """Compare the keys that are set with those that model and data of these kinds read.

    Args:
        configuration: A `TrainingConfiguration`.

    Raises:
        ValueError: A key that is not at its default and would change nothing.
    """
    for table, key, where in unread(configuration):
        section = getattr(configuration, table)
        default = next(entry.default for entry in fields(section) if entry.name == key)
        if (given := getattr(section, key)) != default:
            raise ValueError(f"{table}.{key} = {given!r} would change nothing: {where}; take it out")


def unread(configuration: Any) -> Iterator[tuple[str, str, str]]:
    """Table, key, and for what alone it is read."""
    kind, data = configuration.model["kind"], configuration.data
    if KINDS[kind].task != "classes":
        for key in AUGMENTATION:
            yield "training", key, f"it is for classes of pictures, model.kind is {kind!r}"
    if not KINDS[kind].model:
        yield "training", "drop_path", f"it is for models that are built here, model.kind is {kind!r}"
    if data.format != "folders":
        for key in ("size", "channels"):
            yield "data", key, f"it is for pictures from folders, data.format is {data.format!r}"
    if data.format != "jsonl":
        yield "data", "field", f"it is for JSON lines, data.format is {data.format!r}"
    if data.format in PICTURES:
        for key in ("tokenizer", "vocabulary", "length"):
            yield "data", key, f"it is for text, data.format is {data.format!r}"
    elif data.tokenizer != "bpe":
        yield "data", "vocabulary", f"it is that of data.tokenizer = 'bpe', which is {data.tokenizer!r}"
    if data.format in PICTURES and data.format != "folders":
        yield "data", "test", f"data of the format {data.format!r} have a test part of their own"
