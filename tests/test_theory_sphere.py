"""Closed forms on the sphere against direct integration of the token equations and high-precision arithmetic."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from krause_dynamics import theory


def token_velocity(x, beta, normalised):
    """Attention on the sphere written out token by token, independent of the package."""
    n = len(x)
    out = np.empty_like(x)
    for i in range(n):
        affinity = np.exp(beta * (x @ x[i]))
        pull = affinity @ x / (affinity.sum() if normalised else n)
        out[i] = pull - (pull @ x[i]) * x[i]
    return out


def equiangular(n, rho):
    """Unit vectors with equal inner products, from the square root of their Gram matrix."""
    gram = (1 - rho) * np.eye(n) + rho
    return np.linalg.cholesky(gram)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 2.5])
def test_equiangular_rate_is_the_rate_of_the_token_equations(beta, normalised):
    n, rho = 5, 0.3
    x = equiangular(n, rho)
    v = token_velocity(x, beta, normalised)
    expected = v[0] @ x[1] + x[0] @ v[1]
    assert float(theory.equiangular_rate(similarity=rho, beta=beta, tokens=n, normalised=normalised)) == pytest.approx(
        expected, rel=1e-13
    )


@pytest.mark.parametrize("normalised", [True, False])
def test_equiangular_curve_follows_integrated_tokens(normalised):
    n, beta, start, times = 4, 1.5, 0.1, np.array([0.3, 0.8, 2.0])

    def field(_, flat):
        return token_velocity(flat.reshape(n, n), beta, normalised).ravel()

    x0 = equiangular(n, start).ravel()
    run = solve_ivp(field, (0, 2.0), x0, "DOP853", t_eval=times, rtol=1e-11, atol=1e-12)
    measured = [np.dot(*run.y[:, k].reshape(n, n)[:2]) for k in range(3)]
    predicted = theory.equiangular_similarity(times=times, start=start, beta=beta, tokens=n, normalised=normalised)
    # 1e-9: two integrations at 1e-11 over a few time units.
    np.testing.assert_allclose(predicted, measured, rtol=1e-9)


@pytest.mark.parametrize(("beta", "normalised"), [(1.0, True), (4.0, True), (1.0, False)])
def test_equiangular_time_inverts_the_curve(beta, normalised):
    time = theory.equiangular_time(start=0.0, stop=0.5, beta=beta, tokens=32, normalised=normalised)
    rho = theory.equiangular_similarity(times=[time], start=0.0, beta=beta, tokens=32, normalised=normalised)
    np.testing.assert_allclose(rho, 0.5, rtol=1e-10)


def test_equiangular_time_in_high_precision():
    n, beta = 32, 4

    def slowness(rho):
        top = 2 * mpmath.e ** (beta * rho) * (1 - rho) * (1 + (n - 1) * rho)
        return (mpmath.e**beta + (n - 1) * mpmath.e ** (beta * rho)) / top

    with mpmath.workdps(30):
        expected = float(mpmath.quad(slowness, [0, 0.1, 0.5]))
    assert theory.equiangular_time(start=0.0, stop=0.5, beta=beta, tokens=n) == pytest.approx(expected, rel=1e-12)


def test_zero_temperature_limit_is_the_general_curve_at_beta_zero():
    times = np.array([0.1, 1.0, 5.0])
    general = theory.equiangular_similarity(times=times, start=0.0, beta=0.0, tokens=32)
    np.testing.assert_allclose(
        theory.orthogonal_similarity_without_temperature(times=times, tokens=32), general, rtol=1e-10
    )


@pytest.mark.parametrize(("beta", "normalised"), [(1.0, True), (1.0, False), (3.0, True)])
def test_consensus_rate_is_the_slope_of_the_curve_at_the_end(beta, normalised):
    gap = 1e-6
    slope = float(theory.equiangular_rate(similarity=1 - gap, beta=beta, tokens=8, normalised=normalised)) / gap
    # First-order remainder: O(gap) with a constant of order beta.
    assert slope == pytest.approx(theory.consensus_rate(beta, normalised=normalised), rel=1e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_gap_rate_is_the_two_token_case(normalised):
    phi, beta = 1.1, 3.0
    x = np.array([[1.0, 0.0], [np.cos(phi), np.sin(phi)]])
    v = token_velocity(x, beta, normalised)
    expected = -(v[0] @ x[1] + x[0] @ v[1]) / np.sin(phi)
    assert float(theory.gap_rate(gap=phi, beta=beta, normalised=normalised)) == pytest.approx(expected, rel=1e-13)


def test_kuramoto_curve_solves_its_equation():
    run = solve_ivp(
        lambda _, r: 0.5 * r * (1 - r**2), (0, 4), [0.1], "DOP853", t_eval=[1.0, 4.0], rtol=1e-12, atol=1e-13
    )
    np.testing.assert_allclose(theory.kuramoto_order_parameter(times=[1.0, 4.0], start=0.1), run.y[0], rtol=1e-10)


def test_kuramoto_equation_from_quantile_tokens():
    # The velocity at beta = 0 keeps the Poisson kernel: its resultant grows by r (1 - r^2)/2.
    r, n = 0.4, 4000
    u = (np.arange(n) + 0.5) / n
    theta = 2 * np.arctan((1 - r) / (1 + r) * np.tan(np.pi * (u - 0.5)))
    velocity = -r * np.sin(theta)
    assert np.mean(-np.sin(theta) * velocity) == pytest.approx(0.5 * r * (1 - r**2), rel=1e-5)


def test_pre_norm_against_tokens_in_space():
    n, beta, start = 3, 2.0, 0.2

    def field(_, flat):
        x = flat.reshape(n, n)
        y = x / np.linalg.norm(x, axis=1, keepdims=True)
        weights = np.exp(beta * y @ y.T)
        return (weights @ y / weights.sum(1, keepdims=True)).ravel()

    run = solve_ivp(field, (0, 20.0), 2 * equiangular(n, start).ravel(), "DOP853", rtol=1e-11, atol=1e-12)
    x = run.y[:, -1].reshape(n, n)
    radius = np.linalg.norm(x, axis=1)
    rho, r = theory.pre_norm_equiangular(times=[20.0], start=start, beta=beta, tokens=n, radius=2.0)
    np.testing.assert_allclose(r, radius[0], rtol=1e-8)
    np.testing.assert_allclose(1 - rho, 1 - x[0] @ x[1] / radius[0] / radius[1], rtol=1e-6)


def test_pre_norm_exponents_are_reached():
    times = np.array([1e4, 2e4])
    rho, radius = theory.pre_norm_equiangular(times=times, start=0.0, beta=1.0, tokens=8)
    growth, decay = theory.pre_norm_exponents()
    # Corrections are O(log t/t).
    assert np.log2(radius[1] / radius[0]) == pytest.approx(growth, abs=2e-3)
    assert np.log2((1 - rho[1]) / (1 - rho[0])) == pytest.approx(decay, abs=4e-3)


@pytest.mark.parametrize(("clusters", "beta"), [(2, -1.0), (3, -0.5), (3, -0.9), (4, -2.0)])
def test_regular_cluster_eigenvalues_against_a_numerical_jacobian(clusters, beta):
    per_cluster, h = 2, 1e-5
    theta = np.repeat(2 * np.pi * np.arange(clusters) / clusters, per_cluster)

    def velocity(angle):
        gap = angle[None, :] - angle[:, None]
        return np.mean(np.exp(beta * np.cos(gap)) * np.sin(gap), axis=1)

    unit = np.eye(len(theta))
    jacobian = np.stack([(velocity(theta + h * e) - velocity(theta - h * e)) / (2 * h) for e in unit], axis=1)
    eigenvalues = np.sort(np.linalg.eigvals(jacobian).real)
    moving, splitting = theory.regular_cluster_eigenvalues(clusters=clusters, beta=beta)
    expected = np.sort(np.concatenate([moving, [0.0], np.full(clusters * (per_cluster - 1), splitting)]))
    # 1e-8: truncation h^2 of central differences.
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-8)


def test_three_clusters_change_stability_at_minus_two_thirds():
    moving, splitting = theory.regular_cluster_eigenvalues(clusters=3, beta=-1.0)
    assert moving[0] == pytest.approx(theory.three_cluster_eigenvalue(-1.0), rel=1e-12)
    assert max(moving.max(), splitting) < 0
    assert theory.three_cluster_eigenvalue(-2 / 3) == pytest.approx(0.0, abs=1e-15)
    assert theory.three_cluster_eigenvalue(-0.6) > 0


def test_boolean_limit_rank():
    assert theory.boolean_limit_rank(np.array([1.0, 2.0])) == 1
    assert theory.boolean_limit_rank(np.array([-1.0, 2.0])) == 2
    with pytest.raises(ValueError, match="zero"):
        theory.boolean_limit_rank(np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("dimension", "beta", "proved"), [(3, 0.0, True), (2, -0.16, True), (2, -0.2, False), (3, -0.1, False)]
)
def test_single_cluster_window(dimension, beta, proved):
    assert theory.is_single_cluster_proved(dimension=dimension, beta=beta) is proved


def test_causal_gap_is_half_speed_and_integrates():
    phi = np.linspace(0.1, 3.0, 7)
    np.testing.assert_allclose(
        2 * theory.causal_gap_rate(gap=phi, beta=3.0), theory.gap_rate(gap=phi, beta=3.0), rtol=1e-14
    )
    stop = solve_ivp(
        lambda _, p: theory.causal_gap_rate(gap=p, beta=3.0), (0, 5.0), [2.0], "DOP853", rtol=1e-12, atol=1e-13
    ).y[0, -1]
    assert theory.causal_gap_time(start=2.0, stop=stop, beta=3.0) == pytest.approx(5.0, rel=1e-10)


def test_causal_rates_are_the_spectrum_of_the_running_mean():
    n = 9
    running_mean = np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]
    eigenvalues = np.sort(np.linalg.eigvals(np.eye(n) - running_mean).real)
    np.testing.assert_allclose(np.sort(theory.causal_rates(n)), eigenvalues, atol=1e-12)
    banded = np.array([[1.0 if max(0, i - 3) <= j <= i else 0.0 for j in range(n)] for i in range(n)])
    banded /= banded.sum(1, keepdims=True)
    layer = 0.7 * np.eye(n) + 0.3 * banded
    factors = theory.causal_layer_factors(n, window=4, step=0.3)
    np.testing.assert_allclose(factors, np.diag(layer), rtol=1e-14)
    assert factors[1:].max() == pytest.approx(1 - 0.3 / 2)


def test_parking_constant_in_high_precision():
    def integrand(t):
        # The integral of (1 - e^{-u})/u is log t + gamma + E_1(t).
        return mpmath.exp(-2 * (mpmath.log(t) + mpmath.euler + mpmath.e1(t))) if t > 0 else mpmath.mpf(1)

    with mpmath.workdps(20):
        expected = mpmath.quad(integrand, [0, 1, 10, 100]) + mpmath.exp(-2 * mpmath.euler) / 100
    # 1e-12: six times the quadrature tolerance of the package.
    assert theory.parking_constant() == pytest.approx(float(expected), rel=1e-12)
    assert theory.parking_constant() == pytest.approx(0.7475979, abs=1e-7)


def test_strong_centres_in_exact_arithmetic():
    n, share = 7, 0.2
    expected = sum((1 - share) ** i for i in range(n))
    assert theory.expected_strong_renyi_centres(tokens=n, separation=share * np.pi) == pytest.approx(
        expected, rel=1e-13
    )


def test_parking_constant_scales_the_centres():
    assert theory.expected_renyi_centres(0.01) == pytest.approx(theory.parking_constant() * 200 * np.pi)


@pytest.mark.parametrize("mass", [0.5, 0.2])
def test_cluster_lifetime_against_integration(mass):
    beta, angle = 6.0, 2.0
    time = theory.cluster_lifetime(beta=beta, angle=angle, mass=mass)

    def rates(_, angles):
        gap = angles[1] - angles[0]
        e = np.exp(beta * np.cos(gap))
        own = np.exp(beta)
        first = (1 - mass) * e * np.sin(gap) / (mass * own + (1 - mass) * e)
        second = -mass * e * np.sin(gap) / ((1 - mass) * own + mass * e)
        return [first, second]

    end = solve_ivp(rates, (0, time), [0.0, angle], "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    # 1e-6: the end is steep, an error of time is magnified.
    assert end[1] - end[0] == pytest.approx(angle / 2, rel=1e-6)


def test_asymptotic_lifetime_approaches_the_quadrature():
    errors = [
        theory.cluster_lifetime_asymptotic(beta=b, angle=2.0) / theory.cluster_lifetime(beta=b, angle=2.0) - 1
        for b in (20.0, 40.0, 80.0)
    ]
    # The relative error is O(1/beta): doubling beta halves it.
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.1)


def test_gaussian_lifetime_against_the_scalar_equation():
    expected, _ = quad(lambda d: (1 + np.exp(-d * d / 2)) / (2 * d * np.exp(-d * d / 2)), 2.0, 4.0, epsrel=1e-12)
    assert theory.gaussian_lifetime(4.0) == pytest.approx(expected, rel=1e-9)
    # Scale invariance: only separation/sigma matters.
    assert theory.gaussian_lifetime(4.0, mass=0.3) == pytest.approx(
        theory.gaussian_lifetime(separation=2.0, sigma=0.5, mass=0.3), rel=1e-9
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.equiangular_time(start=0.0, stop=1.0, beta=1.0, tokens=4), "stop must lie in"),
        (lambda: theory.equiangular_rate(similarity=0.0, beta=1.0, tokens=1), "tokens must be at least 2"),
        (lambda: theory.cluster_lifetime(beta=1.0, angle=4.0), "angle must lie in"),
        (lambda: theory.gaussian_lifetime(-1.0), "separation must be positive"),
        (lambda: theory.cluster_angle_rate(angle=1.0, beta=1.0, mass=1.0), "mass must lie in"),
    ],
)
def test_bad_arguments_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_counts_must_be_integers():
    with pytest.raises(TypeError, match="tokens must be an integer"):
        theory.equiangular_rate(similarity=0.0, beta=1.0, tokens=2.5)


def test_large_beta_does_not_overflow():
    # At beta = 2000 the affinities are far beyond the range of floats; a rate of 0 is the correct rounding.
    assert float(theory.equiangular_rate(similarity=0.0, beta=2000.0, tokens=8)) == 0.0
    assert float(theory.gap_rate(gap=3.0, beta=2000.0)) == 0.0
    assert float(theory.causal_gap_rate(gap=3.0, beta=-2000.0)) == pytest.approx(-np.sin(3.0))
