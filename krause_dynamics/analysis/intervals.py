"""Bootstrap intervals of means over sequences, and of their differences between two analyses."""

from __future__ import annotations

import numpy as np


def mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean over an axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis)
    return found


def difference(
    one: np.ndarray, other: np.ndarray, *, paired: bool, level: float, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Percentile interval of  mean(one) - mean(other)  over axis 0, by resampling sequences (Efron & Tibshirani 1993).

    Args:
        one: (sequences, ...).
        other: (its sequences, ...).
        paired: Whether sequence i is the same in both, so that both are resampled together.
        level: Of the interval, such as 0.95. Of few sequences (below ten, say) it covers less than that.
        draws: Number of resamples.
        rng: Of the resampling.

    Returns:
        (low, high) stacked, (2, ...); NaN where an analysis has fewer than two sequences.
    """
    shape = one.shape[1:]
    if min(len(one), len(other)) < 2:
        return np.full((2, *shape), np.nan)
    chosen = _counts(len(one), draws, rng)
    rest = chosen if paired else _counts(len(other), draws, rng)
    drawn = _means(one.reshape(len(one), -1), chosen) - _means(other.reshape(len(other), -1), rest)
    bounds = np.full((2, drawn.shape[1]), np.nan)
    known = ~np.isnan(drawn).all(axis=0)
    bounds[:, known] = np.nanquantile(drawn[:, known], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return bounds.reshape(2, *shape)


def _counts(size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``size`` sequences is drawn, (draws, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), draws).astype(float)


def _means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of what is not NaN in the sequences drawn, (draws, columns); a matrix product, unlike scipy's bootstrap."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (counts @ np.where(known, values, 0.0)) / (counts @ known)
    return found
