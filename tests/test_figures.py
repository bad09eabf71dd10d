"""What figures say does not change unseen."""

from __future__ import annotations

from pathlib import Path

import krause_dynamics as kd
from tests.figures import FIGURES, words
from tests.keywords.public import callables

SNAPSHOT = Path(__file__).with_name("figures.txt")


def test_figures_say_what_the_snapshot_says():
    """After a wanted change: ``python -m tests.figures > tests/figures.txt``, and read the difference."""
    with kd.plots.style():
        now = list(words())
    assert now == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_every_plot_is_among_them():
    tools = {"animate", "new_axes", "overview", "save_figure", "style"}
    public = {path.removeprefix("kd.plots.") for path in callables() if path.startswith("kd.plots.")}
    assert public - tools <= set(FIGURES)
