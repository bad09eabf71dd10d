"""How closely theory is reproduced: one dot per result, its deviation as a share of the tolerance."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Entries
from krause_dynamics.plots.style import new_axes

FLOOR, CEILING = 1e-9, 1e3  # exact results and failed ones are drawn at the ends of the axis


def verdicts(
    results: Sequence[str], shares: Sequence[float], groups: Sequence[str], *, ax: Axes | None = None, **scatter: Any
) -> Axes:
    """Deviation over tolerance of each result on a log axis, one line a group.

    At the right stand, in orange, the names of results beyond 1, and in grey, of each group that has none of them, the
    name of its largest deviation. Results at or below 1e-9 (exact to rounding) are counted at the left.

    Args:
        results: Names.
        shares: Deviation / tolerance, one each; 0 is drawn at 1e-9, infinity and NaN at 1e3.
        groups: The group of each result; lines appear in order of first appearance, from the top.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: Numbers of names, shares and groups that do not match, or none.
    """
    if not len(results) == len(shares) == len(groups):
        raise ValueError(
            "results, shares and groups must have one entry per result, "
            f"got {len(results)}, {len(shares)} and {len(groups)}"
        )
    if not len(results):
        raise ValueError("results must hold at least one name, got none")
    shares = Entries((1, 1)).read("shares", shares)
    ax = new_axes(ax)
    position = np.clip(np.nan_to_num(np.asarray(shares, float), nan=np.inf), FLOOR, CEILING)
    names = list(dict.fromkeys(groups))
    line = np.array([names.index(group) for group in groups], dtype=float)
    for index in range(len(names)):
        members = np.flatnonzero(line == index)
        members = members[np.argsort(position[members], kind="stable")]
        # Results of one group are spread over the height of its line, the least deviation on top.
        line[members] += np.linspace(-0.3, 0.3, len(members)) if len(members) > 1 else 0.0
    agrees = position <= 1.0
    inside = (position > FLOOR) & (position < CEILING)
    options: dict[str, Any] = {"c": np.where(agrees, "C0", "C1"), "s": 14} | scatter
    ax.scatter(position, line, **options)
    _count_ends(ax, position, line, inside)
    _name(ax, results, position, line, agrees)
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.axvspan(1.0, CEILING * 2, color="C1", alpha=0.08, linewidth=0)
    counts = [sum(group == name for group in groups) for name in names]
    ax.set_yticks(
        range(len(names)), [f"{name} ({count})" for name, count in zip(names, counts, strict=True)], fontsize=8
    )
    ax.set(xscale="log", xlim=(FLOOR / 2, CEILING * 2), ylim=(len(names) - 0.5, -0.5), xlabel="deviation / tolerance")
    return ax


def _count_ends(ax: Axes, position: np.ndarray, line: np.ndarray, inside: np.ndarray) -> None:
    """How many dots lie on one another at either end of a line."""
    for end, side in ((FLOOR, "left"), (CEILING, "right")):
        there = ~inside & (position == end)
        for row in np.unique(np.round(line[there])):
            count = int(np.count_nonzero(there & (np.round(line) == row)))
            shift = (6, 0) if side == "left" else (-6, 0)
            ax.annotate(f"{count} exact" if side == "left" else f"{count} beyond", (end, row), shift,
                        textcoords="offset points", ha=side, va="center", fontsize=7, color="0.35")  # fmt: skip


def _name(ax: Axes, results: Sequence[str], position: np.ndarray, line: np.ndarray, agrees: np.ndarray) -> None:
    """Beside the axes: the names of those beyond the tolerance, or of the one of the group that comes nearest to it."""
    rows = np.round(line)
    count = int(rows.max()) + 1
    for row in np.unique(rows):
        members = np.flatnonzero(rows == row).tolist()
        outliers = [i for i in members if not agrees[i]]
        named = outliers or [members[int(np.argmax(position[members]))]]
        for place, index in enumerate(named):
            height = row + (place - (len(named) - 1) / 2) * 0.5
            colour = "0.35" if agrees[index] else "C1"
            ax.annotate(
                textwrap.fill(results[index], 46),
                (position[index], line[index]),
                (1.02, 1.0 - (height + 0.5) / count),
                textcoords="axes fraction",
                va="center",
                fontsize=7,
                color=colour,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
            )
