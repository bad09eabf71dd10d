"""Formulas at the ends of floating point, against mpmath or a limit, and tensors as they come from a model."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import numpy as np
import pytest

from krause_dynamics import theory
from tests.test_theory_arguments import FORMULAS, good


def relative(found, expected):
    return float(abs(mpmath.mpf(float(found)) - expected) / abs(expected))


@pytest.mark.parametrize(("angle", "beta"), [(1e-7, 1e16), (1e-10, 3e20), (1e-3, 1e6), (3.0, 1.0)])
def test_small_angles_at_low_temperature_keep_their_digits(angle, beta):
    """1 - cos of a small angle, times a large beta, in an exponent: by subtraction it is off by a factor e."""
    with mpmath.workdps(60):
        x, b, p = mpmath.mpf(angle), mpmath.mpf(beta), mpmath.mpf(0.3)
        e = mpmath.exp(b * (mpmath.cos(x) - 1))
        pair = -2 * mpmath.sin(x) * e / (1 + e)
        clusters = -mpmath.sin(x) * ((1 - p) * e / (p + (1 - p) * e) + p * e / (1 - p + p * e))
        asymptotic = 1 / e / (b * mpmath.sin(x) ** 2 * ((1 - p) / p + p / (1 - p)))
    assert relative(theory.gap_rate(gap=angle, beta=beta), pair) < 1e-12
    assert relative(theory.causal_gap_rate(gap=angle, beta=beta), pair / 2) < 1e-12
    assert relative(theory.cluster_angle_rate(angle=angle, beta=beta, mass=0.3), clusters) < 1e-12
    assert relative(theory.cluster_lifetime_asymptotic(beta=beta, angle=angle, mass=0.3), asymptotic) < 1e-12


@pytest.mark.parametrize("beta", [0.0, 1e-300, 1e-8, 1.0, 1e8, 1e20, 1e300])
def test_the_angle_of_strongest_attraction_at_any_temperature(beta):
    with mpmath.workdps(700):
        b = mpmath.mpf(beta)
        exact = mpmath.acos((mpmath.sqrt(1 + 4 * b * b) - 1) / (2 * b)) if beta else mpmath.pi / 2
        assert relative(theory.strongest_attraction_angle(beta), exact) < 1e-15


@pytest.mark.parametrize(
    ("rho", "beta", "n"), [(2e-14, 96.0, 18), (1 - 1e-12, 1e-3, 50), (0.3, 1.0, 16), (0.0, 2.0, 2)]
)
def test_speeds_under_random_values_where_they_are_small(rho, beta, n):
    with mpmath.workdps(80):
        r, d = mpmath.mpf(rho), n + 5
        own = 1 / (1 + (n - 1) * mpmath.exp(-beta * (1 - r)))
        other = (1 - own) / (n - 1)
        f, g = own**2 + (n - 1) * other**2, 2 * own * other + (n - 2) * other**2
        p, c = r + (1 - r) * f, r + (1 - r) * g
        closure, exact = c - r * p, ((d - 2 + r * r) * c - (d - 1) * r * p) / d
    given = {"similarity": rho, "beta": beta, "tokens": n}
    assert relative(theory.random_value_closure(**given), closure) < 1e-12
    assert relative(theory.random_value_rate(**given, dimension=d), exact) < 1e-10


def test_a_cosine_of_outputs_far_below_rounding():
    """Orthogonal tokens above the threshold: 1 - (p - q)^2 = 2 (1 - p) to leading order."""
    small = theory.gram_map(similarity=0.0, tokens=1e30, scaling=2.0)
    assert small == pytest.approx(2.0 * 1e30 ** (1.0 - 2.0) / 1e30, rel=1e-9)


@pytest.mark.parametrize(("start", "time"), [(1e-189, 1976.0), (1e-200, 900.0), (0.3, 1.0), (1.0, 0.0)])
def test_the_order_parameter_from_almost_nothing(start, time):
    with mpmath.workdps(50):
        r, growth = mpmath.mpf(start), mpmath.exp(mpmath.mpf(time))
        exact = mpmath.sqrt(r * r * growth / (1 - r * r + r * r * growth))
    assert relative(theory.kuramoto_order_parameter(times=time, start=start), exact) < 1e-12


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (partial(theory.kuramoto_locked_order, coupling=1e300, width=1.0, law="normal"), 1.0),
        (partial(theory.critical_noise, radius=1.0, length=1e300, normalised=True), math.sqrt(2.0 / 3.0)),
        (partial(theory.critical_noise, radius=1e-300, length=1.0, normalised=True), 1e-300 * math.sqrt(2.0 / 3.0)),
        (partial(theory.expected_initial_modes, 1e-300), 1.0),
        (partial(theory.expected_initial_modes, 1e8), math.sqrt(1.5e8)),
        (partial(theory.gaussian_rule_deviation_step, 1e300), 1e300),
        (partial(theory.gaussian_rule_deviation_step, 1e-200, sigma=1e200, step=0.5), 5e-201),
        (partial(theory.gaussian_rule_variance, times=0.5, variance=0.5, sigma=1e-300), 0.5),
        (partial(theory.gaussian_rule_variance, times=0.5, variance=0.5, sigma=1e300), 0.5 / math.e),
        (partial(theory.holding_strength, clusters=2, beta=700.0), 0.5 * math.exp(-700.0)),
        (partial(theory.holding_strength, clusters=2, beta=1000.0), 0.0),
        (partial(theory.holding_strength, clusters=100, beta=1000.0), math.inf),
    ],
)  # fmt: skip
def test_limits_of_extreme_arguments(formula, expected):
    assert float(formula()) == pytest.approx(expected, rel=1e-7)


def test_noise_that_holds_cold_attention_is_a_number_longer_than_its_kernel():
    with mpmath.workdps(30):
        b = mpmath.mpf(1000)
        threshold = b**1.5 / (mpmath.sqrt(2) * mpmath.gamma(1.5) * mpmath.besseli(1.5, b))
        exact = mpmath.sqrt(2 / threshold)
    assert relative(theory.critical_attention_noise(beta=1000.0, dimension=3), exact) < 1e-10


def test_clusters_of_cold_attention_move_though_none_can_split():
    moving, splitting = theory.regular_cluster_eigenvalues(clusters=6, beta=800.0)
    with mpmath.workdps(40):
        x = [2 * mpmath.pi * a / 6 for a in range(1, 6)]
        slope = [mpmath.exp(800 * mpmath.cos(a)) * (mpmath.cos(a) - 800 * mpmath.sin(a) ** 2) for a in x]
        exact = sum(s * (mpmath.cos(a) - 1) for s, a in zip(slope, x, strict=True)) / 6
    assert relative(moving[0], exact) < 1e-11
    assert splitting == -math.inf


def test_responses_whose_kernel_vanishes_and_whose_bessel_function_explodes():
    """e^{l (s - 1)} and I_1(2 sqrt(a t Y)), Y = l (1 - s), leave the floats one below and one above."""
    found = theory.causal_response(positions=0.5, time=300.0, rate=1.0, decay=2000.0)
    with mpmath.workdps(40):
        z = mpmath.sqrt(mpmath.mpf(300 * 1000))
        exact = 2000 * mpmath.exp(-1000) * 300 / z * mpmath.besseli(1, 2 * z)
    assert relative(found, exact) < 1e-11
    coarse = theory.recency_time(beta=2.0, decay=1.0, resolution=1e-8)
    first = theory.mode_growth(degree=1, beta=2.0, dimension=2)
    assert coarse == pytest.approx(2.0 * (1.0 - math.exp(-1.0)) / float(first), rel=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_tensors_are_read_whatever_they_carry(name):
    """A learned bandwidth needs a gradient, a state may be bfloat16: formulas answer in numpy, as of plain numbers."""
    torch = pytest.importorskip("torch")
    plain = good(name)

    def tensor(value):
        is_number = isinstance(value, float) or (isinstance(value, list) and value)
        return torch.tensor(value, dtype=torch.float64, requires_grad=True) if is_number else value

    given = {parameter: tensor(value) for parameter, value in plain.items()}
    expected, found = FORMULAS[name](**plain), FORMULAS[name](**given)
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lists_of_tensors_and_half_precision_are_read():
    torch = pytest.importorskip("torch")
    deviations = [torch.tensor(0.5, requires_grad=True), torch.tensor(2.0)]
    found = theory.gaussian_rule_deviation_step(deviations, sigma=torch.tensor(1.0, dtype=torch.bfloat16))
    np.testing.assert_array_equal(found, theory.gaussian_rule_deviation_step([0.5, 2.0]))


def test_unit_vectors_of_single_precision_are_unit_vectors():
    start = np.array([[0.6, 0.8], [0.8, -0.6]], np.float32)
    value = np.diag([1.0, 0.0])
    moved = theory.low_temperature_flow(times=[0.0], start=start, value=value)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 1.0, rtol=1e-15)
    with pytest.raises(ValueError, match="start must hold unit vectors, got one of length 1.001"):
        theory.low_temperature_flow(times=[0.0], start=1.001 * start, value=value)
    energy = theory.oscillator_energy(positions=start, coupling=np.ones((2, 2)), stimulus=np.zeros((2, 2)))
    assert energy == pytest.approx(-1.0, abs=1e-7)  # -(|x_1|^2 + |x_2|^2)/2, the two are orthogonal


def test_constants_of_leading_orders_at_long_times():
    """At consensus no deviation is left; the lag grows with the slope of the law, and ends where that is a point."""
    assert theory.random_value_deviation(time=60.0, start=0.2, beta=2.0, tokens=9) == pytest.approx(0.0, abs=1e-6)
    value, start = np.diag([1.0, -0.5]), [[0.6, 0.8]]
    whole, late = theory.low_temperature_lag(times=[9.0, 18.0], start=start, value=value)
    # x_2/x_1 falls like e^{-1.5 t}, so that the density steepens and the lag grows like e^{1.5 t}.
    assert np.linalg.norm(late) / np.linalg.norm(whole) == pytest.approx(math.exp(1.5 * 9.0), rel=1e-3)
    with pytest.raises(ValueError, match=r"times must be at most 30/\|V\| = 30, got 31"):
        theory.low_temperature_lag(times=[31.0], start=start, value=value)
