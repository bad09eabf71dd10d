"""The dense reference against triple loops, numpy against torch, blocks against the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import krause_dynamics as kd
from tests import oracle, strategies

ROUNDING = 1e-12  # sums of at most a dozen terms of size < 10 in float64

INDEX_RULES = {
    "everyone": (kd.Everyone(), lambda i, j: True),
    "others": (kd.Others(), lambda i, j: i != j),
    "causal": (kd.Causal(), lambda i, j: j <= i),
    "window 3": (kd.Window(3), lambda i, j: i - 2 <= j <= i),
    "window 1": (kd.Window(1), lambda i, j: i == j),
    "window 5 both": (kd.Window(5, two_sided=True), lambda i, j: abs(i - j) <= 2),
    "ring of 12, 5 both": (
        kd.Window(5, two_sided=True, periodic=True),
        lambda i, j: min((i - j) % 12, (j - i) % 12) <= 2,
    ),
    "ring of 12, past 3": (kd.Window(3, periodic=True), lambda i, j: (i - j) % 12 <= 2),
    "grid 3x4": (
        kd.Grid(3, 4, radius=1),
        lambda i, j: max(abs(i // 4 - j // 4), abs(i % 4 - j % 4)) <= 1,
    ),
    "grid 4x3 cross": (
        kd.Grid(4, 3, metric="manhattan"),
        lambda i, j: abs(i // 3 - j // 3) + abs(i % 3 - j % 3) <= 1,
    ),
    "CLS and grid 11x1": (
        kd.Grid(11, 1, radius=2, prefix=1),
        lambda i, j: i == 0 or j == 0 or abs(i - j) <= 2,
    ),
}
INDEX_RULES["packed 5, 0, 4, 3"] = (
    kd.Segments(np.array([0, 5, 5, 9, 12])),
    lambda i, j: (i < 5) == (j < 5) and (i < 9) == (j < 9),
)
SCORES = {
    "dot": (kd.DotProduct(1.3), oracle.dot(1.3)),
    "gaussian": (kd.Gaussian(0.7), oracle.gaussian(0.7)),
    "flat": (kd.Flat(), oracle.flat),
    "radial": (kd.Radial(lambda r: (1 + r * r) ** -0.5), lambda x, y: -0.5 * np.log1p(oracle.distance(x, y) ** 2)),
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("neighbourhood", INDEX_RULES)
@pytest.mark.parametrize("ranking", [None, "index", "keep"])
def test_reference_equals_loops(score, neighbourhood, ranking, library, rng):
    x = rng.integers(-3, 4, (12, 2)) / 2  # coarse, so that scores tie
    v, log_mass = rng.normal(size=(12, 3)), np.log(rng.uniform(0.1, 2.0, 12))
    log_mass[4] = -np.inf
    ours, admits = INDEX_RULES[neighbourhood]
    rule = kd.Interaction(SCORES[score][0], ours if ranking is None else ours & kd.TopK(3, ties=ranking))
    got = kd.aggregate(rule, library(x), values=library(v), log_mass=library(log_mass))
    mean, log_z, weights = oracle.aggregate(
        SCORES[score][1],
        lambda i, j, *_: admits(i, j),
        x,
        x,
        v,
        log_mass,
        top_k=None if ranking is None else 3,
        ties=ranking or "index",
    )
    np.testing.assert_allclose(got.mean, mean, atol=ROUNDING)
    np.testing.assert_allclose(got.log_partition, log_z, atol=ROUNDING)
    np.testing.assert_allclose(kd.weights(rule, library(x), log_mass=library(log_mass)), weights, atol=ROUNDING)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("d", [1, 3])
def test_ball_is_decided_on_direct_differences(closed, d, library, rng):
    x = rng.integers(0, 4, (12, d)) + 1e6  # the expanded form would lose all digits of these unit gaps
    rule = kd.Interaction(kd.Flat(), kd.Within(1.0, closed=closed))

    def admits(i, j, a, b):
        return oracle.distance(a, b) <= 1.0 if closed else oracle.distance(a, b) < 1.0

    mean, log_z, _ = oracle.aggregate(oracle.flat, admits, x, x, x)
    got = kd.aggregate(rule, library(x.astype(float)))
    np.testing.assert_allclose(got.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(got.log_partition, log_z, atol=1e-15)


@given(rule=strategies.rules, x=strategies.clouds())
def test_torch_blocks_and_indices_agree_with_numpy(rule, x):
    dense = kd.aggregate(rule, x, impl="reference")
    torch_result = kd.aggregate(rule, torch.from_numpy(x), impl="reference")
    np.testing.assert_allclose(torch_result.mean, dense.mean, atol=ROUNDING)
    np.testing.assert_allclose(torch_result.log_partition, dense.log_partition, atol=ROUNDING)
    blocked = kd.aggregate(rule, x, impl="blocked")
    np.testing.assert_allclose(blocked.mean, dense.mean, atol=ROUNDING)
    for i in range(len(x)):  # one query meets a cache
        one = kd.aggregate(rule, x[i : i + 1], x, query_index=np.array([i]), source_index=np.arange(len(x)))
        np.testing.assert_allclose(one.mean[0], dense.mean[i], atol=ROUNDING)


@given(x=strategies.clouds(min_n=3), rule=strategies.rules, data=st.data())
def test_a_ring_cache_in_any_storage_order(x, rule, data):
    order = np.array(data.draw(st.permutations(range(len(x)))))
    dense = kd.aggregate(rule, x)
    cache = kd.aggregate(rule, x, x[order], query_index=np.arange(len(x)), source_index=order)
    np.testing.assert_allclose(cache.mean, dense.mean, atol=ROUNDING)


def test_parameters_per_head_and_per_query(rng):
    x = rng.normal(size=(2, 3, 5, 2))  # batch, heads, tokens, dim
    sigma = np.array([0.5, 1.0, 2.0])[:, None]
    together = kd.aggregate(kd.krause(sigma), x)
    for head in range(3):
        alone = kd.aggregate(kd.krause(float(sigma[head, 0])), x[:, head])
        np.testing.assert_allclose(together.mean[:, head], alone.mean, atol=ROUNDING)
    radius = np.array([0.3, 0.6, 1.0, 1.5, 3.0])
    each = kd.aggregate(kd.bounded_confidence(radius), x[0, 0])
    for i in range(5):
        np.testing.assert_allclose(each.mean[i], kd.aggregate(kd.bounded_confidence(radius[i]), x[0, 0]).mean[i])


def test_pair_bias_follows_indices(rng):
    x, bias = rng.normal(size=(6, 2)), rng.normal(size=(6, 6))
    rule = kd.softmax(1.0, kd.TopK(3), pair_bias=bias)
    mean, log_z, _ = oracle.aggregate(oracle.dot(1.0), lambda *_: True, x, x, x, top_k=3, pair_bias=bias)
    got = kd.aggregate(rule, x)
    np.testing.assert_allclose(got.mean, mean, atol=ROUNDING)
    np.testing.assert_allclose(got.log_partition, log_z, atol=ROUNDING)
    np.testing.assert_allclose(kd.aggregate(rule, x, impl="blocked").mean, mean, atol=ROUNDING)


def test_padding_may_hold_nan(library, rng):
    x = rng.normal(size=(5, 2))
    padded = np.concatenate([x, np.full((2, 2), np.nan)])
    log_mass = np.array([0.0] * 5 + [-np.inf] * 2)
    for rule in (kd.softmax(1.0), kd.krause(0.5), kd.bounded_confidence(1.0)):
        got = kd.aggregate(rule, library(x), library(padded), log_mass=library(log_mass))
        np.testing.assert_allclose(got.mean, kd.aggregate(rule, x).mean, atol=ROUNDING)


def test_empty_rows(library):
    rule = kd.bounded_confidence(0.5, kd.Others())
    x = library(np.array([[0.0], [0.4], [9.0]]))
    got = kd.aggregate(rule, x)
    np.testing.assert_array_equal(np.asarray(got.mean)[:, 0], [0.4, 0.0, 0.0])
    assert np.asarray(got.log_partition)[2] == -np.inf


def test_gradients_pass_empty_rows_and_padding():
    x = torch.tensor([[0.0], [0.4], [9.0]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    rule = kd.krause(sigma, kd.Within(0.5) & kd.Others())
    log_mass = torch.tensor([0.0, -torch.inf, 0.0], dtype=torch.float64)
    kd.aggregate(rule, x, log_mass=log_mass).mean.sum().backward()
    assert x.grad.isfinite().all()
    assert sigma.grad.isfinite()

    def mean(points, bandwidth):
        return kd.aggregate(kd.krause(bandwidth), points).mean

    points = torch.tensor([[0.0, 1.0], [0.4, -0.3], [1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean, (points, sigma))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_accumulate_in_float32(dtype, rng):
    x = torch.from_numpy(rng.normal(size=(40, 8))).to(dtype)
    got, exact = kd.aggregate(kd.krause(1.0), x), kd.aggregate(kd.krause(1.0), x.double())
    assert got.mean.dtype == dtype
    assert got.log_partition.dtype == torch.float32
    # one rounding of the result, of size eps |A|, on top of float32 sums
    assert (got.mean.double() - exact.mean).abs().max() <= torch.finfo(dtype).eps * exact.mean.abs().max()


def test_float32_survives_an_offset(library, rng):
    x = rng.normal(size=(40, 12))
    exact = kd.aggregate(kd.krause(1.0), x).mean
    shifted = (x + 100).astype(np.float32)
    got = np.asarray(kd.aggregate(kd.krause(1.0), library(shifted)).mean) - 100
    assert np.abs(got - exact).max() < 1e-4  # 100 * 2^-24 = 6e-6 in the input itself, a few of them in the scores


def test_lattice_points_tie_exactly_in_many_dimensions(library, rng):
    """With 16 dimensions the distance is expanded; on small integers it must stay exact, so that ties are ties."""
    x = rng.integers(-2, 3, (30, 16)).astype(np.float32) + 3
    exact = ((x[:, None] - x[None]) ** 2).sum(-1)
    rule = kd.krause(1.0, kd.TopK(4, ties="keep"))
    weights = np.asarray(kd.weights(rule, library(x)))
    kept = exact <= np.sort(exact, axis=1)[:, 3:4]
    np.testing.assert_array_equal(weights > 0, kept)


def test_plan_and_supported(rng):
    x = rng.normal(size=(2000, 2))
    plan = kd.plan(kd.softmax(1.0), x)
    assert plan.impl == "blocked"
    np.testing.assert_array_equal(plan(x).mean, kd.aggregate(kd.softmax(1.0), x).mean)
    per_query = kd.krause(np.linspace(0.1, 1.0, 2000))
    assert "per query" in kd.supported(per_query, x)["blocked"]
    with pytest.raises(kd.UnsupportedImplementation, match="per query"):
        kd.aggregate(per_query, x, impl="blocked")
    with pytest.raises(kd.UnsupportedImplementation, match="impl must be"):
        kd.aggregate(per_query, x, impl="magic")
