"""Adapters: the usual file formats of data sets, each one function from a folder to `Found`."""

from __future__ import annotations

from collections.abc import Callable

from krause_dynamics.training.formats.folders import folders
from krause_dynamics.training.formats.pictures import arrays, cifar, idx
from krause_dynamics.training.formats.texts import lines, text
from krause_dynamics.training.formats.values import PARTS, Found, Pictures

PICTURES: dict[str, Callable[..., Found]] = {"idx": idx, "cifar": cifar, "pickle": arrays, "folders": folders}
TEXTS: dict[str, Callable[..., Found]] = {"text": text, "jsonl": lines}
FORMATS = PICTURES | TEXTS

__all__ = ["FORMATS", "PARTS", "PICTURES", "TEXTS", "Found", "Pictures"]
