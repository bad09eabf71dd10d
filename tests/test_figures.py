"""What figures say does not change unseen."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krause_dynamics as kd
from tests.figures import FIGURES, LOOK, words
from tests.grey import confused, lightness
from tests.keywords.public import callables

SNAPSHOT = Path(__file__).with_name("figures.txt")


def test_figures_say_what_the_snapshot_says():
    """After a wanted change: ``python -m tests.figures > tests/figures.txt``, and read the difference."""
    with kd.plots.style(LOOK):
        now = list(words())
    assert not [line for line in now if "CUT" in line or "SQUEEZED" in line]  # in one column of a paper
    assert not [line for line in now if "GREY" in line]  # printed without colours
    assert now == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_what_a_grey_print_confuses_is_found():
    """Pure hues of one lightness, a map that turns, fills side by side; strokes, marks and viridis are told apart."""
    figure, (left, right) = plt.subplots(1, 2)
    for name, look in {"a": "C0-", "b": "C0--", "c": "C0o-", "d": "k-"}.items():
        left.plot([0, 1], look, label=name)
    left.legend()
    right.imshow([[0.0, 1.0]], cmap="viridis")
    assert list(confused(figure)) == []
    right.imshow([[0.0, 1.0]], cmap="RdBu")
    left.plot([0, 1], "-", color="#767676", label="grey of L* 50")
    left.plot([0, 1], "-", color="#e00000", label="red of L* 47")
    left.fill_between([0, 1], 1, color="0.5", label="e")
    left.fill_between([0, 1], 2, color="0.5", label="f")
    left.legend()
    told = list(confused(figure))
    plt.close(figure)
    assert "GREY: 'grey of L* 50' and 'red of L* 47' look alike" in told
    assert "GREY: 'e' and 'f' look alike" in told
    assert told[-1] == "GREY: RdBu is not monotone in lightness"
    np.testing.assert_allclose(lightness([[1, 1, 1], [0, 0, 0]]), [100, 0], atol=1e-9)  # by definition
    np.testing.assert_allclose(lightness([1.0, 0, 0]), 53.24, atol=0.01)  # of the red of sRGB, in every table


def test_every_plot_is_among_them():
    found = {path.removeprefix("kd.plots."): plot for path, plot in callables().items() if path.startswith("kd.plots.")}
    drawn = {name for name, plot in found.items() if plot.__annotations__.get("return") in ("Axes", "Figure")}
    assert len(drawn) > 20
    assert drawn - {"new_axes", "overview"} <= set(FIGURES)  # an empty one, and one of the others by dimension
