"""Data -> the parts of a task: train, validation and test, split by a seed of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from krause_dynamics._value import check_names
from krause_dynamics.training.corpora import corpus
from krause_dynamics.training.formats import FORMATS, PICTURES, Found, Pictures
from krause_dynamics.training.formats.files import listed
from krause_dynamics.training.kinds import KINDS
from krause_dynamics.training.tasks import Classes, Levels, Task, Tokens
from krause_dynamics.training.used import check_used


def found_in(data: Any) -> Found:
    """Read the files of ``[data]``.

    Raises:
        ValueError, FileNotFoundError: A folder that is missing, damaged or of another format, or a checksum of a file
            that is not read.
    """
    found = FORMATS[data.format](
        Path(data.path), data.sha256 or {}, size=data.size, channels=data.channels, field=data.field
    )  # fmt: skip
    check_names("file of data.sha256", data.sha256 or {}, list(found.checksums))
    return found


def task_of(configuration: Any, found: Found, device: torch.device) -> Task:
    """The task of a configuration, with its data on the device.

    Raises:
        ValueError: A model that does not learn from data of this format, a key that nothing reads, or parts without
            examples.
    """
    data, kind = configuration.data, KINDS[configuration.model["kind"]]
    if (data.format in PICTURES) != (kind.task != "tokens"):
        wanted = "text" if kind.task == "tokens" else "pictures"
        raise ValueError(
            f"model.kind = {configuration.model['kind']!r} learns from {wanted}, data.format is {data.format!r}"
        )
    check_used(configuration)
    if kind.task == "tokens":
        return Tokens(corpus(texts(found, data), data), data.length, device)
    parts = pictures(found, data)
    if kind.task == "levels":
        return Levels(parts, device)
    if len(found.classes) < 2:
        raise ValueError(f"data.path must hold pictures of two classes at least to tell apart, got {found.classes}")
    return Classes(parts, len(found.classes), configuration.training, device)


def pictures(found: Found, data: Any) -> dict[str, Pictures]:
    """Parts of pictures; a validation part of the files joins the training part before the split."""
    whole, test = found.train, found.test
    assert isinstance(whole, Pictures)
    if isinstance(found.validation, Pictures):
        more = found.validation
        whole = Pictures(np.concatenate([whole.pixels, more.pixels]), np.concatenate([whole.labels, more.labels]))
    order = np.random.default_rng(data.split_seed).permutation(len(whole))
    held = amount("data.validation", data.validation, len(whole))
    apart = 0 if test is not None else amount("data.test", data.test, len(whole))
    kept = order[held + apart :][: data.limit]
    if not len(kept):
        raise ValueError(
            f"data.validation must leave examples to learn from: {held + apart} of {len(whole)} are held out"
        )
    if test is None:
        test = whole.part(order[held : held + apart])
    assert isinstance(test, Pictures)
    if data.limit is None:
        _check_classes(found.classes, whole.labels[kept], data.split_seed)
    return {"train": whole.part(kept), "validation": whole.part(order[:held]), "test": test}


def _check_classes(classes: tuple[str, ...], labels: np.ndarray, seed: int) -> None:
    """Refuse a split that leaves a class nothing to learn from.

    Raises:
        ValueError: All pictures of a class are held out.
    """
    if lost := [name for i, name in enumerate(classes) if not (labels == i).any()]:
        raise ValueError(
            f"every class must keep pictures to learn from, the split holds out all of {listed(lost)}: add pictures "
            f"there, or draw another split (data.split_seed, now {seed}; data.validation, data.test)"
        )


def texts(found: Found, data: Any) -> dict[str, list[str]]:
    """Parts of texts: those of the files, else documents drawn by the seed, or the end of a single document."""
    documents: Any = found.train
    parts: dict[str, Any] = {"validation": found.validation, "test": found.test}
    for part, wanted in (("validation", data.validation), ("test", data.test)):
        if parts[part] is None:
            documents, parts[part] = _apart(documents, wanted, f"data.{part}", data.split_seed)
    if data.limit:
        documents = [documents[0][: data.limit]] if len(documents) == 1 else documents[: data.limit]
    return {"train": documents, **parts}


def _apart(documents: list[str], wanted: float, name: str, seed: int) -> tuple[list[str], list[str]]:
    if len(documents) == 1:
        text = documents[0]
        held = amount(name, wanted, len(text))
        return [text[:-held]], [text[-held:]]
    order = np.random.default_rng(seed).permutation(len(documents))
    held = amount(name, wanted, len(documents))
    return [documents[i] for i in sorted(order[held:])], [documents[i] for i in sorted(order[:held])]


def amount(name: str, given: float, whole: int) -> int:
    """A number, or a share of the whole, which is one at least: a tenth of three documents is one of them.

    Raises:
        ValueError: None or all of them.
    """
    count = max(round(given * whole), 1 if given > 0 else 0) if given < 1 else round(given)
    if not 0 < count < whole:
        raise ValueError(f"{name} must be a share below 1 or a number of examples below {whole}, got {given:g}")
    return count
