"""Measures of one's own by name: ``krause analyze --measure gaps.py:widest_gap``, or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

OWN = typer.Option(
    help="A measure of your own beside those: FILE.py:NAME or MODULE:NAME of a kd.checkpoints.Measure, or a list of "
    "them; the file is run. Once for each."
)


def with_own_measures(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an analysis whose ``own`` names have been added to its ``measures``."""
    rest = {name: value for name, value in settings.items() if name != "own"}
    if not settings["own"]:
        return rest
    asked = rest["measures"]
    return rest | {"measures": [*([asked] if isinstance(asked, str) else asked), *own_measures(settings["own"])]}


def own_measures(given: Sequence[str]) -> list[Any]:
    """The measures of those names, in order. Files run as Python does: only those that are named, from where they lie.

    Args:
        given: ``FILE.py:NAME`` or ``MODULE:NAME``, where NAME is a ``kd.checkpoints.Measure`` or a list of them.

    Raises:
        ValueError: No such file, module or name, code that fails, or a name of something else.
    """
    from krause_dynamics.checkpoints import Measure

    found: list[Any] = []
    for text in given:
        place, colon, name = text.rpartition(":")
        if not (place and colon and name):
            raise ValueError(f"--measure must be FILE.py:NAME or MODULE:NAME, received {text!r}")
        module = _module(place)
        if not hasattr(module, name):
            known = [one for one, value in vars(module).items() if isinstance(value, Measure | list | tuple)]
            near = get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'no measure'}"
            raise ValueError(f"--measure: {place} has no {name!r}{meant}")
        value = getattr(module, name)
        several = list(value) if isinstance(value, list | tuple) else [value]
        wrong = [one for one in several if not isinstance(one, Measure)]
        if wrong or not several:
            kind = type(wrong[0]).__name__ if wrong else "an empty list"
            raise ValueError(
                f"--measure: {text} must be a kd.checkpoints.Measure or a list of them, received {kind}; a function "
                "becomes one by Measure(name, dims, long_name, of, formula)"
            )
        found += several
    return found


def _module(place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).expanduser()
        if not path.is_file():
            raise ValueError(f"no file {place!r} here")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # it is somebody's code, which may fail in any way
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"--measure: {place} cannot be loaded ({type(error).__name__}: {reason}); name a file as FILE.py:NAME, or "
            "a module that Python finds as MODULE:NAME"
        ) from error
    return module
