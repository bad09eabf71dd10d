"""Attention of gated models branch by branch, each beside even attention within the same reach."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from krause_dynamics._arguments import FLAG, reads
from krause_dynamics.plots.bands import draw, mean_and_spread, words_of
from krause_dynamics.plots.cases import Analysed, Case, Named
from krause_dynamics.plots.style import ON, across, new_axes
from krause_dynamics.plots.words import legend_above, upright

BRANCHES = Named("kd.models.branch_statistics", ("branch", "gate", "even_importance_first"))
COLOURS = {"softmax": "C0", "krause": "C1", "mixed": "C2"}
MARKERS = {"softmax": "o", "krause": "s", "mixed": "^"}
# What even attention within the same reach would give, which no quantity of another name has.
EVEN = {"importance_first": "even_importance_first", "first_token_score": "even_first_token_score"}
WORDS = {
    "importance_first": "attention to the first token, of queries that reach it",
    "first_token_score": "attention to the first token, of all queries",
    "gate": "share that the gate gives",
    "entropy": "entropy (1 = even in reach)",
}


@reads(dataset=BRANCHES, ax=ON, relative=FLAG)
def branches(
    dataset: Analysed,
    *,
    ax: Axes | None = None,
    quantity: str = "importance_first",
    relative: bool = False,
    **line: Any,
) -> Axes:
    """A number of each branch over blocks: mean over sequences and heads, band of the middle 80 per cent of them.

    The first token is out of reach of most queries of a windowed branch, so that its raw scores say nothing beside
    those of a global one; dotted is what even attention within the reach of each branch would give.

    Args:
        dataset: Of ``kd.models.branch_statistics``, or several by name, each with strokes of its own.
        ax: Where to draw.
        quantity: Any variable over blocks, or blocks and heads.
        relative: Divide by even attention within the reach: 1 where attention is even. Only of ``importance_first`` and
            ``first_token_score``.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: A quantity of another name, or ``relative`` of one that has no even counterpart.
    """
    known = _over_blocks(dataset)
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}")
    if relative and quantity not in EVEN:
        raise ValueError(f"relative must be False for {quantity!r}; even attention is known of {' and '.join(EVEN)}")
    ax = new_axes(ax)
    for case in dataset:
        _draw(ax, case, quantity, relative, line)
    if relative:
        ax.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    words = WORDS.get(quantity, words_of(dataset[0].data, quantity)) + (" / even attention" if relative else "")
    ax.set(xlabel="block", ylabel=upright(ax, words))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(ax)
    return ax


def _over_blocks(cases: list[Case]) -> list[str]:
    """Variables that every case has and that a line over blocks can show."""
    return sorted(
        str(name)
        for name, values in cases[0].data.data_vars.items()
        if {"branch", "block"} <= set(values.dims) <= {"branch", "sequence", "block", "head"}
        and values.dtype.kind == "f"
        and all(name in case.data for case in cases)
    )


def _draw(ax: Axes, case: Case, quantity: str, relative: bool, line: dict[str, Any]) -> None:
    strokes = {key: case.line[key] for key in ("linestyle",) if key in case.line}
    for branch in map(str, case.data["branch"].values):
        one = case.data.sel(branch=branch)
        values = one[quantity] / one[EVEN[quantity]] if relative else one[quantity]
        if bool(values.isnull().all()) or (branch, quantity) == ("mixed", "gate"):  # all of it
            continue
        label = f"{case.label}, {branch}" if case.name else branch
        look = {"color": COLOURS.get(branch), "marker": MARKERS.get(branch, ""), "markersize": 4, "label": label}
        drawn = draw(ax, *mean_and_spread(values, "block"), **(look | strokes | line))
        if quantity in EVEN and not relative and not case.name and branch != "mixed":
            places, even, _ = mean_and_spread(one[EVEN[quantity]], "block")
            faint: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2, "color": drawn.get_color()}
            faint |= {"marker": drawn.get_marker(), "markersize": 4, "markerfacecolor": "none"}
            ax.plot(places, even, label=f"even, in reach of {branch}", **faint)


@reads(dataset=BRANCHES)
def branches_figure(dataset: Analysed) -> Figure:
    """Both scores of sinks at the first token over even attention, entropy, and what the gate gives each branch.

    Args:
        dataset: Of ``kd.models.branch_statistics``, or several by name.
    """
    figure, axes = plt.subplots(2, 2, figsize=across(9.0, 6.0), sharex=True)
    for ax, quantity in zip(axes.flat, ("importance_first", "first_token_score", "entropy", "gate"), strict=True):
        branches(dataset, ax=ax, quantity=quantity, relative=quantity in EVEN)
        if ax is not axes[0, 0] and ax.get_legend():
            ax.get_legend().remove()
    for ax in axes[0]:
        ax.set_xlabel("")
    axes[1, 1].set_ylim(-0.02, 1.02)
    return figure
