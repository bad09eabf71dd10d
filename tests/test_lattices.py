"""What counts as a lattice: even steps up to rounding, alike for queries and sources, on a line or round a circle."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics.forms.lattice.lattices import UNEVEN, find_lattice
from krause_dynamics.interaction import Request

N, STEP = 200, 0.25  # steps that floats hold, so that unevenness is what is put in
LINE = np.arange(N)[:, None] * STEP


def found(queries, sources=None, **rest):
    return find_lattice(Request.of(queries, sources, **rest))


def around(count, first=0.0):
    angles = first + 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def moved(points, place, by):
    points = points.copy()
    points[place] += by
    return points


def test_a_lattice_says_its_step_offset_and_places():
    lattice = found(LINE + 3.0, LINE[:50])
    assert (lattice.step, lattice.cyclic, lattice.offset, lattice.places) == (STEP, False, 3.0, (N, 50))
    circle = found(around(12, first=0.5), around(12))
    assert (circle.cyclic, circle.places) == (True, (12, 12))
    np.testing.assert_allclose((circle.step, circle.offset), (2 * np.pi / 12, 0.5), rtol=1e-14)
    assert found(LINE[:2]).places == (2, 2)  # two points have a step
    assert found(around(3)).cyclic


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("place", [0, 7, N - 1])
def test_a_step_may_be_uneven_by_its_rounding_alone(which, place):
    for share, even in ((0.5, True), (1.9, False)):
        grids = [LINE, LINE]
        grids[which] = moved(LINE, place, share * UNEVEN * STEP)
        assert (not isinstance(found(*grids), str)) == even, share


def test_far_from_the_origin_rounding_is_that_of_the_positions():
    """A step of 1/4 at 1e7 is known to 1e-9; at 3e8 a unit in the last place is 6e-8."""
    for place in (1e7, 3e8):
        for grid in (LINE + place, LINE - place):
            rounding = np.spacing(place)
            assert not isinstance(found(moved(grid, 7, 4 * rounding)), str)
            assert not isinstance(found(grid, moved(LINE, 7, 4 * rounding)), str)
            assert not isinstance(found(LINE, moved(grid, 7, 4 * rounding)), str)
            assert "evenly" in found(moved(grid, 7, 24 * rounding))


@pytest.mark.parametrize(("share", "same"), [(0.4, True), (1.6, False)])
def test_two_steps_are_one_if_no_place_of_the_table_moves_by_a_ten_millionth_of_it(share, same):
    # Of long grids: of short ones the unevenness of a step decides.
    for count in (N, 2 * N):
        longer = np.arange(count)[:, None] * STEP
        step = STEP * (1 + share * 1e-7 / count)
        for queries, sources in ((LINE, np.arange(count)[:, None] * step), (longer, LINE * step / STEP)):
            answer = found(queries, sources)
            assert answer == "queries and sources have different steps, or are not increasing" or same
            assert isinstance(answer, str) != same


@pytest.mark.parametrize(
    ("arguments", "rest", "reason"),
    [
        ((LINE[::-1],), {}, "not increasing"),
        ((LINE, LINE[::-1]), {}, "different steps"),
        ((np.zeros((5, 1)),), {}, "not increasing"),
        ((LINE[:1],), {}, "at least two points"),
        ((LINE, LINE[:1]), {}, "at least two points"),
        ((LINE[None],), {}, "batch axes"),
        ((LINE, LINE, np.zeros((3, N, 1))), {}, "batch axes"),
        ((LINE,), {"log_mass": np.zeros((2, N))}, "log_mass has batch axes"),
        ((LINE.astype(np.float32),), {}, "float64"),
        ((np.zeros((5, 3)),), {}, "more than two dimensions"),
        ((around(12), around(11)), {}, "different numbers"),
        ((around(24)[:12],), {}, "once round"),
        ((around(12)[::-1],), {}, "once round"),
        ((around(12) * (1 + 2e-9),), {}, "unit circle"),
        ((around(12), around(12) * (1 - 2e-9)), {}, "unit circle"),
        ((around(12), moved(around(12, 0.3), 4, 1e-9 * around(12, 0.3 + np.pi / 2)[4])), {}, "even steps"),
    ],
)
def test_what_is_no_lattice_is_told_apart(arguments, rest, reason):
    queries, sources, values = (*arguments, None, None)[:3]
    assert reason in find_lattice(Request.of(queries, sources, values, **rest))


def test_masses_without_batch_axes_and_points_nearly_on_the_circle_are_taken():
    assert found(LINE, log_mass=np.zeros(N)).places == (N, N)
    assert found(around(12) * (1 + 2e-10)).cyclic
    assert found(around(12), moved(around(12), 4, 2e-10 * around(12, np.pi / 2)[4])).cyclic


@pytest.mark.parametrize("offset", [0.0, 0.25])
@pytest.mark.parametrize("places", [1, 2, 5, 7])
def test_a_chord_of_the_circle_s_own_places_is_refused_and_others_are_not(places, offset):
    count = 16
    step = 2 * np.pi / count
    for turn in (places + offset, places - offset):
        chord = 2 * np.sin(turn * step / 2)
        queries, sources = around(count, offset * step), around(count)
        with pytest.raises(kd.UnsupportedImplementation, match="equals a distance"):
            kd.aggregate(kd.bounded_confidence(chord), queries, sources, impl="convolution")
        rule = kd.bounded_confidence(chord + 0.02)
        fast, exact = (kd.aggregate(rule, queries, sources, impl=impl) for impl in ("convolution", "reference"))
        np.testing.assert_allclose(fast.log_partition, exact.log_partition, atol=1e-12)


@pytest.mark.parametrize("radius", [2.0, 2.5, np.inf])
def test_a_radius_of_the_diameter_or_more_hears_all_round(radius):
    points = around(17)  # odd: no two points are opposite
    fast = kd.aggregate(kd.bounded_confidence(radius), points, impl="convolution")
    np.testing.assert_allclose(fast.log_partition, np.log(17), rtol=1e-14)
    np.testing.assert_allclose(fast.mean, 0.0, atol=1e-14)


def test_means_stay_between_the_extremes_of_their_own_column():
    """A column of equal values has that mean exactly, whatever lies in the columns beside it."""
    rng = np.random.default_rng(0)
    values = np.stack([np.full(N, 0.1), rng.normal(size=N), np.full(N, -7.3), 1e6 * rng.normal(size=N)], axis=-1)
    for rule in (kd.krause(1.0), kd.krause(0.3, kd.Within(1.1))):
        for log_mass in (None, -0.5 * (LINE[:, 0] - 20) ** 2):
            mean = kd.aggregate(rule, LINE, LINE, values, log_mass=log_mass, impl="convolution").mean
            assert (mean >= values.min(axis=0)).all()
            assert (mean <= values.max(axis=0)).all()
            exact = kd.aggregate(rule, LINE, LINE, values, log_mass=log_mass, impl="reference").mean
            np.testing.assert_allclose(mean / [1, 1, 1, 1e6], exact / [1, 1, 1, 1e6], atol=1e-7)
