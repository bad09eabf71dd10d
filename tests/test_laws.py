"""Laws that hold for whole families of rules; each test says which rules it covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ortho_group

import krause_dynamics as kd
from tests import strategies

ROUNDING = 1e-11


@given(rule=strategies.rules, x=strategies.clouds())
def test_rows_sum_to_one_or_are_empty(rule, x):
    weights, log_z = kd.weights(rule, x), kd.aggregate(rule, x).log_partition
    np.testing.assert_allclose(weights.sum(-1), (log_z > -np.inf).astype(float), atol=ROUNDING)
    assert (weights >= 0).all()


@given(rule=strategies.exchangeable_rules, x=strategies.clouds(min_n=2), data=st.data())
def test_permutation_equivariance(rule, x, data):
    order = np.array(data.draw(st.permutations(range(len(x)))))
    here, there = kd.aggregate(rule, x), kd.aggregate(rule, x[order])
    np.testing.assert_allclose(there.mean, here.mean[order], atol=ROUNDING)
    np.testing.assert_allclose(there.log_partition, here.log_partition[order], atol=ROUNDING)


@given(score=strategies.scores, x=strategies.clouds(min_n=2), k=st.integers(1, 4), data=st.data())
def test_top_k_that_keeps_ties_is_equivariant_too(score, x, k, data):
    rule = kd.Interaction(score, kd.TopK(k, ties="keep"))
    order = np.array(data.draw(st.permutations(range(len(x)))))
    np.testing.assert_allclose(kd.aggregate(rule, x[order]).mean, kd.aggregate(rule, x).mean[order], atol=ROUNDING)


@given(score=strategies.scores, x=strategies.clouds(min_n=2, d=3), seed=st.integers(0, 99))
def test_rotation_equivariance(score, x, seed):
    rotation = ortho_group.rvs(3, random_state=seed)
    rule = kd.Interaction(score)
    np.testing.assert_allclose(
        kd.aggregate(rule, x @ rotation).mean, kd.aggregate(rule, x).mean @ rotation, atol=ROUNDING
    )


@given(
    score=strategies.translation_invariant_scores,
    neighbourhood=strategies.neighbourhoods,
    x=strategies.clouds(),
    shift=st.integers(-64, 64),
)
def test_translation_equivariance_of_gaussian_and_within(score, neighbourhood, x, shift):
    rule = kd.Interaction(score, neighbourhood)  # the shift is a whole number: gaps, and so ties, stay exact
    moved, here = kd.aggregate(rule, x + shift), kd.aggregate(rule, x)
    there = np.where((here.log_partition > -np.inf)[:, None], here.mean + shift, 0.0)
    np.testing.assert_allclose(moved.mean, there, atol=ROUNDING)
    np.testing.assert_allclose(moved.log_partition, here.log_partition, atol=ROUNDING)


@given(rule=strategies.exchangeable_rules, x=strategies.clouds(min_n=2))
def test_two_particles_at_one_point_are_one_of_double_mass(rule, x):
    twice = np.concatenate([x, x[:1]])
    log_mass = np.zeros(len(x))
    log_mass[0] = np.log(2)
    apart, merged = kd.aggregate(rule, x, twice), kd.aggregate(rule, x, log_mass=log_mass)
    np.testing.assert_allclose(merged.mean, apart.mean, atol=ROUNDING)
    np.testing.assert_allclose(merged.log_partition, apart.log_partition, atol=ROUNDING)


@given(rule=strategies.rules, point=strategies.clouds(min_n=1, max_n=1), n=st.integers(1, 8))
def test_consensus_is_fixed(rule, point, n):
    x = np.repeat(point, n, axis=0)
    drift = kd.Dynamics(rule).drift(0.0, x)
    np.testing.assert_allclose(drift, 0, atol=ROUNDING)


@given(
    rule=st.builds(kd.Interaction, strategies.scores, strategies.neighbourhoods),
    x=strategies.clouds(),
    dt=st.floats(0.05, 1.0),
)
def test_extent_never_grows(rule, x, dt):
    """Row-normalised relative drift with dt <= 1: every new position is a convex combination of old ones."""
    moved = kd.Euler().step(kd.Dynamics(rule), 0.0, x, dt)
    assert (moved.max(axis=0) <= x.max(axis=0) + ROUNDING).all()
    assert (moved.min(axis=0) >= x.min(axis=0) - ROUNDING).all()


@given(
    score=st.one_of(
        st.builds(kd.DotProduct, st.floats(0, 4)), st.builds(kd.Gaussian, strategies.positive), st.just(kd.Flat())
    ),
    radius=strategies.positive,
    x=strategies.clouds(d=1),
    dt=st.floats(0.05, 1.0),
)
def test_order_of_opinions_is_kept(score, radius, x, dt):
    """One dimension, one radius, beta >= 0, row-normalised (log-concave affinities)."""
    if isinstance(score, kd.DotProduct):
        assume(radius > np.ptp(x))  # truncation and exp(beta x y) together may swap neighbours
    moved = kd.Euler().step(kd.Dynamics(kd.Interaction(score, kd.Within(radius))), 0.0, x, dt)
    assert (np.diff(moved[np.argsort(x[:, 0], kind="stable"), 0]) >= -ROUNDING).all()


@given(sigma=st.floats(0.3, 2.0), seed=st.integers(0, 999), d=st.integers(2, 5))
def test_on_the_sphere_gaussian_and_dot_product_have_one_mean(sigma, seed, d):
    """Fact 1 of the architecture; unnormalised they differ by the factor exp(-beta)."""
    x = kd.Sphere().sample(9, d, rng=seed)
    gaussian, dot = kd.aggregate(kd.krause(sigma), x), kd.aggregate(kd.softmax(sigma**-2), x)
    np.testing.assert_allclose(gaussian.mean, dot.mean, atol=ROUNDING)
    np.testing.assert_allclose(gaussian.log_partition, dot.log_partition - sigma**-2, atol=ROUNDING)


@given(x=strategies.clouds(), sigma=st.floats(0.2, 2.0), neighbourhood=strategies.by_index)
def test_gaussian_is_a_dot_product_with_a_key_bias(x, sigma, neighbourhood):
    """-|q-k|^2/2s^2 <-> q.k/s^2 - |k|^2/2s^2 on any fixed support (THEORY section 7)."""
    log_mass = -0.5 * (x * x).sum(-1) / sigma**2
    biased = kd.aggregate(kd.softmax(sigma**-2, neighbourhood), x, log_mass=log_mass)
    gaussian = kd.aggregate(kd.krause(sigma, neighbourhood), x)
    np.testing.assert_allclose(gaussian.mean, biased.mean, atol=1e-9)  # exponents reach 100: 100 eps times weights


@pytest.mark.parametrize("rule", [kd.krause(1e9), kd.krause(np.inf), kd.bounded_confidence(np.inf), kd.softmax(0.0)])
def test_unbounded_rules_give_the_plain_mean(rule, rng, library):
    x = rng.normal(size=(7, 3))
    got = kd.aggregate(rule, library(x)).mean
    np.testing.assert_allclose(got, np.broadcast_to(x.mean(0), (7, 3)), atol=1e-14)


@given(x=strategies.clouds(), radius=strategies.positive, score=strategies.scores)
def test_truncated_clusters_do_not_interact(x, radius, score):
    """Clusters further apart than the radius evolve independently (THEORY section 8), to the last digit."""
    far = np.concatenate([x, x + 100.0])
    rule = kd.Interaction(score, kd.Within(radius))
    np.testing.assert_allclose(kd.aggregate(rule, far).mean[: len(x)], kd.aggregate(rule, x).mean, atol=1e-13)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_reach_of_a_gaussian_is_where_it_vanishes_beside_one(sigma):
    rule = kd.krause(sigma)

    def affinity(distance):
        return float(np.exp(rule.score(np, np.zeros((1, 1)), np.full((1, 1), distance)))[0, 0])

    assert 1.0 + affinity(rule.reach) == 1.0
    assert 1.0 + affinity(0.98 * rule.reach) > 1.0  # 8.57 sigma would do
    assert kd.krause(np.array([sigma / 2, sigma])).reach == rule.reach
