"""Argument checks shared by the closed forms; each error says name, expectation, value received."""

from __future__ import annotations

import math
from operator import index


def positive_integer(name: str, value: int, *, at_least: int = 1) -> int:
    """Return ``value`` as an int.

    Raises:
        TypeError: not an integer.
        ValueError: below ``at_least``.
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}; round it first") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}")
    return number


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float.

    Raises:
        ValueError: not finite, or not above zero.
    """
    number = float(value)
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be a positive finite number, got {number!r}")
    return number


def within(name: str, value: float, lower: float, upper: float, *, closed: bool = False) -> float:
    """Return ``value`` as a float.

    Raises:
        ValueError: outside (lower, upper), or outside [lower, upper] when ``closed``.
    """
    number = float(value)
    inside = lower <= number <= upper if closed else lower < number < upper
    if not inside:
        left, right = ("[", "]") if closed else ("(", ")")
        raise ValueError(f"{name} must lie in {left}{lower:g}, {upper:g}{right}, got {number!r}")
    return number
