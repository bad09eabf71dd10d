"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from krause_dynamics._arguments import reads
from krause_dynamics.plots.cases import DASHES
from krause_dynamics.plots.style import across, new_axes

PARTS = ("train", "validation", "test")


@reads()
def training_curves(
    rows: Sequence[Mapping[str, Any]], measure: str = "loss", *, ax: Axes | None = None, **line: Any
) -> Axes:
    """A measure over the epochs: a line for each part, a dot for a part that was measured once.

    Args:
        rows: Of ``TrainingResult.metrics``: mappings with ``epoch``, ``split`` and measures.
        measure: Which of them; rows without it are left out.
        ax: Where to draw.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: No row has the measure; says which there are.
    """
    if not len(rows):
        raise ValueError(
            "rows must hold at least one row, such as {'epoch': 1, 'split': 'train', 'loss': 2.0}, got none"
        )
    found = [row for row in rows if measure in row]
    if not found:
        known = sorted({name for row in rows for name in row} - {"epoch", "step", "split"})
        raise ValueError(f"measure must be one of {', '.join(known)}, got {measure!r}")
    ax = new_axes(ax)
    for i, part in enumerate(PARTS):
        points = [(row["epoch"], row[measure]) for row in found if row["split"] == part]
        if points:
            look = {"color": f"C{i}", "linestyle": DASHES[i], "marker": "o" if len(points) == 1 else ""}
            options = look | {"label": part} | line
            ax.plot(*zip(*points, strict=True), **options)
    ax.set_xlabel("epoch")
    ax.set_ylabel(measure.replace("_", " "))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def training_figure(rows: Sequence[Mapping[str, Any]], measure: str = "accuracy") -> Figure:
    """The loss and another measure side by side; what ``krause train`` writes as ``curves.png``.

    Args:
        rows: As in `training_curves`.
        measure: The other one; of the loss alone there is one panel.
    """
    shown = list(dict.fromkeys(("loss", measure)))
    figure, axes = plt.subplots(
        1, len(shown), figsize=across(4.0 * len(shown), 3.2), squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], shown, strict=True):
        training_curves(rows, name, ax=ax)
    return figure
