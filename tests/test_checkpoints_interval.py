"""Intervals over sequences: what is missing, and how often they cover what they promise."""

from __future__ import annotations

import numpy as np
import xarray

import krause_dynamics as kd
from tests.keywords.table_checkpoints_interval import dataset


def test_what_is_missing_is_left_out_where_it_is_missing():
    data = dataset(12)
    data["importance_first"][3, 0, 0] = np.nan
    data["clusters"][5, 1] = -1
    found = kd.checkpoints.interval(data, method="t")
    rest = kd.checkpoints.interval(data.isel(sequence=[i for i in range(12) if i != 3]), method="t")
    np.testing.assert_allclose(found["importance_first"][:, 0, 0], rest["importance_first"][:, 0, 0])
    rest = kd.checkpoints.interval(data.isel(sequence=[i for i in range(12) if i != 5]), method="t")
    np.testing.assert_allclose(found["clusters"][:, 1], rest["clusters"][:, 1])


def test_intervals_cover_what_they_promise():
    """Means of 4 and of 12 normal numbers, at 1000 places each: 95 % within four standard errors of a share."""
    for number in (4, 12):
        values = np.random.default_rng(number).normal(size=(number, 1000))
        data = xarray.Dataset({"x": (("sequence", "layer"), values)}, attrs={"meta": "{}"})
        _, low, high = kd.checkpoints.interval(data)["x"].values
        share = np.mean((low < 0) & (high > 0))
        assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)
