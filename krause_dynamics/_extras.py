"""Packages that only a part of the work needs: where one is missing, the error says which extra brings it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

HF = "models of transformers, training and adapters"
# Package: (extra of pyproject.toml, what needs it); who analyses trained models is not sent for torch alone and back.
EXTRAS = {
    "torch": ("torch", "layers"),
    **dict.fromkeys(("transformers", "accelerate", "peft", "safetensors", "gguf", "filelock"), ("hf", HF)),
}
WITHOUT = "; particles, opinions, mean field, theory and plots run without"


@contextmanager
def explaining() -> Iterator[None]:
    """Inside, a missing package of an extra is answered with the line that installs it.

    Raises:
        ModuleNotFoundError: As inside, with that line.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS or str(error).endswith(WITHOUT):
            raise
        extra, what = EXTRAS[name]
        more = ", or with models and the analysis of trained ones 'krause_dynamics[hf]'" if extra == "torch" else ""
        message = f"{what} need {name}: pip install 'krause_dynamics[{extra}]'{more}{WITHOUT}"
        raise ModuleNotFoundError(message, name=name) from error


def on_access(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are loaded on first access, as they need an extra.

    Args:
        package: Its ``__name__``.
        exports: The module inside it that defines a name, by that name.
    """

    def get(name: str) -> Any:
        if name in exports:
            with explaining():
                return getattr(importlib.import_module(f"{package}.{exports[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(exports)
