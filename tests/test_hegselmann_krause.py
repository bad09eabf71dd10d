"""The classical Hegselmann-Krause model against THEORY: lattices, dumbbells, stability, energy, thresholds, flows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import krause_dynamics as kd
from tests import exact_fractions


def freezing_time(n: int) -> int:
    """T(6k + r) = 5k + (1, 1, 1, 2, 5, 6)[r] for n equally spaced agents at the radius (Hegarty & Wedin 1406.0819)."""
    return 5 * (n // 6) + (1, 1, 1, 2, 5, 6)[n % 6]


@pytest.mark.parametrize("n", range(2, 42, 3))
def test_lattice_states_equal_rational_arithmetic(n):
    states, steps = exact_fractions.run(list(range(n)))
    run = kd.hegselmann_krause(np.arange(n), radius=1.0)
    assert run.steps == steps == freezing_time(n)
    exact = np.array([[float(a) for a in state] for state in states])
    # A mean is rounded once per step, and averaging never enlarges earlier roundings: 41 steps of 2^-53 of the range.
    assert np.abs(run.positions[:, :, 0] - exact).max() <= 41 * np.finfo(float).eps * (n - 1)


def test_freezing_time_is_exact_for_every_size_below_200():
    for n in range(2, 200):
        run = kd.hegselmann_krause(np.arange(n), radius=1.0, save_every=1000)
        assert run.steps == freezing_time(n), n
        assert run.meta["stopped"] == "frozen"


@pytest.mark.parametrize("n", [36, 41, 63, 64])
def test_triples_leave_both_ends_every_five_steps(n):
    run = kd.hegselmann_krause(np.arange(n), radius=1.0)
    middle = [] if n % 6 == 0 else [n % 6]
    assert run.meta["clusters"]["sizes"] == [3] * (n // 6) + middle + [3] * (n // 6)
    groups = [1 + int((np.diff(np.sort(x[:, 0])) > 1).sum()) for x in run.positions]
    for k in range(1, n // 6):
        assert groups[5 * k - 1] == 2 * k - 1
        assert groups[5 * k] == 2 * k + 1
    if n == 36:
        assert [t for t in range(1, len(groups)) if groups[t] > groups[t - 1]] == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("offset", [100, -7])
def test_freezing_time_elsewhere_and_at_other_scales(offset):
    for n in (7, 36, 64, 101):
        assert kd.hegselmann_krause(np.arange(n) + offset, radius=1.0).steps == freezing_time(n)
        assert kd.hegselmann_krause((np.arange(n) + offset) / 4, radius=0.25).steps == freezing_time(n)


def exact_dumbbell(n):
    positions = [Fraction(-1, n), *map(Fraction, range(n + 1)), n + Fraction(1, n)]
    return exact_fractions.freezing_time(positions, [n] + [1] * (n + 1) + [n])


@pytest.mark.parametrize(("n", "time"), [(2, 8), (3, 9), (4, 12), (7, 28), (11, 52), (12, 60)])
def test_dumbbell_freezing_times(n, time):
    # At n = 7, 11, 12 an agent returns to exactly 0 though its neighbours at -1/n are rounded: the mean must be exact.
    assert exact_dumbbell(n) == time
    assert kd.hegselmann_krause(kd.initial.dumbbell(n), radius=1.0).steps == time


@pytest.mark.slow
def test_larger_dumbbells_freeze_in_quadratic_time():
    for n in range(13, 31):
        assert kd.hegselmann_krause(kd.initial.dumbbell(n), radius=1.0).steps == exact_dumbbell(n)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (3.0, 2.0), (1.0, 4.0)])
def test_two_weighted_clusters_are_stable_beyond_the_bound_of_blondel(a, b):
    # A newcomer of vanishing weight between the clusters moves to their mean; there it hears both, and slowly joins
    # them, unless d > 1 + min/max. Its own weight 1e-4 moves the threshold by as much.
    bound = 1 + min(a, b) / max(a, b)
    for distance, clusters in ((bound + 1e-3, 2), (bound - 1e-3, 1)):
        newcomer = distance / 2 if distance < 2 else 0.5  # hears both where that is possible
        run = kd.hegselmann_krause(
            [0.0, newcomer, distance], 1.0, weights=[a, 1e-4, b], max_steps=10**6, save_every=10**6
        )
        assert run.meta["stopped"] == "frozen"
        assert len(run.meta["clusters"]["masses"]) == clusters


def hk_energy(x, radius):
    square = ((x[:, None] - x[None]) ** 2).sum(-1)
    return np.minimum(square, radius**2).sum()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_energy_falls_by_at_least_four_squared_moves(rng, d):
    radius = 0.2 * d**0.5
    run = kd.hegselmann_krause(rng.random((150, d)), radius)
    identities = 0
    for x, new in zip(run.positions[:-1], run.positions[1:], strict=True):
        fall, move = hk_energy(x, radius) - hk_energy(new, radius), new - x
        assert fall >= 4 * (move**2).sum() - 1e-9
        linked = [((y[:, None] - y[None]) ** 2).sum(-1) <= radius**2 for y in (x, new)]
        if (linked[0] == linked[1]).all():
            both = ((move[:, None] + move[None]) ** 2).sum(-1)
            assert fall == pytest.approx((linked[0] * both).sum(), abs=1e-9)
            identities += 1
    assert identities > 0


def test_edge_jumps_by_half_a_radius_and_leaves_density_two():
    n, radius = 40_001, 1.0  # density 1 up to the scale: 4000 agents per radius
    start = np.linspace(0, 10, n)
    run = kd.hegselmann_krause(start, radius * (1 + 1e-9), max_steps=1)  # the factor keeps lattice pairs off the radius
    x, spacing = run.final[:, 0], start[1]
    assert x[0] == pytest.approx(radius / 2, abs=spacing)

    def density(low, high):
        return ((x > low) & (x < high)).sum() * spacing / (high - low)

    assert density(0.55, 0.95) == pytest.approx(2.0, abs=0.02)
    assert density(1.05, 1.95) == pytest.approx(1.0, abs=0.02)


def test_edge_speed_per_capita():
    n, length, radius = 20_001, 10.0, 1.0
    x = np.linspace(0, length, n)[:, None]
    drift = kd.Dynamics(kd.bounded_confidence(radius, normalised=False)).drift(0.0, x)
    assert length * drift[0, 0] == pytest.approx(radius**2 / 2, abs=0.02 * radius**2 / 2)


def test_random_batches_equal_single_runs(rng):
    samples, radii = rng.random((4, 200)), np.array([0.03, 0.1, 0.22])
    batch = kd.hegselmann_krause_batch(samples, radii)
    for r, radius in enumerate(radii):
        for k, sample in enumerate(samples):
            run = kd.hegselmann_krause(sample, radius)
            assert batch.steps[r, k] == run.steps
            assert batch.clusters[r, k] == len(run.meta["clusters"]["masses"])
            assert batch.largest[r, k] == max(run.meta["clusters"]["masses"])
    assert batch.frozen.all()
    assert batch.mean_largest.shape == batch.consensus.shape == (3,)
    assert batch.to_xarray().sizes == {"radius": 3, "sample": 4}


@pytest.mark.slow
def test_random_uniform_starts_reach_consensus_half_of_the_time_at_0_2125():
    samples = np.random.default_rng(1).random((4000, 1000))
    radii = np.linspace(0.2065, 0.2185, 5)
    consensus = kd.hegselmann_krause_batch(samples, radii).consensus
    crossing = np.interp(0.5, consensus, radii)
    error = 2 * 0.5 / np.sqrt(4000) / np.gradient(consensus, radii)[2]  # two standard errors of the share
    assert abs(crossing - 0.2125) < 0.003 + error


def test_equally_spaced_thresholds():
    def clusters(n, length):
        return len(kd.hegselmann_krause(np.linspace(0, length, n), 1.0, save_every=10**6).meta["clusters"]["masses"])

    # Odd n: consensus below L1 = 5.23, three clusters above.
    assert clusters(10_001, 5.2203) == 1
    assert clusters(10_001, 5.2403) == 3
    # Even n: two clusters around 4.6 at n = 100, with consensus re-entering in between.
    lengths = np.arange(4.0, 5.0, 0.00731)
    found = kd.hegselmann_krause_batch(np.linspace(0, 1, 100), 1 / lengths).clusters[:, 0]
    assert set(found) == {1, 2}
    assert lengths[found == 2].min() < 4.6 < lengths[found == 1].max()
    # Where even and odd part is no matter of rounding: the same in rational arithmetic.
    exact, steps = exact_fractions.run([Fraction(44133 * i, 10000 * 99) for i in range(100)])
    assert steps == 6
    assert len(set(exact[-1])) == clusters(100, 4.4133) == 2


@pytest.mark.parametrize(("length", "count"), [(3, 1), (7.5, 3), (8, 3), (12, 5), (16, 7)])
def test_number_of_clusters_of_a_uniform_density(length, count):
    # Odd and many agents stand for the density; the excess keeps lattice distances off the radius.
    run = kd.hegselmann_krause(np.linspace(0, length + 1e-7, 10_001), 1.0)
    assert len(run.meta["clusters"]["masses"]) == count


def test_spacing_behind_the_front_is_near_two_and_a_fifth_radii():
    run = kd.hegselmann_krause(np.linspace(0, 100 + 1e-7, 100_001), 1.0, save_every=10**6)
    gaps = np.diff(np.array(run.meta["clusters"]["positions"])[:, 0])
    behind = gaps[3 : len(gaps) // 2 - 2]  # past the edge clusters, before the fronts meet
    # The selected wavelength is 2.18256 for a density; finitely many agents give 2.20 to 2.31 (Blondel et al.: 2.2).
    assert 2.18256 < behind.mean() < 2.31


def test_rotations_and_shifts_of_the_plane_change_nothing(rng):
    x = rng.random((200, 2))
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    plain, moved = kd.hegselmann_krause(x, 0.3), kd.hegselmann_krause(x @ rotation.T + 3.0, 0.3)
    assert plain.steps == moved.steps
    np.testing.assert_allclose(moved.final, plain.final @ rotation.T + 3.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_plans_equal_the_reference_implementation(rng, d):
    x, weights, radius = rng.random((120, d)), rng.random(120) + 0.1, 0.22 * d**0.5
    fast = kd.hegselmann_krause(x, radius, weights=weights)
    slow = kd.hegselmann_krause(x, radius, weights=weights, impl="reference")
    assert fast.steps == slow.steps
    np.testing.assert_allclose(fast.positions, slow.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.meta["clusters"]["masses"], slow.meta["clusters"]["masses"], atol=1e-12)


class TestFlow:
    """Continuous time, through `kd.simulate`."""

    def test_per_capita_conserves_the_mean_and_dissipates_variance(self, rng):
        x = rng.random((80, 2))
        radius = 0.4
        rule = kd.bounded_confidence(radius, normalised=False)
        run = kd.hegselmann_krause_flow(x, radius, 4.0, normalised=False, dt=0.02)
        np.testing.assert_allclose(run.positions.mean(axis=1), np.tile(x.mean(axis=0), (len(run), 1)), atol=1e-12)
        drift = kd.Dynamics(rule).drift(0.0, x)
        variance_rate = 2 * ((x - x.mean(axis=0)) * drift).sum() / len(x)
        square = ((x[:, None] - x[None]) ** 2).sum(-1)
        assert variance_rate == pytest.approx(-(square * (square <= radius**2)).sum() / len(x) ** 2, rel=1e-12)

    @pytest.mark.parametrize("normalised", [True, False])
    def test_full_range_contracts_the_variance_by_exp_minus_2t(self, rng, normalised):
        x = rng.random((50, 1))
        run = kd.hegselmann_krause_flow(x, 2.0, 3.0, normalised=normalised, dt=0.05)
        variance = run.positions.var(axis=1)[:, 0]
        np.testing.assert_allclose(variance, variance[0] * np.exp(-2 * run.times), rtol=1e-6)  # RK4 at dt = 0.05

    def test_normalised_flow_does_not_conserve_the_mean(self):
        x = np.random.default_rng(8).random((60, 2))
        run = kd.hegselmann_krause_flow(x, 0.3, 3.0)
        assert np.abs(run.final.mean(axis=0) - x.mean(axis=0)).max() > 1e-3

    def test_euler_with_unit_steps_is_the_discrete_model(self, rng):
        x = rng.random((60, 1))
        flow = kd.hegselmann_krause_flow(x, 0.2, 5.0, dt=1.0, integrator=kd.Euler())
        discrete = kd.hegselmann_krause(x, 0.2, max_steps=5)
        np.testing.assert_allclose(flow.positions[: len(discrete)], discrete.positions, rtol=0, atol=1e-13)

    def test_stop_rule_for_settled_clusters(self, rng):
        run = kd.hegselmann_krause_flow(rng.random(100), 0.3, 50.0, stop=kd.stopping.ClustersSettled(0.3))
        assert run.meta["stopped"] == "clusters settled"
        assert run.times[-1] < 50.0

    def test_weights_and_options_are_passed_on(self, rng):
        x, weights = rng.random((5, 1)), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        run = kd.hegselmann_krause_flow(x, 2.0, 20.0, normalised=False, weights=weights, save_every=100)
        assert len(run) == 5
        np.testing.assert_allclose(run.final[:, 0], weights @ x[:, 0] / 15.0, atol=1e-7)  # e^-20 of the start is left
