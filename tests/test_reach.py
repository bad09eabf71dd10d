"""`Reach` against the neighbourhoods that it stands for: the same pairs, as whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.interaction import Request, reference
from krause_dynamics.interaction.reach import Reach

PLACES = 24

RULES = {
    "everyone": kd.Everyone(),
    "causal": kd.Causal(),
    "window": kd.Window(5),
    "centred": kd.Window(5, two_sided=True),
    "centred and causal": kd.Window(7, two_sided=True) & kd.Causal(),
    "two windows": kd.Window(9, two_sided=True) & kd.Window(3),
    "longer than the row": kd.Window(100),
    "squares": kd.Grid(4, 6, 1),
    "diamonds, two leading": kd.Grid(2, 11, 2, metric="manhattan", prefix=2),
    "picture in a window": kd.Grid(4, 6, 2) & kd.Window(9),
}


def admitted(neighbourhood, library=np.asarray):
    x = library(np.random.default_rng(0).normal(size=(PLACES, 2)))
    return np.asarray(reference.admitted(kd.Interaction(kd.Flat(), neighbourhood), Request.of(x)))


@pytest.mark.parametrize("name", RULES)
def test_interval_and_cells_are_what_the_neighbourhood_admits(name, library):
    reach, i = RULES[name].reach, library(np.arange(PLACES))
    first, last = reach.interval(i, PLACES)
    inside = (i >= first[:, None]) & (i < last[:, None])
    if reach.grid:
        inside = inside & reach.near(i[:, None], i[None, :])
    np.testing.assert_array_equal(np.asarray(inside), admitted(RULES[name]))


@pytest.mark.parametrize("name", RULES)
def test_bounds_hold_all_that_is_admitted(name):
    """`row_length` and `band` leave out rows and columns of leading tokens, which hear and are heard by all."""
    reach, pairs = RULES[name].reach, admitted(RULES[name])
    prefix = reach.prefix
    assert pairs[:prefix].all()
    assert pairs[:, :prefix].all()
    assert pairs[prefix:].sum(1).max() <= reach.row_length(PLACES)
    i, j = np.nonzero(pairs[prefix:, prefix:])
    left, right = (PLACES if bound == -1 else bound for bound in reach.band)
    assert (i - j).max() <= left
    assert (j - i).max() <= right
    low, high = reach.offsets
    assert (i - j).min() >= low
    assert (i - j).max() <= high


def test_one_number_and_an_array_give_the_same_interval():
    reach = Reach(4, 2)
    for position in (-9, 0, 3, 20, 40):
        assert reach.interval(position, PLACES) == tuple(
            int(x[0]) for x in reach.interval(np.array([position]), PLACES)
        )
    assert Reach().interval(7, PLACES) == (0, PLACES)


def test_rows_of_numbers_are_read_back():
    for reach in (Reach(), Reach(3, 0, (), 5, True), Reach(grid=(4, 5, 2, 1, 3), top_k=2)):
        assert Reach.from_numbers(reach.numbers) == reach


@pytest.mark.parametrize(
    ("neighbourhood", "words"),
    [
        (kd.Others(), "Others"),
        (kd.Within(1.0) & kd.Window(3), "Within"),
        (kd.Window(3, periodic=True), "ring"),
        (kd.Grid(4, 6) & kd.Grid(6, 4), "two pictures"),
        (kd.Segments(torch.tensor([0, 24])), "Segments"),
    ],
)
def test_what_has_no_reach_says_why(neighbourhood, words):
    assert words in neighbourhood.reach
