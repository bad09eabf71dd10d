"""kd.checkpoints.interval: against scipy's t and bootstrap, and by how often intervals cover what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import krause_dynamics as kd
from tests.keywords.row import row

INTERVAL = "kd.checkpoints.interval"


def dataset(sequences, seed=0):
    xarray = pytest.importorskip("xarray")
    rng = np.random.default_rng(seed)
    first = rng.beta(0.5, 1.5, (sequences, 2, 3))
    variables = {
        "importance_first": (("sequence", "block", "head"), first, {"long_name": "alpha_0"}),
        "mean_cosine": (("sequence", "layer", "tokens"), rng.normal(size=(sequences, 3, 2))),
        "clusters": (("sequence", "layer"), rng.integers(1, 9, (sequences, 3))),
        "strongest_key": (("sequence", "block", "head"), np.zeros((sequences, 2, 3), dtype=int)),
        "sink_rate": (("block", "head", "eps"), np.zeros((2, 3, 2))),
    }
    return xarray.Dataset(variables, coords={"eps": [0.1, 0.3], "block": [1, 2]}, attrs={"meta": "{}"})


@row(INTERVAL, "dataset", 2, 40, "the mean over those sequences, inside its interval; one sequence has none")
def given(first, second):
    for number in (first, second):
        data = dataset(number)
        found = kd.checkpoints.interval(data)
        assert set(found) == {"importance_first", "mean_cosine", "clusters", "sink_rate"}
        for name in ("importance_first", "mean_cosine", "clusters"):
            mean, low, high = found[name].values
            np.testing.assert_allclose(mean, data[name].mean("sequence"), atol=1e-12)
            assert np.all((low <= mean) & (mean <= high))
        rates = 100 * (data["importance_first"].values[..., None] > np.array([0.1, 0.3])).mean(0)
        np.testing.assert_allclose(found["sink_rate"].sel(estimate="mean"), rates)
    with pytest.raises(ValueError, match="at least 2 sequences"):
        kd.checkpoints.interval(dataset(1))


@row(INTERVAL, "level", 0.95, 0.5, "that of scipy's t interval; smaller levels lie inside larger ones")
def level(first, second):
    data = dataset(6)
    for one in (first, second):
        found = kd.checkpoints.interval(data, level=one, method="t")["mean_cosine"]
        values = data["mean_cosine"].values
        error = stats.sem(values, axis=0)
        low, high = stats.t.interval(one, 5, loc=values.mean(0), scale=error)
        np.testing.assert_allclose(found[1:], np.stack([low, high]), rtol=1e-10)
    data = dataset(30)
    wide, narrow = (kd.checkpoints.interval(data, level=one)["importance_first"].values for one in (first, second))
    assert np.all((wide[1] < narrow[1]) & (narrow[2] < wide[2]))


@row(INTERVAL, "method", "t", "bootstrap", "of many numbers both agree with scipy's bootstrap; auto: t of few")
def method(first, second):
    data = dataset(60)[["mean_cosine"]]
    values = data["mean_cosine"].values
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    spread = values.std(0) / np.sqrt(60)
    for one in (first, second):
        found = kd.checkpoints.interval(data, method=one, draws=4000)["mean_cosine"].values
        # Ends of 4000 resamples wander by 0.03 and the widening is 0.03 standard errors: 0.2 is far off.
        assert np.all(abs(found[1] - theirs.low) < 0.2 * spread)
        assert np.all(abs(found[2] - theirs.high) < 0.2 * spread)
    few = dataset(5)[["mean_cosine"]]
    for numbers, chosen in ((few, first), (data, second)):
        by_itself, named = (kd.checkpoints.interval(numbers, method=one)["mean_cosine"] for one in ("auto", chosen))
        np.testing.assert_array_equal(by_itself, named)


@row(INTERVAL, "draws", 1, 4000, "one resample has one mean: no width; of many both ends settle")
def draws(first, second):
    data = dataset(20)
    _, low, high = kd.checkpoints.interval(data, draws=first)["mean_cosine"].values
    np.testing.assert_array_equal(low, high)
    one, other = (kd.checkpoints.interval(data, draws=second, rng=seed)["mean_cosine"].values for seed in (0, 1))
    assert np.all(abs(one - other) < 0.15 * (one[2] - one[1]))


@row(INTERVAL, "rng", 0, 1, "another resampling: the same mean, ends that are not the same; one seed repeats")
def rng(first, second):
    data = dataset(20)
    one, other = (kd.checkpoints.interval(data, rng=seed)["mean_cosine"].values for seed in (first, second))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.all(one[1] != other[1])
    np.testing.assert_array_equal(one, kd.checkpoints.interval(data, rng=np.random.default_rng(first))["mean_cosine"])
