"""Patterns of directions on the sphere, degree by degree of the harmonics."""

from __future__ import annotations

import numpy as np

DEGREES = 8  # of the modes that are looked at


def grown_mode(first: np.ndarray, last: np.ndarray, dimension: int) -> int:
    """Degree 1..8 whose amplitude among unit vectors (N, d) has grown most."""
    growth = amplitudes(last, dimension) / amplitudes(first, dimension)
    return int(np.argmax(growth)) + 1


def amplitudes(units: np.ndarray, dimension: int) -> np.ndarray:
    """1/N^2 sum_ij P_l(<u_i, u_j>) for l = 1..8, P_l(1) = 1: of independent directions 1/N, of one point 1.

    Not negative as long as the vectors span no more than ``dimension``.
    """
    cosines = np.clip(units @ units.T, -1.0, 1.0)
    before, here, found = np.ones_like(cosines), cosines, [cosines.mean()]
    for degree in range(1, DEGREES):
        ahead = ((2 * degree + dimension - 2) * cosines * here - degree * before) / (degree + dimension - 2)
        before, here = here, ahead
        found.append(here.mean())
    return np.maximum(found, np.finfo(float).tiny)
