"""Neighbour search: equal to the reference through cells and tree, whatever the data look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import krause_dynamics as kd
from krause_dynamics.forms.near import fixed_point, tree
from krause_dynamics.forms.near import pencils as cells
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.forms.near.cloud import Cloud
from krause_dynamics.forms.near.search import search
from tests.strategies import clouds

radii = st.integers(1, 40).map(lambda k: k / 8)
scores = [kd.Flat(), kd.Gaussian(0.4), kd.DotProduct(1.5), kd.Radial(lambda r: np.maximum(0.7 - r, 0.0))]


def assert_equal(rule, *arrays, **rest):
    fast = kd.aggregate(rule, *arrays, impl="neighbours", **rest)
    slow = kd.aggregate(rule, *arrays, impl="reference", **rest)
    size = 1 + np.abs(arrays[-1]).max()
    np.testing.assert_allclose(fast.mean, slow.mean, rtol=0, atol=1e-13 * size)
    np.testing.assert_allclose(fast.log_partition, slow.log_partition, rtol=0, atol=1e-13 * size**2)


@given(clouds(max_n=30), radii, st.booleans(), st.booleans(), st.sampled_from(scores), st.integers(0, 2**32 - 1))
def test_equals_the_reference(x, radius, closed, others, score, seed):
    rng = np.random.default_rng(seed)
    neighbourhood = kd.Within(radius, closed=closed)
    rule = kd.Interaction(score, neighbourhood & kd.Others() if others else neighbourhood)
    log_mass = np.log(rng.random(len(x)) + 0.01)
    log_mass[rng.random(len(x)) < 0.2] = -np.inf
    assert_equal(rule, x, x, rng.normal(size=(len(x), 2)), log_mass=log_mass)


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_many_points_queries_elsewhere_and_a_radius_each(rng, d):
    sources, queries = rng.random((700, d)), rng.normal(size=(300, d)) * 0.7 + 0.5
    assert_equal(kd.bounded_confidence(0.15 * d), queries, sources)
    assert_equal(kd.bounded_confidence(rng.random(300) * 0.3 * d + 0.01), queries, sources)


def test_batches_broadcast(rng):
    assert_equal(kd.bounded_confidence(0.3), rng.random((2, 3, 20, 2)), rng.random((3, 15, 2)))


@pytest.mark.parametrize("radius", [1e-9, 0.1, 1e9, np.inf])
def test_far_outliers_and_extreme_radii_overflow_nothing(rng, radius):
    x = rng.random((200, 2))
    x[0], x[1] = 1e150, -1e12
    assert_equal(kd.bounded_confidence(radius), x[1:])
    if radius <= 0.1:
        near = kd.aggregate(kd.bounded_confidence(radius), x[2:], impl="reference").mean
        beside = kd.aggregate(kd.bounded_confidence(radius), x, impl="neighbours").mean
        np.testing.assert_allclose(beside[2:], near, rtol=0, atol=1e-14)
    heard = kd.aggregate(kd.bounded_confidence(min(radius, 1e9)), x, impl="neighbours")
    assert heard.log_partition[0] == 0.0  # the outlier hears itself only
    np.testing.assert_array_equal(heard.mean[0], x[0])


def test_structure_is_chosen_from_the_data(rng):
    ball = Ball(np.array([0.05]), np.array([0.05**2]))
    x = rng.random((2000, 2))
    assert isinstance(search(x, ball).structure, cells.Pencils)
    x[0] = 1e9
    assert isinstance(search(x, ball).structure, tree.Tree)
    assert isinstance(search(rng.random((500, 5)), ball).structure, tree.Tree)


@pytest.mark.parametrize("radius", [1.0, 2.0, 5.0])
def test_lattice_points_on_the_sphere_are_decided_as_integers_are(radius):
    lattice = np.stack(np.meshgrid(*[np.arange(12.0)] * 2), axis=-1).reshape(-1, 2)
    integers = lattice.astype(int)
    square = ((integers[:, None] - integers[None]) ** 2).sum(-1)
    for closed in (True, False):
        count = (square <= radius**2).sum(1) if closed else (square < radius**2).sum(1)
        found = kd.aggregate(kd.bounded_confidence(radius, closed=closed), lattice, impl="neighbours")
        np.testing.assert_allclose(np.exp(found.log_partition), count, rtol=1e-14)


@pytest.mark.parametrize("build", ["cells", "tree"])
def test_who_hears_the_same_gets_the_same_bits(rng, build):
    # Two groups; in each everybody hears all of it, from different cells and leaves.
    x = np.concatenate([rng.random((300, 2)) * 0.5, rng.random((200, 2)) * 0.5 + 5.0])
    if build == "tree":
        x = np.concatenate([x, np.zeros((len(x), 3))], axis=1)
    mean = kd.aggregate(kd.bounded_confidence(1.0), x, impl="neighbours").mean
    assert len(np.unique(mean[:300], axis=0)) == 1
    assert len(np.unique(mean[300:], axis=0)) == 1


def test_integer_sums_keep_every_digit(rng):
    from fractions import Fraction

    values, mass = rng.normal(size=1000) * np.exp(rng.normal(scale=3, size=1000)), rng.random(1000)
    columns, bits, scales = fixed_point.columns(mass, values[None])
    mean, partition = np.empty((1, 1)), np.empty(1)
    fixed_point.means(columns.sum(axis=1)[None], bits, scales, mean, partition)
    weights = [Fraction(float(m)) for m in mass]
    exact = sum(w * Fraction(float(v)) for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert abs(mean[0, 0] - float(exact)) <= np.spacing(float(abs(exact)))
    assert abs(partition[0] - float(sum(weights))) <= np.spacing(1000.0)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_cloud_equals_repeated_aggregate(rng, d):
    x, rule = rng.random((300, d)), kd.bounded_confidence(0.25 * d**0.5)
    ball = Ball.of(rule.find(kd.Within)[0], np.array([0.25 * d**0.5]), d)
    cloud = Cloud(x, ball, 1e-12)
    for _ in range(40):
        x = kd.aggregate(rule, x, impl="reference").mean
        cloud.advance(1)
        # Dense sums of 300 terms err by 3e-14; averaging does not enlarge that.
        np.testing.assert_allclose(cloud.positions, x, rtol=0, atol=2e-13)
    assert cloud.masses.sum() == 300.0


def test_cloud_merges_and_freezes(rng):
    x = np.repeat(rng.random((60, 2)), 3, axis=0)
    cloud = Cloud(x, Ball(np.array([0.3]), np.array([0.09])), 1e-12)
    assert len(cloud.atoms) == 60
    cloud.advance(10_000)
    assert cloud.frozen
    distances = np.linalg.norm(cloud.atoms[:, None] - cloud.atoms[None], axis=-1)
    assert (distances[~np.eye(len(distances), dtype=bool)] > 0.3).all()


def test_reasons_for_refusal(rng):
    x = rng.random((5, 2))
    assert "Within" in kd.supported(kd.krause(1.0), x)["neighbours"]
    assert "scalar" in kd.supported(kd.krause(np.ones(5), kd.Within(1.0)), x)["neighbours"]
    with pytest.raises(kd.UnsupportedImplementation, match="Within"):
        kd.aggregate(kd.krause(1.0), x, impl="neighbours")


def test_queries_beyond_every_corner_have_a_cell(monkeypatch):
    """Counted without compilation, which alone would notice a write past the last cell."""
    monkeypatch.setattr(cells, "_count", cells._count.py_func)
    points = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    pencils = cells.build(points, 1.0)
    corners = 100 * np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), -1).reshape(-1, 3)
    order, keys = cells.sort_queries(pencils, corners)
    assert sorted(order) == list(range(8))
    assert keys[0] == 0
    assert keys[-1] == pencils.starts.size - 2
