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
    """Deviation over tolerance of each result on a log axis, one line a group; those beyond 1 are named at the right.

    Arrows at an end of the axis stand for dots beyond it (exact results at the left).

    Args:
        results: Names.
        shares: Deviation / tolerance, one each; 0 is drawn at 1e-9, infinity and NaN at 1e3.
        groups: The group of each result; lines appear in order of first appearance, from the top.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: Numbers of names, shares and groups that do not match.
    """
    if not len(results) == len(shares) == len(groups):
        raise ValueError(
            "results, shares and groups must have one entry per result, "
            f"got {len(results)}, {len(shares)} and {len(groups)}"
        )
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
    options: dict[str, Any] = {"c": np.where(agrees, "C0", "C1"), "s": 14} | scatter
    ax.scatter(position, line, **options)
    _mark_ends(ax, position, line, np.asarray(shares, float))
    _name_outliers(ax, results, position, line, np.flatnonzero(~agrees).tolist())
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.axvspan(1.0, CEILING * 2, color="C1", alpha=0.08, linewidth=0)
    counts = [sum(group == name for group in groups) for name in names]
    ax.set_yticks(
        range(len(names)), [f"{name} ({count})" for name, count in zip(names, counts, strict=True)], fontsize=8
    )
    ax.set(xscale="log", xlim=(FLOOR / 2, CEILING * 2), ylim=(len(names) - 0.5, -0.5), xlabel="deviation / tolerance")
    return ax


def _mark_ends(ax: Axes, position: np.ndarray, line: np.ndarray, shares: np.ndarray) -> None:
    """Arrows over the dots that stand at an end of the axis because their number is beyond it."""
    for marker, beyond in (("<", shares < FLOOR), (">", ~(shares <= CEILING))):
        if beyond.any():
            ax.scatter(position[beyond], line[beyond], marker=marker, s=30, c="none", edgecolors="0.4", linewidths=0.7)


def _name_outliers(
    ax: Axes, results: Sequence[str], position: np.ndarray, line: np.ndarray, outliers: list[int]
) -> None:
    """Names beside the axes, a line to the dot of each; two of a group stand under one another."""
    lines = round(float(line.max())) + 1
    taken: list[float] = []
    for index in sorted(outliers, key=lambda i: line[i]):
        height = max(line[index], taken[-1] + 0.9) if taken else line[index]
        taken.append(height)
        ax.annotate(
            textwrap.fill(results[index], 34),
            (position[index], line[index]),
            (1.02, 1.0 - (height + 0.5) / lines),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color="C1",
            arrowprops={"arrowstyle": "-", "color": "C1", "linewidth": 0.6},
        )
