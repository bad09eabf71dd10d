"""Intervals against scipy's and against simulated coverage."""

import numpy as np
import pytest
from scipy import stats

from evidence.statistics import (
    blocked,
    contrast,
    holm,
    interval,
    paired_sampling_error,
    pooled,
    sampling_error,
    verdict,
)

RUNS = {"a": [73.8, 74.1, 73.5], "b": [76.9, 77.4, 77.0, 77.3], "c": [73.2, 73.8]}


def test_two_arms_are_students_test_and_all_arms_its_analysis_of_variance():
    two = {name: RUNS[name] for name in ("a", "b")}
    found = contrast(pooled(two), {"b": 1.0, "a": -1.0})
    theirs = stats.ttest_ind(RUNS["b"], RUNS["a"])
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    low, high = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    # The pooled variance is the mean square within groups of a one-way analysis: F = between / within.
    every = pooled(RUNS)
    counts = np.array([every.counts[name] for name in RUNS])
    means = np.array([every.means[name] for name in RUNS])
    grand = (counts * means).sum() / counts.sum()
    between = (counts * (means - grand) ** 2).sum() / (len(RUNS) - 1)
    assert between / every.error**2 == pytest.approx(stats.f_oneway(*RUNS.values()).statistic, rel=1e-12)


def test_a_contrast_is_that_of_least_squares():
    weights = {"a": -0.5, "b": 1.0, "c": -0.5}
    found = contrast(pooled(RUNS), weights)
    values = np.concatenate([RUNS[name] for name in RUNS])
    design = np.concatenate([[np.eye(3)[i]] * len(RUNS[name]) for i, name in enumerate(RUNS)])
    solution, squares, *_ = np.linalg.lstsq(design, values)
    c = np.array([weights[name] for name in RUNS])
    variance = squares[0] / (len(values) - 3) * c @ np.linalg.inv(design.T @ design) @ c
    assert found.estimate == pytest.approx(c @ solution)
    assert found.error == pytest.approx(np.sqrt(variance))
    assert found.degrees == len(values) - 3


def test_intervals_cover_as_they_say_and_a_bootstrap_of_three_seeds_does_not():
    rng, trials, arms, seeds = np.random.default_rng(0), 4000, 6, 3
    noise = rng.normal(size=(trials, arms, seeds))
    weights = {"0": 0.5, "1": 0.5, "2": -0.5, "3": -0.5}
    missed = 0
    for draw in noise:
        found = contrast(pooled({str(i): row for i, row in enumerate(draw)}), weights)
        missed += not found.low <= 0.0 <= found.high
    # Binomial of 4000 at 5 %: three deviations are 1.03 points.
    assert missed / trials == pytest.approx(0.05, abs=0.0104)
    # A percentile bootstrap of three paired differences: all 27 resamples, their 2.5 and 97.5 percentiles.
    resamples = np.stack(np.meshgrid(*[range(seeds)] * 3), -1).reshape(-1, 3)
    means = (noise[:, 0] - noise[:, 1])[:, resamples].mean(-1)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert np.mean((low > 0) | (high < 0)) > 0.2


def test_holm_is_a_step_down_and_keeps_the_family_rate():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    with_gap = holm({"a": 0.01, "b": float("nan")})
    assert with_gap["a"] == pytest.approx(0.02)
    assert np.isnan(with_gap["b"])
    rng = np.random.default_rng(1)
    wrong = [min(holm(dict(enumerate(p))).values()) < 0.05 for p in rng.random((4000, 4))]
    assert np.mean(wrong) == pytest.approx(1 - (1 - 0.05 / 4) ** 4, abs=0.0104)


