"""What figures say does not change unseen."""

from __future__ import annotations

from pathlib import Path

import krause_dynamics as kd
from tests.figures import FIGURES, LOOK, words
from tests.keywords.public import callables

SNAPSHOT = Path(__file__).with_name("figures.txt")


def test_figures_say_what_the_snapshot_says():
    """After a wanted change: ``python -m tests.figures > tests/figures.txt``, and read the difference."""
    with kd.plots.style(LOOK):
        now = list(words())
    assert not [line for line in now if "CUT" in line or "SQUEEZED" in line]  # in one column of a paper
    assert now == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_every_plot_is_among_them():
    found = {path.removeprefix("kd.plots."): plot for path, plot in callables().items() if path.startswith("kd.plots.")}
    drawn = {name for name, plot in found.items() if plot.__annotations__.get("return") in ("Axes", "Figure")}
    assert len(drawn) > 20
    assert drawn - {"new_axes", "overview"} <= set(FIGURES)  # an empty one, and one of the others by dimension
