"""Mode growth, counts of modes and noisy attention against quadrature, exact recurrences and stationary laws."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import eval_gegenbauer, ive

from krause_dynamics import theory


@pytest.mark.parametrize("dimension", [2, 3, 5, 8])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_kernel_coefficient_is_the_funk_hecke_integral(degree, dimension):
    beta = 2.3
    if dimension == 2:
        weight = quad(lambda t: np.exp(beta * np.cos(t)) * np.cos(degree * t), 0, np.pi, epsabs=1e-13)[0] / np.pi
    else:
        lam = dimension / 2 - 1
        density = lambda u: (1 - u * u) ** (lam - 0.5)  # noqa: E731
        polynomial = lambda u: eval_gegenbauer(degree, lam, u) / eval_gegenbauer(degree, lam, 1.0)  # noqa: E731
        weight = quad(lambda u: np.exp(beta * u) * polynomial(u) * density(u), -1, 1, epsabs=1e-13)[0]
        weight /= quad(density, -1, 1, epsabs=1e-13)[0]
    assert float(theory.kernel_coefficient(degree=degree, beta=beta, dimension=dimension)) == pytest.approx(
        weight, rel=1e-9
    )


@pytest.mark.parametrize("normalised", [True, False])
def test_mode_growth_on_the_circle_is_the_linearised_velocity(normalised):
    beta, degree, eta, cells = 4.0, 3, 1e-6, 512
    angle = 2 * np.pi * np.arange(cells) / cells
    mass = (1 + eta * np.cos(degree * angle)) / cells
    gap = angle[None, :] - angle[:, None]
    affinity = np.exp(beta * np.cos(gap))
    velocity = (affinity * np.sin(gap)) @ mass
    if normalised:
        velocity = velocity / (affinity @ mass)
    # d_t h = -dv/dx at first order; v = V eta sin(l x) has growth V l with sign reversed.
    slope = 2 * np.mean(velocity * np.sin(degree * angle)) / eta
    expected = float(theory.mode_growth(degree=degree, beta=beta, dimension=2, normalised=normalised))
    assert -degree * slope == pytest.approx(expected, rel=1e-5)


def test_scaled_coefficients_stay_finite():
    rates = theory.mode_growth(degree=np.arange(1, 200), beta=1e4, dimension=2)
    assert np.all(np.isfinite(rates))
    assert rates.max() == pytest.approx(2 / np.e, rel=1e-3)


@pytest.mark.parametrize(("beta", "winner"), [(1.0, 1), (2.0, 2), (5.0, 3), (10.0, 4), (50.0, 10)])
def test_winning_mode_by_exhaustion_in_high_precision(beta, winner):
    rates = [l * l * mpmath.besseli(l, beta) for l in range(1, 40)]
    assert theory.winning_mode(beta=beta) == winner == 1 + int(np.argmax([float(r) for r in rates]))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_switching_values_balance_two_degrees(degree, dimension):
    beta = theory.switching_beta(degree=degree, dimension=dimension)
    order = dimension / 2 - 1
    left = degree * (degree + dimension - 2) * mpmath.besseli(degree + order, beta)
    right = (degree + 1) * (degree + dimension - 1) * mpmath.besseli(degree + 1 + order, beta)
    assert float(left / right) == pytest.approx(1.0, rel=1e-10)
    assert theory.winning_mode(beta=beta * 0.999, dimension=dimension) == degree
    assert theory.winning_mode(beta=beta * 1.001, dimension=dimension) == degree + 1


def test_large_beta_mode():
    # Relative distance to sqrt(2 beta) is below half a degree.
    for beta in (200.0, 2000.0):
        assert abs(theory.winning_mode(beta=beta) - theory.large_beta_mode(beta)) <= 0.6


def test_initial_modes_tend_to_their_limit():
    errors = [theory.expected_initial_modes(b) / np.sqrt(1.5 * b) - 1 for b in (50.0, 100.0, 200.0)]
    # O(1/beta) corrections halve.
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.1)


def test_initial_modes_by_counting_maxima():
    rng, beta, n, trials = np.random.default_rng(5), 12.0, 2000, 60
    angle = 2 * np.pi * np.arange(512) / 512
    degrees = np.arange(1, 40)
    counts = []
    for _ in range(trials):
        x = rng.uniform(0, 2 * np.pi, n)
        moments = np.exp(-1j * degrees[:, None] * x).sum(1)
        slope = np.real((1j * degrees * ive(degrees, beta) * moments) @ np.exp(1j * degrees[:, None] * angle))
        counts.append(np.sum((slope > 0) & (np.roll(slope, -1) <= 0)))
    # Standard error of the mean of 60 counts with variance about 1.
    assert np.mean(counts) == pytest.approx(
        theory.expected_initial_modes(beta, tokens=n), abs=4 * np.std(counts) / 60**0.5
    )


def test_initial_modes_refuse_few_tokens():
    with pytest.raises(ValueError, match="tokens must be at least"):
        theory.expected_initial_modes(100.0, tokens=50)


def test_line_modes_constant_and_limits():
    value = theory.density_modes_leading_order(samples=10_000, beta=10_000.0)
    assert value / np.sqrt(1e4 * np.log(1e4)) == pytest.approx(np.sqrt(3) / np.pi * np.sqrt(0.5), rel=1e-12)
    with pytest.raises(ValueError, match="beta must lie between"):
        theory.density_modes_leading_order(samples=100, beta=1e5)


def test_a_wide_kernel_has_one_mode():
    assert theory.expected_density_modes_on_line(samples=1000, beta=1.0) == pytest.approx(1.0, abs=1e-3)


def test_isolated_samples_are_modes():
    # n^-4: the bandwidth is far below the spacing, even in the middle.
    assert theory.expected_density_modes_on_line(samples=50, beta=50.0**8) == pytest.approx(50, rel=0.02)


def test_line_modes_by_counting():
    rng, n, beta, trials = np.random.default_rng(8), 100, 50.0, 200
    grid, counts = np.arange(-5, 5, 0.01), []
    for _ in range(trials):
        y = grid[:, None] - rng.normal(size=n)
        slope = np.sum(-y * np.exp(-beta * y**2 / 2), axis=1)
        counts.append(np.sum((slope[:-1] > 0) & (slope[1:] <= 0)))
    # 4 %: the bias of the formula, plus the standard error of 200 counts (1.5 %).
    assert np.mean(counts) == pytest.approx(theory.expected_density_modes_on_line(samples=n, beta=beta), rel=0.05)


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_linear_threshold_balances_attraction_and_diffusion(dimension):
    beta = 1.7
    k = theory.linear_threshold(beta=beta, dimension=dimension)
    growth = k * theory.mode_growth(degree=1, beta=beta, dimension=dimension, normalised=False)
    assert float(growth) == pytest.approx(dimension - 1, rel=1e-12)
    closed = mpmath.mpf(beta) ** (dimension / 2) / (
        2 ** (mpmath.mpf(dimension) / 2 - 1) * mpmath.gamma(dimension / 2) * mpmath.besseli(dimension / 2, beta)
    )
    assert k == pytest.approx(float(closed), rel=1e-12)
    assert theory.critical_attention_noise(beta=beta, dimension=dimension) == pytest.approx(np.sqrt(2 / k))


def test_first_degree_is_the_first_to_lose_stability():
    thresholds = [theory.linear_threshold(beta=3.0, dimension=3, degree=l) for l in range(1, 6)]
    assert np.all(np.diff(thresholds) > 0)


def test_order_of_the_transition_agrees_with_the_landau_sign():
    star = theory.transition_order_threshold(2)
    assert float(mpmath.besseli(2, star) / mpmath.besseli(1, star)) == pytest.approx(0.5, rel=1e-12)
    assert theory.landau_quartic(star) == pytest.approx(0.0, abs=1e-14)
    assert theory.landau_quartic(star - 0.1) > 0 > theory.landau_quartic(star + 0.1)
    assert theory.is_transition_continuous(beta=star - 0.1, dimension=2)
    assert not theory.is_transition_continuous(beta=star + 0.1, dimension=2)


def test_order_of_the_transition_in_three_dimensions():
    star = theory.transition_order_threshold(3)
    assert float(mpmath.besseli(2.5, star) / mpmath.besseli(1.5, star)) == pytest.approx(1 / 3, rel=1e-12)


def test_stationary_law_below_and_above_the_threshold():
    beta = 1.0
    k = theory.linear_threshold(beta=beta, dimension=2)
    assert theory.circle_order_parameter(beta=beta, coupling=0.9 * k) < 1e-6
    # Continuous transition: r^2 grows linearly in K - K_lin with a ratio near 2 between 2 % and 1 %.
    ratio = (
        theory.circle_order_parameter(beta=beta, coupling=1.02 * k)
        / theory.circle_order_parameter(beta=beta, coupling=1.01 * k)
    ) ** 2
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_stationary_law_jumps_for_large_beta():
    # beta above beta*: order survives below the linear threshold.
    beta = 6.0
    assert (
        theory.circle_order_parameter(beta=beta, coupling=0.97 * theory.linear_threshold(beta=beta, dimension=2)) > 0.3
    )


def test_stationary_law_is_self_consistent():
    beta, coupling = 2.0, 4.0
    r = theory.circle_order_parameter(beta=beta, coupling=coupling)
    angle = 2 * np.pi * np.arange(400) / 400
    kernel = np.exp(beta * np.cos(angle[:, None] - angle)) / beta
    law = np.exp(np.cos(angle))
    for _ in range(3000):
        law = np.exp(coupling * kernel @ (law / law.sum()) - coupling)
    assert np.sum(law * np.cos(angle)) / law.sum() == pytest.approx(r, rel=1e-8)


@pytest.mark.parametrize(("degree", "dimension"), [(100, 2), (1, 500), (40, 8)])
def test_switching_values_far_out(degree, dimension):
    beta = theory.switching_beta(degree=degree, dimension=dimension)
    lower, upper = theory.mode_growth(degree=np.array([degree, degree + 1]), beta=beta, dimension=dimension)
    assert float(upper / lower) == pytest.approx(1.0, rel=1e-9)
