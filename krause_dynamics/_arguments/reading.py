"""The decorator that reads the arguments of a function by their domains."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from krause_dynamics._arguments.meant import unknown
from krause_dynamics._arguments.things import Domain

P = ParamSpec("P")
R = TypeVar("R")


def reads(**domains: Domain) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Read these arguments of a public function by their domains before it runs; the others are its own to check.

    A keyword that it does not have is answered with the one that is meant.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        names = list(parameters)
        if not domains.keys() <= parameters.keys():
            raise unknown(function.__qualname__, domains, names)
        is_open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())

        @functools.wraps(function)
        def read(*args: Any, **kwargs: Any) -> Any:
            if not (is_open or kwargs.keys() <= parameters.keys()):
                raise unknown(f"{function.__qualname__}()", kwargs, names)
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
