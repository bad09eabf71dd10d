"""Layers of a density, quantiles, and the clusters that remain."""

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field as mf
from krause_dynamics import theory


def confident(radius=1.0, **options):
    return kd.Dynamics(kd.bounded_confidence(radius), **options)


@pytest.mark.parametrize("dt", [1.0, 0.4])
def test_gaussian_layers_with_order_two(dt):
    errors = []
    for count in (100, 200, 400):
        cells = mf.LineCells(count, -6.0, 6.0)
        run = mf.iterate(kd.Dynamics(kd.krause(1.0)), mf.gaussian(cells), 2, dt=dt)
        deviation = theory.gaussian_rule_deviation_step(deviation=1.0, sigma=1.0, step=dt)
        deviation = float(theory.gaussian_rule_deviation_step(deviation=deviation, sigma=1.0, step=dt))
        errors.append(np.abs(mf.density_at(run).mass - mf.gaussian(cells, deviation=deviation).mass).sum())
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 1.8).all()
    assert errors[-1] < 0.01


def test_edge_and_density_after_one_step():
    start = mf.uniform(mf.LineCells(400, 0.0, 4.0), mass=4.0)
    run = mf.iterate(confident(), start, 1)
    density = mf.density_at(run)
    inside = density.cells.centres < 2.0
    expected = theory.density_after_one_step(position=density.cells.centres[inside], radius=1.0)
    # Exact but for the cells at the two jumps, R/2 and R.
    assert np.abs(density.values[inside] - expected).sum() * density.cells.width < 0.015


def test_mass_and_mean_are_kept_where_the_map_keeps_them():
    start = mf.gaussian(mf.LineCells(150, -4.0, 4.0), 0.3, 0.45)
    run = mf.iterate(confident(8.0), start, 3, dt=0.3)  # everyone hears everyone: the mean rests
    densities = [mf.density_at(run, i) for i in range(len(run))]
    assert all(d.mass.min() >= 0 for d in densities)
    np.testing.assert_allclose([d.total for d in densities], 1.0, atol=1e-13)
    np.testing.assert_allclose([d.mean for d in densities], densities[0].mean, atol=1e-12)


def test_an_atom_stays_where_it_is_and_weighs_what_it_should():
    cells = mf.LineCells(100, 0.0, 5.0)
    atoms = np.array([[0.733], [2.9], [4.111]])
    start = mf.from_particles(cells, atoms, np.log([0.2, 0.5, 0.3]))
    run = mf.iterate(confident(), start, 50)
    assert run.meta["stopped"] == "still"
    assert run.steps == 0
    found = mf.clusters(run)
    np.testing.assert_allclose([c.position for c in found], atoms[:, 0], atol=1e-12)
    np.testing.assert_allclose([c.mass for c in found], [0.2, 0.5, 0.3], atol=1e-14)


@pytest.mark.parametrize("length", [3.0, 7.5, 8.0, 12.0, 16.0])
def test_uniform_density_ends_in_the_known_number_of_clusters(length):
    expected = theory.UNIFORM_DENSITY_CLUSTERS[length]
    start = mf.uniform(mf.LineCells(int(320 * length), 0.0, length))
    eulerian = mf.clusters(mf.iterate(confident(), start, 40, save_every=40), floor=1e-4)
    lagrangian = mf.settle(start, 1.0, count=100_001)
    assert lagrangian.frozen
    assert len(eulerian) == len(lagrangian.clusters) == expected
    for field in ("position", "mass"):
        pair = [[getattr(c, field) for c in found] for found in (eulerian, lagrangian.clusters)]
        np.testing.assert_allclose(*pair, atol=0.003)  # a cell of the grid


def test_branch_points_of_the_discrete_map():
    first, second = theory.CONSENSUS_BRANCH_POINTS  # published to two digits, found by quantiles to 0.01
    for length, expected in ((first, 1), (first + 0.01, 3), (second, 3), (second + 0.01, 1), (second + 0.13, 1)):
        outcome = mf.settle(mf.uniform(mf.LineCells(100, 0.0, length)), 1.0, count=100_001)
        assert outcome.frozen
        assert len(outcome.clusters) == expected
    assert outcome.steps > 1000  # consensus above L2 takes its time


def test_an_even_number_of_quantiles_splits_in_two_much_earlier():
    # Deffuant 2024: about 5.1 for n = 1e4, where odd numbers agree up to 5.23.
    law = mf.uniform(mf.LineCells(100, 0.0, 5.2))
    assert len(mf.settle(law, 1.0, count=10_000).clusters) == 2
    assert len(mf.settle(law, 1.0, count=10_001).clusters) == 1


def test_following_quantiles_keeps_their_order_and_masses():
    start = mf.uniform(mf.LineCells(60, 0.0, 6.0), mass=6.0)
    run = mf.follow(kd.Dynamics(kd.bounded_confidence(1.0, normalised=False)), start, 0.5, count=121, dt=0.1)
    assert (np.diff(run.final[:, 0]) > 0).all()
    assert np.exp(run.log_mass).sum() == pytest.approx(6.0)
    discrete = mf.follow(confident(), start, 1.0, count=121, dt=1.0, integrator=kd.Euler())
    assert discrete.final[0, 0] == pytest.approx(start.quantiles(121)[0, 0] + theory.edge_jump(1.0), abs=0.05)


