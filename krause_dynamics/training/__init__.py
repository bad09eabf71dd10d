"""Training of the models here: a configuration in, a folder with the best weights, the table and the result out."""

from __future__ import annotations

import importlib
from typing import Any

from krause_dynamics import _torch  # noqa: F401 (says how to install it)
from krause_dynamics._extras import explaining

# Loaded on first access: training needs transformers and accelerate.
_EXPORTS: dict[str, str] = {
    "TrainingConfiguration": "configuration",
    "TrainingResult": "run",
    "train": "run",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        with explaining():
            return getattr(importlib.import_module(f"krause_dynamics.training.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_EXPORTS)
