"""Hegselmann-Krause on a line in rational arithmetic: the oracle of the freezing times, written without the package."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def step(x: list[Fraction], radius: Fraction) -> list[Fraction]:
    """One synchronous step of sorted rational opinions."""
    new = []
    for a in x:
        heard = [b for b in x if abs(a - b) <= radius]
        new.append(sum(heard, Fraction(0)) / len(heard))
    return new


def run(start: list[int | Fraction], radius: int | Fraction = 1) -> tuple[list[list[Fraction]], int]:
    """All states until nothing moves, and the number of steps."""
    states = [[Fraction(a) for a in start]]
    while True:
        new = step(states[-1], Fraction(radius))
        if new == states[-1]:
            return states, len(states) - 1
        states.append(new)


def window_mean(x: np.ndarray, i: int, radius: float) -> float:
    """The correctly rounded mean of those whom agent i hears, decided on rounded differences as floats allow."""
    heard = [Fraction(float(value)) for value in x if abs(x[i] - value) <= radius]
    return float(sum(heard, Fraction(0)) / len(heard))
