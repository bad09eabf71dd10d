"""Immutable values: equality by content, and a round trip through dictionaries for metadata, sweeps and the CLI."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

import numpy as np

from krause_dynamics._array import is_torch, to_numpy


class Value:
    """Base of the frozen dataclasses which describe a rule. Fields are numbers, strings, arrays, or other values."""

    _types: ClassVar[dict[str, type[Value]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Value._types[cls.__name__] = cls

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary with the type under ``"type"``; `from_dict` is the inverse."""
        content = {f.name: described(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        return {"type": type(self).__name__, **content}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


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

    Raises:
        ValueError: The dictionary names an unknown type, or holds a user's function (which no dictionary can store).
    """
    if isinstance(content, list):
        return tuple(from_dict(item) for item in content) if _holds_values(content) else np.asarray(content)
    if not isinstance(content, dict):
        return content
    kind = content.get("type")
    if kind == "callable":
        raise ValueError(f"the function {content['name']!r} was stored by name only; build the rule again with it")
    if kind not in Value._types:
        raise ValueError(f"type must be one of {sorted(Value._types)}, got {kind!r}")
    return Value._types[kind](**{name: from_dict(item) for name, item in content.items() if name != "type"})


def _holds_values(content: list[Any]) -> bool:
    return bool(content) and isinstance(content[0], dict)


def check_number(name: str, value: Any, *, positive: bool) -> None:
    """Parameters are numbers or arrays without NaN, positive where asked.

    Raises:
        TypeError: Not a number or an array of numbers.
        ValueError: NaN, or not positive where ``positive``.
    """
    try:
        given = to_numpy(value)
        if given.dtype.kind in "USc":  # numpy would read "1" as 1.0, and drop an imaginary part
            raise TypeError
        numbers = given.astype(float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}") from None
    if numbers.size == 0 or np.isnan(numbers).any():
        raise ValueError(f"{name} must be a number without NaN, got {value!r}")
    if positive and not (numbers > 0).all():
        raise ValueError(f"{name} must be positive, got {value!r}")
    if not positive and np.isinf(numbers).any():
        raise ValueError(f"{name} must be finite, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Sizes such as k and W are whole numbers of at least one.

    Raises:
        ValueError: Not a whole number, or less than one.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
