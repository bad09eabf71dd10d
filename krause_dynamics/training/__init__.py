"""Training of the models here: a configuration in, a folder with the best weights, the table and the result out."""

from __future__ import annotations

from krause_dynamics import _torch  # noqa: F401 (says how to install it)
from krause_dynamics._extras import on_access

# Loaded on first access: training needs transformers and accelerate.
_EXPORTS: dict[str, str] = {
    "TrainingConfiguration": "configuration",
    "TrainingResult": "run",
    "train": "run",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605
__getattr__, __dir__ = on_access(__name__, _EXPORTS)
