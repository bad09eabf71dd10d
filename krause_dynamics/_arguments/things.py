"""What is no number: flags, words, arrays as they come, values of a class, Datasets, functions, files."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from krause_dynamics._arguments.numbers import array_of, shown
from krause_dynamics._array import as_floating, is_torch


class Domain(Protocol):
    """Reads one argument: ``read(name, value)`` returns it in the type of the formula, or raises."""

    def read(self, name: str, value: Any) -> Any:
        """The value, converted.

        Raises:
            TypeError: Another kind of thing.
            ValueError: Outside the domain.
        """


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
            raise TypeError(f"{name} must be of type {wanted}, such as {self.such_as}, got {shown(value)}")
        return value


@dataclass(frozen=True)
class Entries:
    """Real numbers of any array library: an array stays what it is, a list becomes one; ``axes`` least and most."""

    axes: tuple[int, float] = (1, math.inf)

    def read(self, name: str, value: Any) -> Any:
        """An array."""
        x = value if is_torch(value) else array_of(name, value)
        if not is_torch(x) and x.dtype.kind not in "biuf":
            if x.dtype.kind != "O":
                raise TypeError(f"{name} must hold real numbers, got {shown(value)}")
            x = as_floating(name, x)
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


# Dimensions of Datasets along which nothing can be asked of nothing.
NEEDED = ("case", "control", "side", "branch", "sequence", "layer", "block", "depth", "block_depth", "head", "token")


@dataclass(frozen=True)
class Holds:
    """A Dataset with these variables or coordinates; ``source`` is the function that makes one, as the way out."""

    source: str
    variables: tuple[str, ...]

    def read(self, name: str, value: Any) -> Any:
        """The Dataset itself."""
        if not (hasattr(value, "data_vars") and hasattr(value, "coords")):
            raise TypeError(f"{name} must be the Dataset of {self.source}, got {shown(value)}")
        missing = [variable for variable in self.variables if variable not in value]
        if missing:
            raise ValueError(f"{name} must be the Dataset of {self.source}, but holds no {', '.join(missing)}")
        empty = [dim for dim in (*NEEDED, *self.variables) if value.sizes.get(dim) == 0]
        if empty:
            raise ValueError(f"{name} must be the Dataset of {self.source} with at least one {empty[0]}, but has none")
        return value


@dataclass(frozen=True)
class Called:
    """A function."""

    def read(self, name: str, value: Any) -> Any:
        """The function itself."""
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {shown(value)}")
        return value


@dataclass(frozen=True)
class File:
    """A path, of a file that has a name or (``folder``) of anything; ``such_as`` shows one."""

    such_as: str = "'result.png'"
    folder: bool = False

    def read(self, name: str, value: Any) -> Any:
        """The path as it was given."""
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"{name} must be a path, such as {self.such_as}, got {shown(value)}")
        if not (self.folder or Path(value).name):
            raise ValueError(f"{name} must name a file, such as {self.such_as}, got {str(value)!r}")
        return value


FLAG = Flag()
FILE, FOLDER = File(), File("'results'", folder=True)
