"""Zonal densities: rings of Gauss-Jacobi nodes against quadrature, closed forms in every dimension, particles."""

import numpy as np
import pytest
from scipy.special import gamma, iv

import krause_dynamics as kd
from krause_dynamics import mean_field as mf
from krause_dynamics import theory
from krause_dynamics.mean_field.velocity import Velocity


def ring_mean(z, dimension):
    """Mean of exp(z u) and of u exp(z u) for u = <omega, e> with omega uniform on S^{d-2}, by Bessel functions."""
    if dimension == 2:
        return np.cosh(z), np.sinh(z)
    nu = (dimension - 3) / 2
    factor = gamma(nu + 1) * (2 / z) ** nu
    return factor * iv(nu, z), factor * iv(nu + 1, z)


@pytest.mark.parametrize("dimension", [2, 3, 4, 8])
def test_sixteen_ring_nodes_are_exact_to_rounding(dimension):
    beta, cells = 4.0, mf.LatitudeCells(60, dimension)
    mass = np.zeros(60)
    mass[20] = 1.0  # one latitude: the sum over rings is one ring
    faces = np.linspace(0.2, 3.0, 12)
    velocity = Velocity(kd.Dynamics(kd.softmax(beta), kd.Sphere()), cells, faces, nodes=16)(0.0, mass, np.zeros(60))
    angle = cells.centres[20]
    plain, along = ring_mean(beta * np.sin(faces) * np.sin(angle), dimension)
    # The factor exp(beta cos cos') is common to the ring.
    exact = -np.sin(faces) * np.cos(angle) + np.cos(faces) * np.sin(angle) * along / plain
    np.testing.assert_allclose(velocity, exact, rtol=0, atol=4e-15)


@pytest.mark.parametrize("dimension", [2, 3, 4, 8])
@pytest.mark.parametrize("normalised", [True, False])
def test_first_mode_grows_as_linear_theory_says(dimension, normalised):
    beta = 3.0
    rate = float(theory.mode_growth(degree=1, beta=beta, dimension=dimension, normalised=normalised))
    errors = []
    for count in (40, 80):
        cells = mf.LatitudeCells(count, dimension)
        start = mf.from_function(cells, lambda angle: 1 + 1e-4 * np.cos(angle))
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Sphere())
        run = mf.solve(dynamics, start, 0.5 / rate, save_at=2, max_dt=0.03 / rate)
        before, after = (mf.density_at(run, i).mass @ np.cos(cells.centres) for i in (0, -1))
        errors.append(abs(np.log(after / before) / (0.5 / rate) / rate - 1))
    assert errors[1] < 2e-3
    assert errors[1] < errors[0] / 3  # order 2


@pytest.mark.parametrize("dimension", [3, 5])
def test_noise_damps_modes_at_the_rate_of_the_laplacian(dimension):
    cells = mf.LatitudeCells(80, dimension)
    start = mf.from_function(cells, lambda angle: 1 + 0.1 * np.cos(angle))
    # A negligible beta: USA at beta = 0 pulls mode 1 by kappa_1/beta (d - 1) = (d - 1)/d.
    dynamics = kd.Dynamics(kd.softmax(0.0, normalised=False), kd.Sphere(), noise=1.0)
    run = mf.solve(dynamics, start, 0.1, save_at=2, max_dt=0.01)
    before, after = (mf.density_at(run, i).mass @ np.cos(cells.centres) for i in (0, -1))
    expected = (dimension - 1) * (1 / dimension - 0.5)
    assert np.log(after / before) / 0.1 == pytest.approx(expected, abs=0.01)  # amplitude 0.1: nonlinear at 1 %


def test_uniform_law_rests_and_mass_is_kept():
    cells = mf.LatitudeCells(50, 4)
    run = mf.solve(kd.Dynamics(kd.softmax(5.0), kd.Sphere(), noise=0.3), mf.uniform(cells), 2.0, save_at=3)
    np.testing.assert_allclose(mf.density_at(run).values, 1.0, atol=8e-3)  # h = 0.06; order h^2 at the poles
    moving = mf.solve(kd.Dynamics(kd.softmax(5.0), kd.Sphere()), mf.von_mises(cells, 1.0), 8.0, save_at=5)
    masses = np.exp(moving.log_mass)
    assert (masses >= 0).all()
    np.testing.assert_allclose(masses.sum(axis=-1), 1.0, atol=1e-12)
    (cluster,) = mf.clusters(moving)
    assert cluster.position < 2 * cells.width


def test_gaussian_and_dot_product_agree_on_the_sphere():
    cells = mf.LatitudeCells(40, 3)
    runs = [
        mf.solve(kd.Dynamics(rule, kd.Sphere()), mf.von_mises(cells, 0.5), 1.0, save_at=2)
        for rule in (kd.softmax(4.0), kd.krause(0.5))
    ]
    np.testing.assert_allclose(np.exp(runs[0].log_mass), np.exp(runs[1].log_mass), atol=1e-13)


def test_zonal_density_follows_particles():
    n, t = 2000, 1.0
    x0 = kd.Sphere().retract(kd.Sphere().sample(n, 3, rng=0) + np.array([0.6, 0.0, 0.0]))
    dynamics = kd.Dynamics(kd.softmax(2.0), kd.Sphere())
    particles = kd.simulate(dynamics, x0, t, dt=0.1, save_every=100).final
    cells = mf.LatitudeCells(60, 3)
    law = mf.density_at(mf.solve(dynamics, mf.from_particles(cells, x0), t, save_at=2))
    mean = law.mass @ np.cos(law.cells.centres)
    assert mean == pytest.approx(particles[:, 0].mean(), abs=0.01)  # azimuthal noise of the sample, 1/sqrt(n) squared


@pytest.mark.parametrize(
    ("dynamics", "words"),
    [
        (kd.Dynamics(kd.krause(1.0, kd.Within(0.5)), kd.Sphere()), "smooth score"),
        (kd.Dynamics(kd.softmax(1.0), kd.Sphere(), value=np.diag([1.0, 2.0, 3.0])), "symmetry"),
        (kd.Dynamics(kd.softmax(1.0), kd.Circle()), "zonal density needs"),
        (kd.Dynamics(kd.softmax(400.0), kd.Sphere()), "cells must be at least 252"),
    ],
)
def test_refusals(dynamics, words):
    with pytest.raises(ValueError, match=words):
        mf.solve(dynamics, mf.uniform(mf.LatitudeCells(30, 3)), 1.0)
