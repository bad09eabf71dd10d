"""Formulas read their arguments by domains, take them by name, and never answer finite input with NaN.

    @formula(times=Reals(), beta=Real(), tokens=Whole(2))
    def similarity(*, times, beta, tokens): ...

Arguments that could be swapped unnoticed are taken by keyword. Where an older release took them by position, a call
without names keeps that order and warns.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from krause_dynamics._arguments import Domain, Reals, Whole
from krause_dynamics._arguments.meant import unknown

EXACT = 2**53
P = ParamSpec("P")
R = TypeVar("R")


def formula(**domains: Domain) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Read every argument of a formula by its domain; answer positional calls of the last release; refuse NaN.

    Numbers may overflow to infinity where the true value does; what is undefined in floats raises instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        if set(signature.parameters) != set(domains):
            raise TypeError(f"{function.__name__} needs a domain for each of {list(signature.parameters)}")
        positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in signature.parameters.values())
        names = list(signature.parameters)

        @functools.wraps(function)
        def read(*args: Any, **kwargs: Any) -> Any:
            if len(args) > positional:
                kwargs = _named(function.__name__, names, args, kwargs)
                args = ()
            if not kwargs.keys() <= domains.keys():
                raise unknown(f"{function.__name__}()", kwargs, names)
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                bound.arguments[name] = domains[name].read(name, value)
                _check_exact(name, bound.arguments[name], domains[name])
            _check_shapes({name: value for name, value in bound.arguments.items() if _is_free(domains[name])})
            try:
                with np.errstate(all="ignore"):
                    answer: Any = function(*bound.args, **bound.kwargs)
            except (OverflowError, ZeroDivisionError):
                answer = math.nan
            if _has_nan(answer):
                given = ", ".join(f"{name}={value!r}" for name, value in bound.arguments.items())
                raise ValueError(f"{function.__name__}({given}) leaves the range of floating-point numbers")
            return answer

        return read

    return decorate


def _check_exact(name: str, value: Any, domain: Domain) -> None:
    if isinstance(domain, Whole) and domain.most == math.inf and value > EXACT:
        raise ValueError(f"{name} must be at most 2^53 = {EXACT}, the last whole number of floats, got {value}")


def _is_free(domain: Domain) -> bool:
    return isinstance(domain, Reals) and domain.ndim is None


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    """Arrays of any shape are broadcast against one another."""
    try:
        np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        given = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"arrays must broadcast to one shape, got {given}") from None


def _named(function: str, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > len(names):
        raise TypeError(f"{function} takes {len(names)} arguments ({', '.join(names)}), got {len(args)}")
    given = dict(zip(names, args, strict=False))
    twice = given.keys() & kwargs.keys()
    if twice:
        raise TypeError(f"{function} got {', '.join(sorted(twice))} twice")
    shown = ", ".join(f"{name}=..." for name in given)
    warnings.warn(
        f"{function} takes its arguments by name, as swapped numbers cannot be noticed: write {function}({shown})",
        DeprecationWarning,
        stacklevel=3,
    )
    return given | kwargs


def _has_nan(answer: Any) -> bool:
    if isinstance(answer, tuple):
        return any(map(_has_nan, answer))
    return isinstance(answer, float | complex | np.ndarray | np.number) and bool(np.isnan(answer).any())
