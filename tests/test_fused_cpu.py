"""Compiled loops of banded attention on the CPU, one by one: selection, exponentials, ordinals."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from krause_dynamics.forms.attention.cpu import arithmetic, compiled, selection


@njit
def keep(scores, k, keep_ties):
    return selection.keep_best(scores, len(scores), k, keep_ties)


@njit
def exponentials(values, shift):
    return arithmetic.exponentials(values, len(values), shift)


@njit
def there_and_back(values, places):
    for t in range(len(values)):
        places[t] = compiled.ordinal(values[t])
        values[t] = compiled.at_ordinal(places[t], values[t])


def rows(rng, length):
    """Scores of all kinds, none of them NaN."""
    normal = rng.standard_normal(length)
    yield -(normal**2)
    yield np.where(np.arange(length) % 7 == 3, -1e30, normal)  # far keys
    yield rng.integers(0, 3, length).astype(float)  # ties
    yield np.zeros(length)
    yield np.where(normal > 0, 0.0, -0.0)  # two zeros, which are equal
    yield normal * 1e-42  # denormal in single precision
    yield np.exp(20 * normal)  # many orders of magnitude
    yield np.where(np.arange(length) % 2 == 0, np.inf, normal)  # products that overflowed
    yield np.full(length, np.inf)
    yield np.where(np.arange(length) % 3 == 0, -np.inf, normal)
    yield np.sort(normal)
    yield np.full(length, 3.0e37) * (1 + np.arange(length) * 1e-7)  # neighbours of one another


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [2, 3, 17, 128, 600])
def test_the_best_scores_stay_the_earlier_one_at_a_tie(dtype, length, rng):
    for row in rows(rng, length):
        row = row.astype(dtype)
        there = int((row > -np.inf).sum())
        for k in {1, 2, length // 3, length - 1, there - 1} & set(range(1, there)):
            expected = np.sort(np.argsort(-row, kind="stable")[:k])
            found = row.copy()
            assert keep(found, k, False) == k
            np.testing.assert_array_equal(np.flatnonzero(found > -np.inf), expected)
            np.testing.assert_array_equal(found[expected], row[expected])
            ties = row.copy()
            bound = row[np.argsort(-row, kind="stable")[k - 1]]
            assert keep(ties, k, True) == int((row >= bound).sum())
            np.testing.assert_array_equal(ties > -np.inf, row >= bound)


def test_exponentials_of_single_precision_are_nearly_rounded():
    """Within two units in the last place down to the smallest normal number, 0 below."""
    x = np.concatenate([np.linspace(-87, 0, 100_001), [-87.5, -1e30, -np.inf, 0.0]]).astype(np.float32)
    found = x.copy()
    total = exponentials(found, np.float32(0))
    exact = np.exp(x.astype(np.float64))
    normal = x >= -87
    assert np.max(np.abs(found[normal] / exact[normal] - 1)) < 2 * np.finfo(np.float32).eps
    assert not found[~normal].any()
    # 1e5 terms of one sign, summed in at most that many roundings of half a unit.
    assert abs(total / exact.sum() - 1) < 1e5 * np.finfo(np.float32).eps / 2
    assert np.isnan(exponentials(np.array([0.0, np.nan], np.float32), np.float32(0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ordinals_sort_as_the_floats_and_lead_back(dtype, rng):
    x = np.concatenate([rng.standard_normal(1000), [0.0, 1e-40, 1e38, -np.inf, np.inf]])
    x = x.astype(dtype)
    back, places = x.copy(), np.zeros(len(x), np.int64)
    there_and_back(back, places)
    np.testing.assert_array_equal(back, x)
    order = np.argsort(x)
    np.testing.assert_array_equal(x[order][1:] > x[order][:-1], places[order][1:] > places[order][:-1])
    assert (np.diff(places[order]) >= 0).all()


def test_machine_code_is_as_old_as_the_newest_file_of_the_folder():
    """numba looks at the file of an entry point alone; the loops that it inlines lie in other files."""
    from pathlib import Path

    from krause_dynamics.forms.attention.cpu import rows as kernels

    newest = max(path.stat().st_mtime for path in Path(kernels.__file__).parent.glob("*.py"))
    assert kernels.forward._cache._cache_file._source_stamp[0] == newest
