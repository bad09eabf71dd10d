"""The table's rows: written with a decorator, gathered in `ROWS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One parameter of one public callable.

    Attributes:
        path: As a user types it: ``kd.simulate``.
        parameter: Its name in the signature.
        first: A value; often the default.
        second: Another.
        states: The property in words: what must hold between the answers, or between an answer and a known number.
        check: ``check(first, second)`` calls with both values and asserts the property.
    """

    path: str
    parameter: str
    first: Any
    second: Any
    states: str
    check: Callable[[Any, Any], None]

    def __str__(self) -> str:
        return f"{self.path}({self.parameter})"


ROWS: list[Row] = []


def row(path: str, parameter: str, first: Any, second: Any, states: str) -> Callable[[Any], Any]:
    """Put the decorated ``check(first, second)`` into the table; several decorators make several rows of one check."""

    def register(check: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        ROWS.append(Row(path, parameter, first, second, states, check))
        return check

    return register
