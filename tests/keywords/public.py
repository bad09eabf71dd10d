"""Everything public, by the name that a user types: ``kd.simulate``, ``kd.clusters.find``."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import krause_dynamics as kd


def callables() -> dict[str, Any]:
    """Public functions and classes by path, each once under its shortest one; submodules by their ``__all__``."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for path, thing in _walk():
        if callable(thing) and _is_ours(thing) and id(thing) not in seen:
            seen.add(id(thing))
            found[path] = thing
    return found


def _is_ours(thing: Any) -> bool:
    return getattr(thing, "__module__", "").split(".")[0] in ("krause_dynamics", "evidence")


def _walk() -> Iterator[tuple[str, Any]]:
    names = [name for name in dir(kd) if not name.startswith("_")]
    things = {name: getattr(kd, name) for name in names}
    for name, thing in things.items():
        if not isinstance(thing, types.ModuleType):
            yield f"kd.{name}", thing
    for name, thing in things.items():
        if isinstance(thing, types.ModuleType):
            for inner in getattr(thing, "__all__", [n for n in vars(thing) if not n.startswith("_")]):
                yield f"kd.{name}.{inner}", getattr(thing, inner)


def signature(thing: Any) -> inspect.Signature:
    """As written, without annotations resolved; of a class that of its construction, less another library's fields."""
    try:
        whole = inspect.signature(thing)
    except (TypeError, ValueError):
        return inspect.Signature()
    foreign = _fields_of_others(thing)
    return whole.replace(parameters=[p for name, p in whole.parameters.items() if name not in foreign])


def _fields_of_others(thing: Any) -> set[str]:
    """Fields that a dataclass inherits from another library (a configuration of transformers): theirs to document."""
    if not dataclasses.is_dataclass(thing) or not inspect.isclass(thing):
        return set()
    ours, theirs = (
        {name for base in thing.__mro__ if _is_ours(base) is mine
         for name in vars(base).get("__annotations__", {})}
        for mine in (True, False)
    )  # fmt: skip
    return theirs - ours


def parameters(thing: Any) -> list[str]:
    """Names of the parameters that a caller can give; ``**rest`` counts as one."""
    return [name for name in signature(thing).parameters if name != "self"]


def lines() -> list[str]:
    """The public surface, one signature a line (annotations left out: they do not bind callers), methods included."""
    result = []
    for path, thing in sorted(callables().items()):
        result.append(f"{path}{_plain(signature(thing))}")
        if inspect.isclass(thing):
            for name in sorted(n for n in vars(thing) if not n.startswith("_")):
                method = inspect.getattr_static(thing, name)
                if isinstance(method, types.FunctionType | classmethod | staticmethod):
                    result.append(f"{path}.{name}{_plain(signature(getattr(thing, name)))}")
                else:
                    result.append(f"{path}.{name}")
    return result


def _plain(signature: inspect.Signature) -> str:
    kept = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    words = str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", words)


if __name__ == "__main__":  # python -m tests.keywords.public > tests/public_names.txt
    print("\n".join(lines()))