def test_verdicts_need_an_interval_on_one_side():
    narrow = contrast(pooled({"a": [1.0, 1.1, 0.9], "b": [1.0, 1.05, 0.95]}), {"a": 1.0, "b": -1.0})
    assert verdict(narrow, 0.5, narrow.p) == "no difference"
    assert verdict(narrow, 0.01, narrow.p) == "undecided"
    apart = contrast(pooled({"a": [1.3, 1.31, 1.29], "b": [1.0, 1.01, 0.99]}), {"a": 1.0, "b": -1.0})
    assert verdict(apart, 0.1, apart.p) == "differs"
    assert verdict(apart, 0.5, apart.p) == "differs, negligibly"
    alone = contrast(pooled({"a": [1.0], "b": [2.0]}), {"a": 1.0, "b": -1.0})
    assert (alone.estimate, alone.degrees) == (-1.0, 0)
    assert verdict(alone, 5.0, alone.p) == "one seed"


def test_the_error_of_a_test_set_is_that_of_its_draws():
    rng = np.random.default_rng(2)
    first = rng.random((3, 500)) < 0.9
    assert sampling_error(0.9, 10_000) == pytest.approx(0.003)
    one = {"a": first[:1]}
    assert paired_sampling_error(one, {"a": 1.0}) == pytest.approx(
        sampling_error(first[0].mean(), 500) * np.sqrt(500 / 499)
    )
    # The same answers on the same examples differ by nothing, whatever the test set.
    assert paired_sampling_error({"a": first, "b": first.copy()}, {"a": 1.0, "b": -1.0}) == 0.0
    difference = first[0].astype(int) - first[1].astype(int)
    discordant = (difference != 0).mean()
    expected = np.sqrt((discordant - difference.mean() ** 2) / 499)  # McNemar's
    found = paired_sampling_error({"a": first[:1], "b": first[1:2]}, {"a": 1.0, "b": -1.0})
    assert found == pytest.approx(expected)


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(ValueError, match="results of a must be finite"):
        pooled({"a": [1.0, float("nan")]})
    with pytest.raises(KeyError, match="no results of b"):
        contrast(pooled({"a": [1.0]}), {"a": 1.0, "b": -1.0})
    assert interval(pooled(RUNS), "a").estimate == pytest.approx(np.mean(RUNS["a"]))


def test_a_seed_as_a_block_is_the_paired_test_of_two_arms_and_least_squares_of_more():
    rng = np.random.default_rng(4)
    shared = rng.normal(size=5)
    values = {arm: {seed: float(shared[seed] + rng.normal()) for seed in range(5)} for arm in "ab"}
    found = blocked(values, {"a": 1.0, "b": -1.0})
    first, second = (list(values[arm].values()) for arm in "ab")
    paired = stats.ttest_rel(first, second)
    assert found.estimate == pytest.approx(np.mean(first) - np.mean(second))
    assert (found.p, found.degrees) == (pytest.approx(paired.pvalue), 4)
    low, high = paired.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    # An arm of the first two seeds: what the seeds share is no difference between arms.
    level = {arm: {seed: 10.0 * seed + i for seed in range(n)} for i, (arm, n) in enumerate((("a", 5), ("b", 2)))}
    assert blocked(level, {"a": 1.0, "b": -1.0}).estimate == pytest.approx(-1.0)
    alone = blocked({"a": {0: 1.0}, "b": {0: 3.0}}, {"a": 1.0, "b": -1.0})
    assert (alone.estimate, alone.low, alone.degrees) == (pytest.approx(-2.0), -np.inf, 0)


def test_an_arm_of_one_seed_borrows_no_interval_from_the_others():
    """The pooled error is known, from other arms; a contrast with an arm that ran once has none all the same."""
    found = pooled({**RUNS, "once": [2.0]})
    assert found.degrees > 0
    assert np.isfinite(contrast(found, {"a": 1.0}).low)
    alone = contrast(found, {"once": 1.0, "a": -1.0})
    assert alone.estimate == pytest.approx(2.0 - np.mean(RUNS["a"]))
    assert (alone.low, alone.high) == (-np.inf, np.inf)
    assert np.isnan(alone.p)
    assert verdict(alone, 100.0, alone.p) == "one seed"
