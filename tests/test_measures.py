"""Distances between measures against scipy, POT, linear assignment, closed forms and the axioms."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.optimize import linear_sum_assignment, linprog
from scipy.stats import wasserstein_distance

import krause_dynamics as kd
from krause_dynamics import measures

FLOATS = st.floats(-10, 10, allow_subnormal=False)
CLOUDS = npst.arrays(np.float64, st.integers(1, 8), elements=FLOATS)


def transport(costs: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The transport problem as a linear programme: no structure used."""
    n, m = costs.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    return linprog(costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b])).fun


def arc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    gap = np.abs(x[:, None] - y[None]) % 1
    return np.minimum(gap, 1 - gap)


@given(CLOUDS, CLOUDS, st.randoms(use_true_random=False))
def test_first_distance_on_the_line_against_scipy(x: np.ndarray, y: np.ndarray, random) -> None:
    a, b = (np.array([random.uniform(0.1, 1) for _ in z]) for z in (x, y))
    assert measures.wasserstein(x, y) == pytest.approx(wasserstein_distance(x, y), abs=1e-13)
    weighted = measures.wasserstein(x, y, x_log_mass=np.log(a), y_log_mass=np.log(b))
    assert weighted == pytest.approx(wasserstein_distance(x, y, a, b), abs=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_any_exponent_against_the_linear_programme(p: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(7), rng.standard_normal(5)
    a, b = rng.random(7), rng.random(5)
    ours = measures.wasserstein(x, y, p=p, x_log_mass=np.log(a), y_log_mass=np.log(b))
    oracle = transport(np.abs(x[:, None] - y) ** p, a / a.sum(), b / b.sum())
    assert ours**p == pytest.approx(oracle, rel=1e-9)  # the solver's own tolerance


def test_equal_masses_take_the_same_value_by_both_routes() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(1001), rng.standard_normal(1001)
    for p in (1, 2, 3):
        by_masses = measures.wasserstein(x, y, p=p, x_log_mass=np.zeros(1001), y_log_mass=np.zeros(1001))
        assert measures.wasserstein(x, y, p=p) == pytest.approx(by_masses, rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e-13])
def test_weighted_sorting_of_close_and_signed_positions(scale: float) -> None:
    """Positions that differ in their last bits only, where sorting by leading bits must be put right."""
    rng = np.random.default_rng(9)
    x = np.concatenate([scale * rng.standard_normal(500), [0.0, -0.0]]) + (1.0 if scale == 1e-13 else 0.0)
    mass = rng.random(502)
    to_zero = measures.wasserstein(x, np.zeros(1), x_log_mass=np.log(mass), y_log_mass=np.zeros(1))
    assert to_zero == pytest.approx(np.sum(mass * np.abs(x)) / mass.sum(), rel=1e-12)
    other = 2 * x[::-1].copy()
    ours = measures.wasserstein(x, other, x_log_mass=np.log(mass), y_log_mass=np.log(mass[::-1].copy()))
    assert ours == pytest.approx(wasserstein_distance(x, other, mass, mass[::-1]), rel=1e-11)


def test_quantiles_of_the_uniform_law() -> None:
    """Midpoints on [0, 1] are 1 / (2 sqrt(3) N) from the uniform law: here against a grid 1000 times finer."""
    n, fine = 20, 20_000
    x, grid = (np.arange(n) + 0.5) / n, (np.arange(fine) + 0.5) / fine
    expected = math.sqrt(1 / (12 * n**2) - 1 / (12 * fine**2))
    assert measures.wasserstein(x, grid, p=2) == pytest.approx(expected, rel=1e-10)


@given(CLOUDS, CLOUDS, CLOUDS, st.sampled_from([1, 2]))
def test_axioms_on_the_line(x: np.ndarray, y: np.ndarray, z: np.ndarray, p: int) -> None:
    xy, yz, xz = (measures.wasserstein(a, b, p=p) for a, b in ((x, y), (y, z), (x, z)))
    assert xy == pytest.approx(measures.wasserstein(y, x, p=p), abs=1e-12)
    assert measures.wasserstein(x, np.tile(x, 2), p=p) <= 1e-7  # a square root of rounding
    assert xz <= xy + yz + 1e-7
    assert measures.wasserstein(x + 3, x, p=p) == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_circle_against_the_linear_programme(p: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        x, y, a, b = rng.random(6), rng.random(4), rng.random(6), rng.random(4)
        ours = measures.wasserstein_circle(x - 3, y + 2, p=p, period=1.0, x_log_mass=np.log(a), y_log_mass=np.log(b))
        oracle = transport(arc(x, y) ** p, a / a.sum(), b / b.sum())
        assert ours**p == pytest.approx(oracle, rel=1e-8)


@pytest.mark.parametrize("p", [1, 2])
def test_circle_of_equal_masses_against_assignment(p: int) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random(60), 0.3 * rng.random(60) + 0.9
    costs = arc(x, y) ** p
    oracle = costs[linear_sum_assignment(costs)].mean()
    assert measures.wasserstein_circle(x, y, p=p, period=1.0) ** p == pytest.approx(oracle, rel=1e-10)


def test_circle_wraps_and_reads_unit_vectors() -> None:
    x, y = np.array([0.1]), np.array([2 * math.pi - 0.1])
    unit = [np.column_stack([np.cos(z), np.sin(z)]) for z in (x, y)]
    for p, (a, b) in itertools.product((1, 2), ((x, y), unit)):
        assert measures.wasserstein_circle(a, b, p=p) == pytest.approx(0.2, abs=1e-12)
    turned = 6 + np.random.default_rng(4).random(30)  # on a short arc across the cut, where the line's answer holds
    assert measures.wasserstein_circle(turned, turned + 0.5, p=2) == pytest.approx(0.5, rel=1e-7)
    assert measures.wasserstein_circle(turned, turned + 2 * math.pi, p=2) < 1e-7


def test_sliced_distance_of_a_translation() -> None:
    """All directions see the shift: W_p^p is the mean of |<u, r>|^p over the same directions."""
    rng = np.random.default_rng(5)
    x, shift = rng.standard_normal((40, 3)), np.array([1.0, 2.0, -2.0])
    unit = np.random.default_rng(7).standard_normal((50, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = math.sqrt(np.mean((unit @ shift) ** 2))
    assert measures.sliced(x, x + shift, rng=7) == pytest.approx(expected, rel=1e-12)
    # E <u, r>^2 = |r|^2 / d; the mean of 4000 directions is within 3 standard deviations, sqrt(4/45/4000) * 9 / 3
    many = measures.sliced(x, x + shift, directions=4000, rng=8)
    assert many**2 == pytest.approx(3.0, abs=3 * 9 * math.sqrt(4 / 45 / 4000))


def test_exact_against_assignment_and_the_line() -> None:
    pytest.importorskip("ot")
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 4))
    for p in (1, 2):
        costs = np.linalg.norm(x[:, None] - y, axis=-1) ** p
        oracle = costs[linear_sum_assignment(costs)].mean()
        assert measures.exact(x, y, p=p) ** p == pytest.approx(oracle, rel=1e-12)
    masses = rng.standard_normal(30)
    line = {"x_log_mass": masses, "y_log_mass": masses[::-1].copy()}
    assert measures.exact(x[:, :1], y[:, :1], **line) == pytest.approx(
        measures.wasserstein(x[:, 0], y[:, 0], p=2, **line), rel=1e-10
    )
    assert measures.sliced(x, y) <= measures.exact(x, y)


def test_entropic_says_where_it_did_not_converge(monkeypatch) -> None:
    from krause_dynamics.analysis.measures import clouds

    monkeypatch.setattr(clouds, "ITERATIONS", 200)
    x, y = 100 * np.random.default_rng(0).normal(size=(2, 9, 2))
    with pytest.raises(RuntimeError, match="epsilon = 0.1 is too small for 200 iterations"):
        measures.entropic(x, y, epsilon=0.1)


def test_entropic_between_exact_and_product() -> None:
    pytest.importorskip("ot")
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((20, 2)), rng.standard_normal((25, 2)) + 1
    exact = measures.exact(x, y)
    costs = ((x[:, None] - y) ** 2).sum(-1)
    values = [measures.entropic(x, y, epsilon=epsilon) for epsilon in (0.02, 0.5, 1e5)]
    assert exact <= values[0] <= values[1] <= values[2]
    # <P, C> exceeds the optimum by at most epsilon ln(n m), here 0.02 * ln 500
    assert values[0] ** 2 - exact**2 <= 0.02 * math.log(500)
    assert values[2] ** 2 == pytest.approx(costs.mean(), rel=1e-4)  # 1 / epsilon away from the product measure


def test_runs_and_layers() -> None:
    positions = np.random.default_rng(8).standard_normal((4, 9, 1))
    run = SimpleNamespace(positions=positions, log_mass=None, times=np.arange(4.0))
    moved = SimpleNamespace(positions=positions + 2, log_mass=np.zeros(9), times=np.arange(4.0))
    np.testing.assert_allclose(measures.along(run, moved, p=2), 2.0, rtol=1e-12)
    to_final = measures.along(run, positions[-1])
    assert to_final[-1] == 0
    assert np.all(to_final[:-1] > 0)
    tokens = torch.from_numpy(np.stack([positions[0] * s for s in (1.0, 2.0, 4.0)]))
    first, second = measures.between_layers(tokens, measures.wasserstein)
    assert second == pytest.approx(2 * first, rel=1e-12)
    later = SimpleNamespace(positions=positions, log_mass=None, times=np.arange(4.0) + 1)
    with pytest.raises(ValueError, match="same times"):
        measures.along(run, later)
    with pytest.raises(ValueError, match="number of states"):
        measures.along(positions, positions[:2])


def test_moving_masses_of_a_mean_field() -> None:
    """A density moves by its masses; the distance to the particles is the same measure's."""
    cells = np.linspace(0, 1, 5)[:, None]
    log_mass = np.log(np.array([[1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]) + 1e-300)
    field = SimpleNamespace(positions=np.stack([cells, cells]), log_mass=log_mass)
    particles = np.stack([cells, np.full((5, 1), 0.5)])
    np.testing.assert_allclose(measures.along(particles, field), 0, atol=1e-15)


@pytest.mark.parametrize("absent", [-np.inf, -1e4])
def test_points_without_mass_are_not_there(absent: float) -> None:
    """Padding may hold anything; a mass that underflows is no mass."""
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [np.nan], [2.0], [4.0]])
    log_mass = np.array([0.0, absent, -1.0, 0.5])
    there = [0, 2, 3]
    for distance in (measures.wasserstein, measures.sliced):
        found = distance(x, y, y_log_mass=log_mass)
        assert found == pytest.approx(distance(x, y[there], y_log_mass=log_mass[there]), abs=1e-14)


def test_bad_input() -> None:
    x = np.zeros(3)
    with pytest.raises(ValueError, match=r"measures\.sliced"):
        measures.wasserstein(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="one dimension"):
        measures.sliced(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="p must be"):
        measures.wasserstein(x, x, p=0.5)
    with pytest.raises(ValueError, match="y must be finite"):
        measures.wasserstein(x, np.array([np.nan]))
    with pytest.raises(ValueError, match="log_mass of x"):
        measures.wasserstein(x, x, x_log_mass=np.full(3, -np.inf))
    with pytest.raises(ValueError, match="epsilon"):
        measures.entropic(x, x, epsilon=0.0)
    with pytest.raises(ValueError, match="period"):
        measures.wasserstein_circle(x, x, period=-1.0)
    with pytest.raises(ValueError, match="directions"):
        measures.sliced(x, x, directions=0)
    with pytest.raises(ValueError, match="one state"):
        measures.wasserstein(np.zeros((2, 3, 1)), x)


def test_a_run_on_a_torus_is_measured_by_a_distance_that_knows_its_border():
    x = np.array([[0.95], [0.05], [0.0]])
    run = kd.simulate(kd.Dynamics(kd.bounded_confidence(0.2), kd.Torus(1.0)), x, 0.2, dt=0.1)
    for measured in (
        lambda **more: measures.between_layers(run, **more),
        lambda **more: measures.along(run, run, **more),
    ):
        with pytest.raises(ValueError, match=r"wasserstein_circle with period=1\.0"):
            measured()
    moved = measures.between_layers(run, measures.wasserstein_circle, period=1.0)
    assert (moved < 0.01).all()
    np.testing.assert_array_equal(measures.along(run, run, measures.wasserstein_circle, period=1.0), 0.0)
