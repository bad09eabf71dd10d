"""Dynamics against closed forms: two particles, beta = 0, equiangular tokens (THEORY section 3)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import krause_dynamics as kd

CIRCLE = kd.Circle()


def final_gap(rule, gap, t_end):
    angles = np.array([-gap / 2, gap / 2])
    run = kd.simulate(kd.Dynamics(rule, CIRCLE), CIRCLE.from_angles(angles), t_end, dt=0.01, save_every=10**6)
    return float(np.diff(CIRCLE.to_angles(run.final))[0])


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("normalised", [True, False])
def test_two_particles_on_the_circle(beta, normalised):
    """d(gap)/dt = -2 w(gap) sin(gap), w the weight of the other: softmax, or exp(beta cos gap) / 2 per capita."""

    def weight(gap):
        other = np.exp(beta * np.cos(gap))
        return other / (np.exp(beta) + other) if normalised else other / 2

    exact = solve_ivp(lambda t, g: -2 * weight(g) * np.sin(g), (0, 1.0), [2.0], rtol=1e-11, atol=1e-12).y[0, -1]
    got = final_gap(kd.softmax(beta, normalised=normalised), 2.0, 1.0)
    assert got == pytest.approx(exact, abs=1e-7)  # RK4 at dt = 0.01 with drifts up to e^5: dt^4 times derivatives


def test_two_particles_of_different_mass():
    """The heavier pulls: angles move by the mass of the other, so mass-weighted sum is kept at beta = 0 first order."""
    p = 0.7
    x0 = CIRCLE.from_angles(np.array([0.0, 1.0]))
    run = kd.Dynamics(kd.softmax(0.0), CIRCLE).drift(0.0, x0, np.log([p, 1 - p]))
    np.testing.assert_allclose(np.linalg.norm(run, axis=-1), np.array([1 - p, p]) * np.sin(1.0), atol=1e-14)


def equiangular(n, rho):
    """n unit vectors in R^n with all inner products rho."""
    return np.linalg.cholesky(np.full((n, n), rho) + (1 - rho) * np.eye(n))


@pytest.mark.parametrize(("beta", "normalised"), [(0.0, True), (1.0, True), (4.0, True), (1.0, False), (-1.0, False)])
def test_equiangular_tokens(beta, normalised):
    """rho' = 2 e^{b rho}(1-rho)(1+(n-1)rho)/(e^b+(n-1)e^{b rho}) (SA), the divisor n per capita (USA)."""
    n, rho0, t_end = 8, 0.1, 1.5

    def rate(t, rho):
        divisor = np.exp(beta) + (n - 1) * np.exp(beta * rho) if normalised else n
        return 2 * np.exp(beta * rho) * (1 - rho) * (1 + (n - 1) * rho) / divisor

    exact = solve_ivp(rate, (0, t_end), [rho0], rtol=1e-11, atol=1e-12).y[0, -1]
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Sphere())
    x = kd.simulate(dynamics, equiangular(n, rho0), t_end, dt=0.02, save_every=10**6).final
    inner = (x @ x.T)[~np.eye(n, dtype=bool)]
    np.testing.assert_allclose(inner, exact, atol=1e-6)


def test_beta_zero_has_the_closed_form():
    """rho(t) = (e^{2t}-1)/(e^{2t}+n-1) from orthogonal tokens; SA and USA agree."""
    n, t = 6, 1.0
    for normalised in (True, False):
        dynamics = kd.Dynamics(kd.softmax(0.0, normalised=normalised), kd.Sphere())
        x = kd.simulate(dynamics, np.eye(n), t, dt=0.01, save_every=10**6).final
        assert (x @ x.T)[0, 1] == pytest.approx((np.exp(2 * t) - 1) / (np.exp(2 * t) + n - 1), abs=1e-8)


def test_full_range_contraction(rng):
    """Radius over the diameter: every deviation shrinks by e^{-t}, Var(t) = Var(0) e^{-2t} (THEORY section 2)."""
    x0 = rng.uniform(size=(20, 2))
    for normalised in (True, False):
        rule = kd.bounded_confidence(10.0, normalised=normalised)
        run = kd.simulate(kd.Dynamics(rule), x0, 2.0, dt=0.02)
        variance = run.positions.var(axis=1).sum(-1)
        np.testing.assert_allclose(variance, variance[0] * np.exp(-2 * run.times), rtol=1e-8)


def test_per_capita_drift_is_n_times_the_energy_gradient(rng):
    """E = 1/(2 beta n^2) sum exp(beta <x_i,x_j>): n times its projected gradient is the USA drift; E never falls."""
    n, beta = 10, 3.0
    x = kd.Sphere().sample(n, 3, rng=1)

    def energy(points):
        return np.exp(beta * points @ points.T).sum() / (2 * beta * n**2)

    numerical = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        numerical[index] = (energy(x + step) - energy(x - step)) / 2e-6
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Sphere())
    projected = kd.Sphere().project(x, n * numerical)
    np.testing.assert_allclose(dynamics.drift(0.0, x), projected, atol=1e-7)  # central differences: 1e-12 / 1e-6
    run = kd.simulate(dynamics, x, 3.0, dt=0.01)
    energies = np.array([energy(state) for state in run.positions])
    assert (np.diff(energies) >= -1e-13).all()
    assert energies[-1] > energies[0]
