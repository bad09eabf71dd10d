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


def freezing_time(positions: list[Fraction], weights: list[int]) -> int:
    """Steps of weighted atoms until nothing moves at radius 1; prefix sums and merging make long runs affordable."""
    steps = 0
    while True:
        sums, masses = [Fraction(0)], [0]
        for a, w in zip(positions, weights, strict=True):
            sums.append(sums[-1] + w * a)
            masses.append(masses[-1] + w)
        new, left, right = [], 0, 0
        for a in positions:
            while right < len(positions) and positions[right] - a <= 1:
                right += 1
            while a - positions[left] > 1:
                left += 1
            new.append((sums[right] - sums[left]) / (masses[right] - masses[left]))
        if new == positions:
            return steps
        steps += 1
        merged: dict[Fraction, int] = {}
        for a, w in zip(new, weights, strict=True):
            merged[a] = merged.get(a, 0) + w
        positions, weights = list(merged), list(merged.values())


def window_mean(x: np.ndarray, i: int, radius: float) -> float:
    """The correctly rounded mean of those whom agent i hears, decided on rounded differences as floats allow."""
    heard = [Fraction(float(value)) for value in x if abs(x[i] - value) <= radius]
    return float(sum(heard, Fraction(0)) / len(heard))
