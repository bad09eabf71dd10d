"""Making densities: exact masses, quantiles, and what is refused."""

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import norm

import krause_dynamics as kd
from krause_dynamics import mean_field as mf

LINE = mf.LineCells(200, -6.0, 6.0)


def test_gaussian_masses_are_exact_in_both_tails():
    density = mf.gaussian(mf.LineCells(80, -20.0, 20.0))
    edges = density.cells.edges
    right = norm.sf(edges[-11]) - norm.sf(edges[-10])  # about 1e-51: lost if computed from 1 - 1
    assert density.mass[-11] == pytest.approx(right, rel=1e-9)
    np.testing.assert_allclose(density.mass, density.mass[::-1], rtol=1e-9)
    assert density.total == pytest.approx(1.0, abs=1e-15)


def test_moments_of_a_gaussian():
    density = mf.gaussian(LINE, mean=0.5, deviation=0.8)
    assert density.mean == pytest.approx(0.5, abs=1e-9)
    assert density.variance == pytest.approx(0.64 + LINE.width**2 / 12, abs=1e-9)  # Sheppard's correction


def test_von_mises_is_the_bessel_law():
    density = mf.von_mises(64, kappa=3.0)
    moment = density.mass @ np.cos(density.cells.centres) / np.sinc(1 / 64)
    # The mean of cos over a cell is its value at the centre times sinc: the midpoint sum is off by that, squared away.
    assert moment * np.sinc(1 / 64) == pytest.approx(ive(1, 3.0) / ive(0, 3.0), rel=5e-4)
    assert mf.von_mises(64, kappa=0.0).values == pytest.approx(np.full(64, 1 / (2 * np.pi)))


@pytest.mark.parametrize("dimension", [2, 3, 4, 8])
def test_latitudes_cover_the_sphere(dimension):
    cells = mf.LatitudeCells(40, dimension)
    assert cells.volumes.sum() == pytest.approx(1.0, abs=1e-14)
    sample = kd.Sphere().sample(40_000, dimension, rng=1)
    drawn = mf.from_particles(cells, sample).mass
    assert (
        np.abs(np.cumsum(drawn - cells.volumes)).max() < 0.012
    )  # Kolmogorov-Smirnov: 1.63/sqrt(N) at 1 %, half a cell


def test_uniform_on_part_of_the_cells():
    density = mf.uniform(mf.LineCells(10, 0.0, 1.0), (0.25, 0.7), mass=0.45)
    np.testing.assert_allclose(density.values, [0, 0, 0.5, 1, 1, 1, 1, 0, 0, 0], atol=1e-14)


def test_particles_keep_mass_and_mean():
    rng = np.random.default_rng(5)
    x, weight = rng.normal(size=300), rng.uniform(size=300)
    density = mf.from_particles(LINE, x, np.log(weight / weight.sum()))
    assert density.total == pytest.approx(1.0, abs=1e-14)
    assert density.mean == pytest.approx(weight @ x / weight.sum(), abs=1e-13)


def test_quantiles_of_uniform_and_across_empty_cells():
    np.testing.assert_allclose(mf.uniform(mf.LineCells(7, 0.0, 1.0)).quantiles(5)[:, 0], [0.1, 0.3, 0.5, 0.7, 0.9])
    halves = mf.Density(mf.LineCells(4, 0.0, 4.0), np.array([0.5, 0.0, 0.0, 0.5]))
    np.testing.assert_allclose(halves.quantiles(4)[:, 0], [0.25, 0.75, 3.25, 3.75])


def test_hermite_nodes_have_exact_moments():
    x, log_mass = mf.gaussian_nodes(12, mean=1.0, deviation=2.0)
    mass = np.exp(log_mass)
    assert mass.sum() == pytest.approx(1.0, abs=1e-14)
    assert mass @ (x[:, 0] - 1) ** 4 == pytest.approx(3 * 16.0, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mf.from_function(LINE, lambda x: x), "must not be negative"),
        (lambda: mf.from_function(LINE, lambda x: x * np.nan), "must not be negative or NaN"),
        (lambda: mf.from_function(LINE, np.zeros_like), "positive mass"),
        (lambda: mf.Density(LINE, np.zeros(200)), "positive mass"),
        (lambda: mf.Density(LINE, np.ones(3)), r"shape \(cells,\) = \(200,\)"),
        (lambda: mf.Density(LINE, np.full(200, np.inf)), "finite"),
        (lambda: mf.uniform(LINE, (7.0, 8.0)), "positive mass"),
        (lambda: mf.gaussian(LINE, deviation=0.0), "deviation"),
        (lambda: mf.from_particles(LINE, np.array([9.0])), "must lie in the cells"),
        (lambda: mf.von_mises(LINE, 1.0), "CircleCells"),
        (lambda: mf.von_mises(mf.LatitudeCells(9, 3), 1.0, mean=1.0), "mean must be 0"),
        (lambda: mf.LineCells(10, 1.0, 1.0), "lower must be less"),
        (lambda: mf.LatitudeCells(10, 1), "dimension"),
        (lambda: mf.uniform(mf.LatitudeCells(9, 3)).quantiles(5), "latitude is a ring"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_even_density_has_exactly_even_quantiles():
    density = mf.gaussian(mf.LineCells(301, -4.0, 4.0), deviation=0.9)
    for count in (1000, 1001):
        place = density.quantiles(count)[:, 0]
        np.testing.assert_array_equal(place, -place[::-1])
