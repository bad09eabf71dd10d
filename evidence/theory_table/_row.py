"""What a check is: a function that returns predicted and measured numbers, and the row of the table made from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["absolute", "relative", "at most"]


@dataclass(frozen=True)
class Comparison:
    """Predicted against measured numbers of equal shape.

    Attributes:
        predicted: from ``kd.theory``, a quadrature or a published value.
        measured: from a simulation or a solver.
        note: what was found beside the numbers, in a few words.
    """

    predicted: np.ndarray
    measured: np.ndarray
    note: str = ""

    def error(self, kind: Kind) -> float:
        """Largest deviation: absolute, relative to the prediction, or the excess over it ("at most")."""
        if self.predicted.shape != self.measured.shape:
            return float("inf")
        difference = self.measured - self.predicted
        if kind == "at most":
            return float(np.max(np.maximum(difference, 0.0)))
        scale = np.abs(self.predicted) if kind == "relative" else 1.0
        return float(np.max(np.abs(difference) / scale))


def compare(predicted: Any, measured: Any, note: str = "") -> Comparison:
    """A `Comparison` from numbers, lists or arrays; lists of unequal length count as an infinite error."""
    return Comparison(np.atleast_1d(np.asarray(predicted, float)), np.atleast_1d(np.asarray(measured, float)), note)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: the check that produced it.
        comparison: its numbers; None when it raised.
        error: largest deviation, inf when it raised.
        passed: whether the error is within the tolerance.
        seconds: processor time, which others on the machine do not change.
        note: remark, or the text of the exception.
    """

    check: Check
    comparison: Comparison | None
    error: float
    passed: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        name: name of the function.
        section: section of the theory.
        result: what is reproduced.
        source: where it is from.
        setting: parameters of this instance.
        tolerance: largest deviation that passes.
        kind: how the deviation is measured.
        slow: left out of the fast subset.
        disputed: why the measured number is believed where it contradicts the published one; empty otherwise.
        function: returns a `Comparison`.
    """

    name: str
    section: int
    result: str
    source: str
    setting: str
    tolerance: float
    kind: Kind
    slow: bool
    disputed: str
    function: Callable[[], Comparison]

    def run(self) -> Row:
        """Carry it out; an exception becomes a failed row, so that one fault does not hide the others."""
        start = time.process_time()
        try:
            comparison = self.function()
        except Exception as exception:
            seconds = time.process_time() - start
            return Row(self, None, float("inf"), False, seconds, f"{type(exception).__name__}: {exception}")
        error = comparison.error(self.kind)
        passed = bool(error <= self.tolerance)
        return Row(self, comparison, error, passed, time.process_time() - start, comparison.note)


CHECKS: dict[str, Check] = {}


def check(
    section: int,
    *,
    source: str,
    setting: str,
    tolerance: float,
    kind: Kind = "absolute",
    slow: bool = False,
    disputed: str = "",
) -> Callable[[Callable[[], Comparison]], Callable[[], Comparison]]:
    """Register a function as a row of the table; its docstring names the result. See `Check` for the arguments."""

    def register(function: Callable[[], Comparison]) -> Callable[[], Comparison]:
        name = function.__name__
        if name in CHECKS:
            raise ValueError(f"checks must have different names, got {name!r} twice")
        result = (function.__doc__ or name).strip().rstrip(".")
        CHECKS[name] = Check(name, section, result, source, setting, tolerance, kind, slow, disputed, function)
        return function

    return register


def run(names: Iterable[str] | None = None, *, slow: bool = True) -> list[Row]:
    """Rows of the named checks, or of all, in order of section.

    Args:
        names: which; all when None.
        slow: include the slow ones (only when ``names`` is None).

    Raises:
        ValueError: an unknown name.
    """
    if names is None:
        chosen = [c for c in CHECKS.values() if slow or not c.slow]
    else:
        names = list(names)
        unknown = [n for n in names if n not in CHECKS]
        if unknown:
            raise ValueError(f"names must be registered checks, got {unknown}; see evidence.theory_table.CHECKS")
        chosen = [CHECKS[n] for n in names]
    return [c.run() for c in sorted(chosen, key=lambda c: c.section)]
