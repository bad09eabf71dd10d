"""What each argument of a formula may be, written once beside the formula; every error says name, domain and value.

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
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    ArrayLike = Any  # inside a formula it has been read: a float64 array
else:
    from numpy.typing import ArrayLike as ArrayLike

P = ParamSpec("P")
R = TypeVar("R")
LARGEST = 10**8  # entries: what one array of a result may hold, 800 MB


class Domain(Protocol):
    """Reads one argument: ``read(name, value)`` returns it in the type of the formula, or raises."""

    def read(self, name: str, value: Any) -> Any:
        """The value, converted.

        Raises:
            TypeError: Another kind of thing.
            ValueError: Outside the domain.
        """


@dataclass(frozen=True)
class Real:
    """A real number between two ends; ``ends`` says which belong to it, and an infinite end that belongs is allowed."""

    lower: float = -math.inf
    upper: float = math.inf
    ends: str = ""

    def __post_init__(self) -> None:
        """A finite lower end belongs unless said otherwise, an upper or infinite one does not."""
        if not self.ends:
            object.__setattr__(self, "ends", "[)" if self.lower > -math.inf else "()")

    def read(self, name: str, value: Any) -> Any:
        """A float."""
        x = _floats(name, value)
        if x.ndim:
            raise TypeError(f"{name} must be one number, got {value!r}")
        number = float(x)
        self.check(name, number, number)
        return number

    def check(self, name: str, least: float, largest: float) -> None:
        """Refuse what is not inside; NaN is nowhere."""
        above = self.lower <= least if self.ends[0] == "[" else self.lower < least
        below = largest <= self.upper if self.ends[1] == "]" else largest < self.upper
        if not (above and below):
            outside = least if not above else largest
            raise ValueError(f"{name} must {self}, got {outside!r}")

    def __str__(self) -> str:
        """As it stands in an error: the commonest domains in words."""
        if (self.lower, self.upper) == (-math.inf, math.inf):
            return "be finite"
        if self.upper == math.inf and self.ends[1] == ")":
            return f"be {'positive' if self.lower == 0 and self.ends[0] == '(' else self._least()} and finite"
        return f"lie in {self.ends[0]}{self.lower:g}, {self.upper:g}{self.ends[1]}"

    def _least(self) -> str:
        return f"{'at least' if self.ends[0] == '[' else 'above'} {self.lower:g}"


@dataclass(frozen=True)
class Reals(Real):
    """An array of reals of any shape, or of ``ndim`` axes; ``rising`` arrays do not fall."""

    ndim: int | None = None
    rising: bool = False

    def read(self, name: str, value: Any) -> Any:
        """A float64 array."""
        x = _floats(name, value)
        if self.ndim == 1 and x.ndim == 0:
            x = x[None]  # a number is a row of one
        if self.ndim is not None and x.ndim != self.ndim:
            raise ValueError(f"{name} must have {self.ndim} axes, got shape {x.shape}")
        if self.ndim is not None and x.size == 0:
            raise ValueError(f"{name} must hold at least one entry, got shape {x.shape}")
        if x.size:
            self.check(name, float(x.min()), float(x.max()))
        if self.rising and (x.ndim > 1 or np.any(np.diff(np.atleast_1d(x)) < 0)):
            raise ValueError(f"{name} must be one rising row, got {value!r}; sort it")
        return x


@dataclass(frozen=True)
class Complexes:
    """Real or complex numbers of any shape."""

    def read(self, name: str, value: Any) -> Any:
        """A float64 or complex128 array."""
        x = _array(name, value)
        if x.dtype.kind not in "iufc":
            raise TypeError(f"{name} must hold numbers, got {value!r}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must be finite, got {value!r}")
        return x if x.dtype.kind == "c" else x.astype(float)


@dataclass(frozen=True)
class Whole:
    """A whole number; ``most`` is what memory allows where the result has that many entries."""

    least: int = 1
    most: float = math.inf

    def read(self, name: str, value: Any) -> int:
        """An int."""
        if isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        try:
            number = index(value)
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {value!r}; round it first") from None
        if number < self.least:
            raise ValueError(f"{name} must be at least {self.least}, got {number}")
        if number > self.most:
            raise ValueError(f"{name} must be at most {self.most:g}, for the memory of the result, got {number}")
        return number


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, name: str, value: Any) -> bool:
        """A bool."""
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        return bool(value)


class Word(tuple[str, ...]):
    """One of a few words."""

    __slots__ = ()

    def read(self, name: str, value: Any) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self:
            known = ", ".join(map(repr, self[:-1])) + f" or {self[-1]!r}"
            raise ValueError(f"{name} must be {known}, got {value!r}")
        return value


@dataclass(frozen=True)
class Maybe:
    """Something else, or ``None``."""

    domain: Domain

    def read(self, name: str, value: Any) -> Any:
        """The value, or ``None``."""
        return None if value is None else self.domain.read(name, value)


POSITIVE = Real(0.0, ends="()")


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
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                bound.arguments[name] = domains[name].read(name, value)
            with np.errstate(all="ignore"):
                answer = function(*bound.args, **bound.kwargs)
            if _has_nan(answer):
                given = ", ".join(f"{name}={value!r}" for name, value in bound.arguments.items())
                raise ValueError(f"{function.__name__}({given}) leaves the range of floating-point numbers")
            return answer

        return read

    return decorate


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


def _array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array with rows of one length, got {value!r}") from None


def _floats(name: str, value: Any) -> Any:
    x = _array(name, value)
    if x.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got {value!r}")
    return x.astype(float)


def _has_nan(answer: Any) -> bool:
    if isinstance(answer, tuple):
        return any(map(_has_nan, answer))
    return isinstance(answer, float | complex | np.ndarray | np.number) and bool(np.isnan(answer).any())


def within(name: str, value: float, lower: float, upper: float, *, ends: str = "()") -> float:
    """Check a number against ends that depend on other arguments.

    Raises:
        ValueError: Outside.
    """
    Real(lower, upper, ends).check(name, value, value)
    return value
