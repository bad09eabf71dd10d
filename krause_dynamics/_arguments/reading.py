"""The decorator that reads the arguments of a function by their domains."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from krause_dynamics._arguments.things import Domain

P = ParamSpec("P")
R = TypeVar("R")


def reads(**domains: Domain) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Read these arguments of a public function by their domains before it runs; the others are its own to check."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)
        unknown = domains.keys() - set(names)
        if unknown:
            raise TypeError(f"{function.__name__} has no argument {', '.join(unknown)}")

        @functools.wraps(function)
        def read(*args: Any, **kwargs: Any) -> Any:
            given = list(args)
            for name, domain in domains.items():
                place = names.index(name)
                if place < len(given):
                    given[place] = domain.read(name, given[place])
                elif name in kwargs:
                    kwargs[name] = domain.read(name, kwargs[name])
            return function(*given, **kwargs)

        return read

    return decorate