def test_clusters_of_a_lagrangian_run():
    run = mf.follow(
        confident(), mf.uniform(mf.LineCells(60, 0.0, 7.5)), 12.0, count=1501, dt=1.0, integrator=kd.Euler()
    )
    found = mf.clusters(run)
    assert len(found) == 3
    assert found[1].position == pytest.approx(3.75, abs=1e-9)


def test_clusters_join_across_the_seam_of_a_torus():
    cells = mf.LineCells(60, 0.0, 6.0)
    start = mf.from_particles(cells, np.array([0.05, 5.95, 3.0]), np.log([0.3, 0.3, 0.4]))
    run = mf.iterate(confident(space=kd.Torus(6.0)), start, 5)
    masses = sorted(c.mass for c in mf.clusters(run))
    np.testing.assert_allclose(masses, [0.4, 0.6], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: mf.iterate(confident(noise=0.1), d, 1), "noise"),
        (lambda d: mf.iterate(confident(), d, 0), "steps"),
        (lambda d: mf.iterate(confident(0.2), d, 1), "cells must be at least 100"),
        (lambda d: mf.iterate(kd.Dynamics(kd.softmax(1.0), kd.Circle()), mf.von_mises(50, 1.0), 1), "LineCells"),
        (lambda d: mf.follow(confident(noise=0.1), d, 1.0), "noise"),
        (lambda d: mf.follow(kd.Dynamics(kd.krause(1.0, kd.Window(3))), d, 1.0), "Window looks at indices"),
        (lambda d: mf.settle(mf.von_mises(50, 1.0), 1.0), "LineCells"),
        (lambda d: mf.settle(d, -1.0), "radius"),
        (lambda d: mf.density_at(mf.follow(confident(), d, 0.1, count=9)), "must come from"),
        (lambda d: mf.clusters(mf.follow(kd.Dynamics(kd.krause(1.0)), d, 0.1, count=9)), "gap must be given"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call(mf.uniform(mf.LineCells(50, 0.0, 5.0)))


def test_even_densities_end_evenly_also_near_a_branch_point():
    for length in (5.2315, 5.2322, 5.674):
        outcome = mf.settle(mf.uniform(mf.LineCells(777, 0.0, length)), 1.0, count=20_001)
        place = np.array([c.position for c in outcome.clusters]) - length / 2
        mass = np.array([c.mass for c in outcome.clusters])
        np.testing.assert_allclose(mass, mass[::-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(place, -place[::-1], rtol=0, atol=1e-9)


def test_lagrangian_runs_on_closed_lines_end_as_clusters_across_the_seam():
    circle = kd.Dynamics(kd.softmax(4.0), kd.Circle())
    # An even count: the middle quantile of an odd one sits at the far point, and stays there.
    (found,) = mf.clusters(mf.follow(circle, mf.von_mises(64, 4.0), 20.0, count=100), gap=0.1)
    assert found.mass == pytest.approx(1.0)
    assert min(found.position, 2 * np.pi - found.position) < 1e-9
    law = mf.from_function(mf.LineCells(64, 0.0, 4.0), lambda x: np.where(abs(x - 2) > 1.5, 1.0, 0.0))
    torus = kd.Dynamics(kd.bounded_confidence(1.2), kd.Torus(4.0))
    (found,) = mf.clusters(mf.follow(torus, law, 3.0, count=100))
    assert found.mass == pytest.approx(1.0)
    assert min(found.position, 4.0 - found.position) < 1e-9


def test_a_radius_on_the_circle_separates_clusters_by_its_angle():
    state = kd.Trajectory(
        np.zeros(1),
        mf.CircleCells(8).points(np.array([0.0, 1.1, 3.0]))[None],
        meta={"dynamics": kd.Dynamics(kd.bounded_confidence(1.05), kd.Circle()).to_dict()},
    )
    # The chord of 1.1 is 1.0457, within a radius of 1.05.
    assert [c.mass for c in mf.clusters(state)] == pytest.approx([2 / 3, 1 / 3])


def test_positions_on_the_circle_stay_below_a_turn():
    even = mf.von_mises(128, 1.0)  # its mean is 0 to rounding, from either side
    (found,) = mf.clusters(even)
    assert 0.0 <= found.position < 2 * np.pi
    (found,) = mf.clusters(mf.Density(even.cells, np.where(abs(even.cells.centres - np.pi) > 2, even.mass, 0.0)))
    assert 0.0 <= found.position < 2 * np.pi


def test_mass_that_leaves_the_cells_ends_the_layers():
    """It was gathered in the end cells without a word."""
    density = mf.gaussian(mf.LineCells(64, -3.0, 3.0), 0.5, 0.5)
    for rule, dt in ((kd.krause(1.0), 50.0), (kd.krause(1.0), 1e9)):
        with pytest.raises(kd.SimulationDiverged, match="mass leaves the cells in layer 1; take a smaller dt"):
            mf.iterate(kd.Dynamics(rule), density, 2, dt=dt)
    torus = mf.uniform(mf.LineCells(64, 0.0, 1.0), (0.2, 0.5))
    ring = kd.Dynamics(kd.bounded_confidence(0.2), kd.Torus(1.0))
    with pytest.raises(kd.SimulationDiverged, match="one cell is spread around the whole torus"):
        mf.iterate(ring, torus, 2, dt=1e9)
    assert mf.iterate(ring, torus, 2).final.shape == (64, 1)
