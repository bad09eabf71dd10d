"""Numbers: real, complex, whole; one, or an array of them; the parameters of rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from krause_dynamics._array import may_look, to_numpy, unmasked

LARGEST = 10**8  # entries: what one array of a result may hold, 800 MB


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
        number = value if type(value) is float else self._one(name, value)
        self.check(name, number, number)
        return number

    @staticmethod
    def _one(name: str, value: Any) -> float:
        x = _floats(name, value)
        if x.ndim:
            raise TypeError(f"{name} must be one number, got {shown(value)}")
        return float(x)

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
        if self.upper == math.inf:
            least = "positive" if self.lower == 0 and self.ends[0] == "(" else self._least()
            return f"be {least} and finite" if self.ends[1] == ")" else f"be {least}"
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
        x = array_of(name, value)
        if x.dtype.kind not in "iufc":
            raise TypeError(f"{name} must hold numbers, got {value!r}")
        if self.ndim is not None and x.ndim != self.ndim:
            raise TypeError(f"{name} must be one number, got {value!r}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must be finite, got {value!r}")
        return x if x.dtype.kind == "c" else x.astype(float)


@dataclass(frozen=True)
class Parameter:
    """What a rule may hold: one number or an array of numbers, each in ``number``; it stays what it is.

    Values that nobody may look at (on a device, under a compiler) pass.
    """

    number: Real

    def read(self, name: str, value: Any) -> Any:
        """The value itself."""
        if type(value) is float or type(value) is int:
            self.number.check(name, value, value)
        elif may_look(value):
            x = _numbers(name, value)
            self.number.check(name, float(x.min()), float(x.max()))
        return value


def _numbers(name: str, value: Any) -> np.ndarray:
    """At least one real number; text is none, nor true and false, nor a number with an imaginary part."""
    try:
        x = to_numpy(value)
        if x.dtype.kind in "USc" or isinstance(value, bool | np.bool_):
            raise TypeError
        x = x.astype(float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or an array of numbers, got {shown(value)}") from None
    if x.size == 0:
        raise ValueError(f"{name} must hold at least one number, got {shown(value)}")
    return x


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
class Sizes:
    """Lengths of axes, such as ``(layers, heads)``."""

    def read(self, name: str, value: Any) -> tuple[int, ...]:
        """A tuple of whole numbers."""
        if not isinstance(value, tuple | list):
            raise TypeError(f"{name} must be a tuple of sizes, such as (4, 8), got {shown(value)}")
        return tuple(COUNT.read(f"{name}[{place}]", size) for place, size in enumerate(value))


POSITIVE = Real(0.0, ends="()")
PARAMETER, POSITIVE_PARAMETER = Parameter(Real()), Parameter(Real(0.0, ends="(]"))  # a radius may be infinite
COUNT, COUNT_OR_ZERO = Whole(1, (1 << 63) - 1), Whole(0, (1 << 63) - 1)  # compiled loops count in 64 bits


def affordable(what: str, count: float) -> None:
    """Entries of a result are counted before it is made.

    Raises:
        ValueError: More than `LARGEST`.
    """
    if not count <= LARGEST:
        raise ValueError(
            f"{what} must be at most {LARGEST:g}, for the memory of the result, got {count:g}; ask for less"
        )


def shown(value: Any) -> str:
    """A value in an error: its type, and itself where that is short."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else type(value).__name__


def array_of(name: str, value: Any) -> Any:
    if np.ma.isMaskedArray(value):
        return unmasked(name, value)
    if hasattr(value, "detach"):
        return to_numpy(value)
    if isinstance(value, list | tuple) and any(hasattr(entry, "detach") for entry in value):
        value = [to_numpy(entry) for entry in value]  # the sigma of each layer of a model, say
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array with rows of one length, got {value!r}") from None


def _floats(name: str, value: Any) -> Any:
    x = array_of(name, value)
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
