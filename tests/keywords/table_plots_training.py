"""Curves of a training run."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.figures import assert_colours, assert_drawn_on, drawing

ROWS = [
    {"epoch": 1, "split": "train", "loss": 2.0},
    {"epoch": 1, "split": "validation", "loss": 1.5, "accuracy": 0.25},
    {"epoch": 2, "split": "train", "loss": 1.0},
    {"epoch": 2, "split": "validation", "loss": 1.25, "accuracy": 0.5},
    {"epoch": 2, "split": "test", "loss": 1.75, "accuracy": 0.375},
]
LINES = {
    "loss": {"train": [[1, 2.0], [2, 1.0]], "validation": [[1, 1.5], [2, 1.25]], "test": [[2, 1.75]]},
    "accuracy": {"validation": [[1, 0.25], [2, 0.5]], "test": [[2, 0.375]]},
}


def lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


@drawing("kd.plots.training_curves", "rows", ROWS, ROWS[:4], "a line for each part that has the measure")
@drawing("kd.plots.training_curves", "measure", "loss", "accuracy", "which of them; one that is none is refused")
def _(first, second):
    for rows in (ROWS, ROWS[:4]):
        for measure in ("loss", "accuracy"):
            parts = {row["split"] for row in rows}
            expected = {part: points for part, points in LINES[measure].items() if part in parts}
            assert lines(kd.plots.training_curves(rows, measure)) == expected
    with pytest.raises(ValueError, match="measure must be one of accuracy, loss, got 'bits'"):
        kd.plots.training_curves(ROWS, "bits")


@drawing("kd.plots.training_curves", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    draw = lambda ax: kd.plots.training_curves(ROWS, ax=ax)  # noqa: E731
    assert_drawn_on(draw, second, lambda ax: ax.lines[0].get_xydata(), np.array(LINES["loss"]["train"]))


@drawing("kd.plots.training_curves", "line", {}, {"color": "C5"}, "colours of the cycle, or as asked")
def _(first, second):
    assert_colours(kd.plots.training_curves(ROWS, **first).lines, ["C0", "C1", "C2"])
    assert_colours(kd.plots.training_curves(ROWS, **second).lines, ["C5"] * 3)


@drawing("kd.plots.training_figure", "rows", ROWS, ROWS[:4], "both panels hold the curves of these rows")
@drawing("kd.plots.training_figure", "measure", "accuracy", "loss", "the right panel holds it; of the loss one panel")
def _(first, second):
    for rows in (ROWS, ROWS[:4]):
        for measure in ("accuracy", "loss"):
            panels = kd.plots.training_figure(rows, measure).axes
            assert len(panels) == 1 + (measure == "accuracy")
            assert lines(panels[0]) == lines(kd.plots.training_curves(rows))
            assert lines(panels[-1]) == lines(kd.plots.training_curves(rows, measure))
