"""Immutable values: rules, spaces, methods, schedules, stop rules as frozen dataclasses that equal by content.

A class derives from `Value` and is a frozen dataclass without an equality of its own::

    @dataclass(frozen=True, eq=False)
    class Quadratic(Score):
        strength: float = 1.0

That is all: two values with the same content are equal and hash alike, ``to_dict`` writes what a run file or a model's
configuration holds, `from_dict` reads it back, and a TOML file may say ``{ type = "Quadratic", strength = 2.0 }``
wherever a score is expected. Nothing lists the classes a second time: a class is known once it is defined.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from krause_dynamics._arguments.meant import nearest, unknown
from krause_dynamics._array import is_torch, to_numpy
from krause_dynamics._html import facts

PLAIN = (bool, int, float, str, type(None))  # what is its own description


class Value:
    """Base of the frozen dataclasses which describe a rule. Fields are numbers, strings, arrays, or other values."""

    _types: ClassVar[dict[str, type[Value]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Value._types[cls.__name__] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A keyword that is no field is answered with the one that is meant; all else is the dataclass's to read."""
        if kwargs and "__dataclass_fields__" in cls.__dict__:
            known = cls.__dict__["__dataclass_fields__"]
            if not kwargs.keys() <= known.keys():
                raise unknown(cls.__name__, kwargs, [entry.name for entry in fields_of(cls) if entry.init])
        return super().__new__(cls)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary with the type under ``"type"``; `from_dict` is the inverse."""
        content: dict[str, Any] = {"type": type(self).__name__}
        for entry in fields(self):  # type: ignore[arg-type]  # the dataclass is each subclass
            value = getattr(self, entry.name)
            if type(value) not in PLAIN:
                content[entry.name] = described(value)
            elif not (entry.metadata and value == entry.default):
                content[entry.name] = value
        return content

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Value) and type(self) is type(other) and self.to_dict() == other.to_dict()
        )

    def _repr_html_(self) -> str:
        """What is given, as a table for notebooks; values inside show themselves."""
        entries = ((entry.name, getattr(self, entry.name)) for entry in fields(self))  # type: ignore[arg-type]
        return facts(type(self).__name__, [("", (type(self).__doc__ or "").strip().split("\n")[0]), *entries])

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


# As help and editors show a class without fields: nothing to give.
_NOTHING = inspect.Signature([inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)])
Value.__new__.__signature__ = _NOTHING  # type: ignore[attr-defined]


def later(default: Any) -> Any:
    """A field of a released class: at its default no dictionary holds it, so that files of earlier releases go on."""
    return field(default=default, metadata={"later": True})


def fields_of(kind: type[Value]) -> tuple[Field[Any], ...]:
    """The fields of a concrete class of values, in order."""
    return fields(kind)  # type: ignore[arg-type]  # the dataclass is each subclass, not `Value` itself


def kinds_of(base: type[Value]) -> dict[str, type[Value]]:
    """The classes of values below ``base`` that can be built, by name: what a dictionary may name as its type."""
    known = {name: kind for name, kind in sorted(Value._types.items()) if issubclass(kind, base)}
    return {name: kind for name, kind in known.items() if is_dataclass(kind) and not inspect.isabstract(kind)}


def described(x: Any) -> Any:
    """JSON-ready: values as dictionaries, arrays as lists, functions by name."""
    if isinstance(x, Value):
        return x.to_dict()
    if isinstance(x, tuple | list):
        return [described(item) for item in x]
    if is_torch(x) or isinstance(x, np.ndarray | np.generic):
        return to_numpy(x).tolist()
    if callable(x):
        return {"type": "callable", "name": name_of(x)}
    return x


def name_of(function: Any) -> str:
    """The same in every process, unlike ``repr``: a function's name, a partial one's with its arguments, or a type."""
    if isinstance(function, partial):
        keywords = {name: described(value) for name, value in function.keywords.items()}
        return f"{name_of(function.func)}{described(function.args)}{keywords}"
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def from_dict(content: Any) -> Any:
    """Rebuild a value from `Value.to_dict`.

    Args:
        content: A dictionary with a ``type``; lists and dictionaries of such are rebuilt within, other things stay.

    Raises:
        ValueError: The dictionary names an unknown type or key (the message names the nearest known one), lacks a key,
            or holds a user's function (which no dictionary can store).
    """
    if isinstance(content, list):
        return tuple(from_dict(item) for item in content) if _holds_values(content) else np.asarray(content)
    return value_from(content, Value) if isinstance(content, dict) else content


def value_from(content: Mapping[str, Any], base: type[Value], where: str = "") -> Any:
    """A value of a class below ``base`` from a dictionary or a table of a file; `from_dict` for all of them.

    Args:
        content: The name of the class under ``"type"``, and its fields; those with a default may be left out.
        base: What is expected: `Value` for anything, or a space, a score, ...
        where: Dotted name of the table, for messages.

    Raises:
        ValueError: No type, an unknown one or one of another kind, an unknown or a missing key, or a value that the
            class refuses; the message says where.
    """
    given = dict(content)
    name, place = given.pop("type", None), f"[{where}] " if where else ""
    if name == "callable":
        raise ValueError(f"the function {given['name']!r} was stored by name only; build the rule again with it")
    _load(name)
    kinds = kinds_of(base)
    if name is None:
        raise ValueError(f"{place or 'the dictionary '}must name its type, one of {', '.join(kinds)}, got {given!r}")
    check_names(f"{where}.type" if where else "type", [name], kinds)
    known = fields_of(kinds[name])
    check_names(f"key of [{where}]" if where else f"key of {name}", given, ["type", *(f.name for f in known)])
    missing = [f.name for f in known if f.name not in given and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise ValueError(f"{place}{name} needs {', '.join(missing)}, got {given!r}")
    try:
        return kinds[name](**{key: from_dict(item) for key, item in given.items()})
    except TypeError as error:
        raise ValueError(f"{place}{name}: {error}") from error


def _load(name: Any) -> None:
    """Classes in rooms that nobody has entered yet: the package knows its public names without importing them."""
    if isinstance(name, str) and name not in Value._types:
        getattr(importlib.import_module(__name__.rpartition(".")[0]), name, None)


def _holds_values(content: list[Any]) -> bool:
    return bool(content) and isinstance(content[0], dict)


def check_names(what: str, given: Collection[Any], known: Collection[str]) -> None:
    """Names are known ones.

    Raises:
        ValueError: For the first unknown name, with the one that is meant, if one comes near, and all that there are.
    """
    for name in given:
        if name not in known:
            near = nearest(str(name), known)
            meant = f"did you mean {near!r}? Known" if near else "known"
            raise ValueError(f"unknown {what} {name!r}; {meant}: {', '.join(known)}")
