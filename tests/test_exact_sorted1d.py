"""Sorted 1-D bounded confidence: equal to the reference, exact to rounding, symmetric, ordered, merging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import krause_dynamics as kd
from krause_dynamics.forms.near.ball import effective_radius
from krause_dynamics.forms.near.line import SortedLine, symmetry
from tests.exact_fractions import window_mean
from tests.strategies import clouds

radii = st.integers(1, 40).map(lambda k: k / 8)  # met exactly by the grid of `clouds`: ties are part of the test


@given(clouds(d=1), radii, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_equals_the_reference(x, radius, closed, others, seed):
    rng = np.random.default_rng(seed)
    rule = kd.bounded_confidence(radius, kd.Others() if others else None, closed=closed)
    log_mass = np.log(rng.random(len(x)) + 0.01)
    log_mass[rng.random(len(x)) < 0.2] = -np.inf
    values = rng.normal(size=(len(x), 3))
    fast = kd.aggregate(rule, x, None, values, log_mass=log_mass, impl="sorted1d")
    slow = kd.aggregate(rule, x, None, values, log_mass=log_mass, impl="reference")
    # Both are sums of at most 12 numbers of size 1: a dozen roundings.
    np.testing.assert_allclose(fast.mean, slow.mean, rtol=0, atol=2e-15 * (1 + np.abs(values).max()))
    np.testing.assert_allclose(fast.log_partition, slow.log_partition, rtol=0, atol=5e-15)


def test_equals_the_reference_for_queries_batches_and_radii(rng):
    queries, sources = rng.random((2, 7, 1)), rng.random((2, 9, 1))
    radius = rng.random((2, 7)) * 0.4 + 0.01
    rule = kd.bounded_confidence(radius)
    fast = kd.aggregate(rule, queries, sources, impl="sorted1d")
    slow = kd.aggregate(rule, queries, sources, impl="reference")
    np.testing.assert_allclose(fast.mean, slow.mean, rtol=0, atol=2e-15)
    np.testing.assert_allclose(fast.log_partition, slow.log_partition, rtol=0, atol=5e-15)
    assert (slow.log_partition == -np.inf).any()  # rows that hear nobody are among them


def test_padding_may_hold_anything(rng):
    x = rng.random((6, 1))
    padded = np.concatenate([x, [[np.nan]]])
    log_mass = np.append(np.zeros(6), -np.inf)
    result = kd.aggregate(kd.bounded_confidence(0.3), x, padded, log_mass=log_mass, impl="sorted1d")
    expected = kd.aggregate(kd.bounded_confidence(0.3), x, impl="reference")
    np.testing.assert_allclose(result.mean, expected.mean, rtol=0, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e9])
def test_mean_is_exact_to_the_last_bits(rng, offset):
    # A range of 1 beside an offset: naive prefix sums of 2000 numbers near 1e9 lose six digits of the range.
    x = np.sort(offset + rng.random(2000))
    radius = 0.05
    line = SortedLine(x, radius, 0.0)
    line.advance(1)
    sample = slice(0, None, 97)
    expected = np.array([window_mean(x, i, radius) for i in range(0, len(x), 97)])
    spacing = np.spacing(np.abs(expected).max())
    assert np.abs(line.positions[sample] - expected).max() <= spacing
    if offset == 0.0:
        assert np.abs(line.positions[sample] - expected).max() <= 1e-13


def test_weighted_mean_is_exact_to_the_last_bits(rng):
    from fractions import Fraction

    x, masses = np.sort(rng.random(300)), np.exp(rng.normal(scale=6, size=300))  # masses over eleven decades
    line = SortedLine(x, 0.1, 0.0, masses=masses)
    line.advance(1)
    for i in range(0, 300, 37):
        heard = np.abs(x - x[i]) <= 0.1
        weights = [Fraction(float(m)) for m in masses[heard]]
        total = sum(w * Fraction(float(a)) for w, a in zip(weights, x[heard], strict=True))
        assert abs(line.positions[i] - float(total / sum(weights))) <= np.spacing(1.0)


@pytest.mark.parametrize("closed", [True, False])
def test_steps_equal_repeated_aggregate(rng, closed):
    x, radius = rng.random((60, 1)), 0.13
    rule = kd.bounded_confidence(radius, closed=closed)
    line = SortedLine(x[:, 0], float(effective_radius(rule.find(kd.Within)[0])), 1e-12)
    for _ in range(30):
        x = kd.aggregate(rule, x, impl="reference").mean
        line.advance(1)
        # Errors of the dense sums (60 terms) pass through at most 30 averages.
        np.testing.assert_allclose(line.positions, x[:, 0], rtol=0, atol=1e-13)
    assert line.frozen


def test_advance_in_pieces_equals_advance_at_once(rng):
    x = rng.random(500)
    pieces, whole = SortedLine(x, 0.07, 1e-12), SortedLine(x, 0.07, 1e-12)
    while not pieces.frozen:
        pieces.advance(2)
    whole.advance(10_000)
    assert pieces.steps == whole.steps
    np.testing.assert_array_equal(pieces.positions, whole.positions)


def test_equal_opinions_merge_and_stay_equal(rng):
    x = np.repeat(rng.random(50), 4)
    rng.shuffle(x)
    line = SortedLine(x, 0.1, 1e-12)
    assert len(line.atoms) == 50
    assert set(line.masses) == {4.0}
    line.advance(3)
    for value in np.unique(x):
        assert len(set(line.positions[x == value])) == 1
    line.advance(1000)
    assert line.frozen
    assert len(line.atoms) < 10
    assert line.masses.sum() == 200.0
    np.testing.assert_array_equal(line.atoms[line.owner], line.positions)


@pytest.mark.parametrize(
    "start",
    [np.linspace(0, 1, 101), np.linspace(0, 1, 1000), np.linspace(-3, 7, 501), np.linspace(1e3, 1e3 + 1, 301)],
    ids=["odd", "even", "shifted", "offset"],
)
@pytest.mark.parametrize("radius", [0.15, 0.2, 0.1234])  # the first two meet lattice distances up to rounding
def test_symmetric_starts_stay_symmetric(start, radius):
    line = SortedLine(start, radius, 0.0)
    extent = np.ptp(start)
    bound = 1e-15 * extent if abs(start).max() <= extent else np.spacing(abs(start).max())
    while not line.frozen:
        line.advance(1)
        x = line.positions
        assert np.abs(x + x[::-1] - (start[0] + start[-1])).max() <= bound


def test_asymmetric_starts_are_not_reflected(rng):
    x = np.linspace(0, 1, 101)
    x[3] += 1e-12  # far above the rounding of the positions
    assert not SortedLine(x, 0.2, 0.0).mirrored
    assert not SortedLine(np.linspace(0, 1, 5), 0.2, 0.0, masses=np.arange(1.0, 6.0)).mirrored


@given(clouds(d=1, max_n=30), radii)
def test_order_hull_and_gaps(x, radius):
    x = np.sort(x[:, 0])
    line = SortedLine(x, radius, 0.0)
    while not line.frozen:
        line.advance(1)
        new = line.positions
        assert (np.diff(new) >= 0).all()
        assert new[0] >= x[0]
        assert new[-1] <= x[-1]
        assert (np.diff(new)[np.diff(x) > radius] > radius).all()  # who does not hear each other never will
        x = new
    assert (np.diff(line.atoms) > radius).all()


def test_reasons_for_refusal(rng):
    x = rng.random((5, 1))
    flat = kd.bounded_confidence(0.2)
    assert "one dimension" in kd.supported(flat, rng.random((5, 2)))["sorted1d"]
    assert "Flat" in kd.supported(kd.krause(1.0, kd.Within(0.2)), x)["sorted1d"]
    assert "Within" in kd.supported(kd.bounded_confidence(0.2, kd.Causal()), x)["sorted1d"]
    assert "float64" in kd.supported(flat, x.astype(np.float32))["sorted1d"]
    with pytest.raises(kd.UnsupportedImplementation, match="one dimension"):
        kd.aggregate(flat, rng.random((5, 2)), impl="sorted1d")


@pytest.mark.parametrize("shape", [(80, 1), (3, 40, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_simulate_runs_the_classical_model_through_the_plan(rng, shape, weighted):
    x, dynamics = rng.random(shape), kd.Dynamics(kd.bounded_confidence(0.15))
    log_mass = np.log(rng.random(shape[:-1])) if weighted else None
    runs = [
        kd.simulate(dynamics, x, 6.0, dt=1.0, integrator=kd.Euler(), save_every=2, log_mass=log_mass, impl=impl)
        for impl in ("sorted1d", "reference")
    ]
    assert runs[0].meta["impl"] == "sorted1d"
    np.testing.assert_allclose(runs[0].positions, runs[1].positions, rtol=0, atol=1e-13)


def test_the_centre_of_symmetry_is_the_median_of_the_mirrored_sums(rng):
    """Of 150 pairs 67 are a rounding or two too low and 69 too high; the few in the middle are exact."""
    rounding = np.spacing(149.5)
    for _ in range(20):
        position, pairs = np.arange(300.0) - 149.5, rng.permutation(150)
        position[pairs[:67]] -= rounding * rng.integers(1, 3, 67)
        position[pairs[-69:]] += rounding * rng.integers(1, 3, 69)
        assert symmetry(position, np.ones(300)) == (True, 0.0)


def test_radii_of_runs_that_share_queries(rng):
    """Radii (2, 1, n) meet queries (1, 3, n): each run by itself gives the same."""
    queries, radius = rng.random((1, 3, 5, 1)), rng.random((2, 1, 5)) * 0.4 + 0.1
    fast = kd.aggregate(kd.bounded_confidence(radius), queries, queries, impl="sorted1d")
    for a in range(2):
        for b in range(3):
            alone = kd.aggregate(kd.bounded_confidence(radius[a, 0]), queries[0, b], impl="reference")
            np.testing.assert_allclose(fast.mean[a, b], alone.mean, rtol=0, atol=2e-15)


@pytest.mark.parametrize("pair", [slice(None), slice(None, None, -1)])
def test_a_pair_at_one_end_alone_is_not_symmetric(pair):
    """Two opinions that are equal at one end only: mirrored up to rounding, but another number of distinct ones."""
    position = np.array([-1.0 - 2**-52, -1.0, 1.0, 1.0])
    position = np.sort(-position) if pair.step else position
    assert not symmetry(position, np.ones(4))[0]
    assert symmetry(np.array([-1.0, -1.0, 1.0, 1.0]), np.ones(4))[0]
