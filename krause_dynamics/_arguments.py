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
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np

from krause_dynamics._array import is_torch

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
    """Real or complex numbers of any shape, or one number (``ndim=0``)."""

    ndim: int | None = None

    def read(self, name: str, value: Any) -> Any:
        """A float64 or complex128 array."""
        x = _array(name, value)
        if x.dtype.kind not in "iufc":
            raise TypeError(f"{name} must hold numbers, got {value!r}")
        if self.ndim is not None and x.ndim != self.ndim:
            raise TypeError(f"{name} must be one number, got {value!r}")
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


@dataclass(frozen=True)
class Is:
    """A value of a class; ``such_as`` shows one, as the way out."""

    kind: type | tuple[type, ...]
    such_as: str

    def read(self, name: str, value: Any) -> Any:
        """The value itself."""
        if not isinstance(value, self.kind):
            kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name} must be of type {wanted}, such as {self.such_as}, got {_shown(value)}")
        return value


@dataclass(frozen=True)
class Entries:
    """Real numbers of any array library: an array stays what it is, a list becomes one; ``axes`` least and most."""

    axes: tuple[int, float] = (1, math.inf)

    def read(self, name: str, value: Any) -> Any:
        """An array."""
        x = value if is_torch(value) else _array(name, value)
        if not is_torch(x) and x.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real numbers, got {_shown(value)}")
        if not self.axes[0] <= x.ndim <= self.axes[1]:
            least, most = self.axes
            wanted = f"have {least} axes" if least == most else f"have {least} or more axes"
            wanted = "be one state of shape (n, d) or (n,)" if self.axes == (1, 2) else wanted
            raise ValueError(f"{name} must {wanted}, got shape {tuple(x.shape)}")
        return x


@dataclass(frozen=True)
class Points(Entries):
    """Positions (..., n, d); (n,) are points on a line, (n, 1)."""

    def read(self, name: str, value: Any) -> Any:
        """An array of two axes at least."""
        x = super().read(name, value)
        return x[:, None] if x.ndim == 1 else x


@dataclass(frozen=True)
class Holds:
    """A Dataset with these variables or coordinates; ``source`` is the function that makes one, as the way out."""

    source: str
    variables: tuple[str, ...]

    def read(self, name: str, value: Any) -> Any:
        """The Dataset itself."""
        if not (hasattr(value, "data_vars") and hasattr(value, "coords")):
            raise TypeError(f"{name} must be the Dataset of {self.source}, got {_shown(value)}")
        missing = [variable for variable in self.variables if variable not in value]
        if missing:
            raise ValueError(f"{name} must be the Dataset of {self.source}, but holds no {', '.join(missing)}")
        return value


@dataclass(frozen=True)
class Called:
    """A function."""

    def read(self, name: str, value: Any) -> Any:
        """The function itself."""
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {_shown(value)}")
        return value


FILE = Is((str, os.PathLike), "'result.png'")
POSITIVE = Real(0.0, ends="()")


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


def _shown(value: Any) -> str:
    """A value in an error: its type, and itself where that is short."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else type(value).__name__


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


def within(name: str, value: float, lower: float, upper: float, *, ends: str = "()") -> float:
    """Check a number against ends that depend on other arguments.

    Raises:
        ValueError: Outside.
    """
    Real(lower, upper, ends).check(name, value, value)
    return value
