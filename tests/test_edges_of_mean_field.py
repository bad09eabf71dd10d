"""The mean field at its edges: poles without area, shares of what leaves, atoms exactly a radius apart."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field as mf
from krause_dynamics.mean_field.cells import CircleCells, LatitudeCells, LineCells
from krause_dynamics.mean_field.finite_volumes import Rates
from krause_dynamics.mean_field.velocity import _cuts


@pytest.mark.parametrize("d", [2, 3, 5])
def test_circles_of_latitude_have_their_areas_and_poles_none(d):
    cells = LatitudeCells(6, d)
    inner = np.sin(np.pi * np.arange(1, 6) / 6) ** (d - 2)
    assert cells.areas.shape == (7,)
    assert (cells.areas[[0, -1]] == 0).all()
    np.testing.assert_allclose(cells.areas[1:-1] / cells.areas[3], inner, rtol=1e-14)


@pytest.mark.parametrize("periodic", [True, False])
def test_limited_rates_leave_each_cell_with_its_share(periodic, rng):
    faces = 5 if periodic else 4
    rates = Rates(rng.random(faces), rng.random(faces), periodic)
    share = rng.random(5)
    limited = rates.limited(share)
    np.testing.assert_allclose(limited.leaving, rates.leaving * share, rtol=1e-15)
    for one in (rates, limited):
        assert abs(one.change.sum()) < 1e-15  # nothing is lost
    assert limited.periodic == periodic
    # What leaves arrives next door: forward crosses the left face of each cell, backward goes back across it.
    arriving = limited.change + limited.leaving
    left = np.roll(share, 1) if periodic else share[:-1]
    expected = rates.forward * left
    others = np.roll(rates.backward * share, -1) if periodic else np.append(rates.backward * share[1:], 0.0)
    expected = expected + others if periodic else np.insert(expected, 0, 0.0) + others
    np.testing.assert_allclose(arriving, expected, rtol=1e-13)


def test_atoms_exactly_a_radius_apart_are_one_cluster():
    """Of 0, 1, 2, 3 and radius 1 one step makes 1/2, 1, 2, 5/2: gaps of 1/2, 1 and 1/2."""
    density = mf.uniform(LineCells(4, -0.5, 3.5))
    np.testing.assert_array_equal(density.quantiles(4)[:, 0], [0, 1, 2, 3])
    outcome = mf.settle(density, 1.0, count=4, max_steps=1)
    assert len(outcome.clusters) == 1
    assert (outcome.clusters[0].mass, outcome.clusters[0].position) == (1.0, 1.5)
    assert len(mf.settle(density, 0.75, count=4, max_steps=1).clusters) == 4


def test_a_density_may_be_a_function_of_any_number_type():
    cells = LineCells(8, 0.0, 2.0)
    known = mf.from_function(cells, lambda x: 1.0 + x)
    for kind in (np.float32, np.float64):
        found = mf.from_function(cells, lambda x, kind=kind: (1 + x).astype(kind))
        np.testing.assert_allclose(found.mass, known.mass, rtol=1e-6)
        assert found.mass.dtype == np.float64
    np.testing.assert_allclose(mf.from_function(cells, lambda x: 3).mass, 1 / 8, rtol=1e-14)
    np.testing.assert_allclose(mf.from_function(cells, lambda x: x > 1.0).mass, [0] * 4 + [0.25] * 4, rtol=1e-14)


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan])
def test_layers_have_a_positive_length(dt):
    dynamics = kd.Dynamics(kd.bounded_confidence(1.0))
    with pytest.raises(ValueError, match="dt"):
        mf.iterate(dynamics, mf.uniform(LineCells(40, 0.0, 4.0)), 2, dt=dt)


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("part", [0.25, 0.7])
def test_a_radius_cuts_the_cells_at_its_part_of_a_width(whole, part):
    line, circle = LineCells(10, 0.0, 5.0), CircleCells(12)
    reach = whole + part
    ends = sorted([0.0, part, 1 - part, 1.0])
    np.testing.assert_allclose(_cuts(kd.bounded_confidence(0.5 * reach), line), ends, atol=1e-12)
    chord = 2 * np.sin(reach * 2 * np.pi / 12 / 2)
    np.testing.assert_allclose(_cuts(kd.bounded_confidence(chord), circle), ends, atol=1e-12)
    assert _cuts(kd.krause(1.0), line) == [0.0, 1.0]
    assert _cuts(kd.bounded_confidence(3.0), circle) == [0.0, 1.0]  # half a turn: six cells
