"""All contrasts with their intervals in one figure."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from evidence.verdicts.found import Found, Judged
from krause_dynamics import plots

HEIGHT = 0.27  # inches a contrast


def draw(found: dict[str, Found]) -> Any:
    """A panel for each experiment that has contrasts with results; ``None`` without any."""
    panels = [(one, _kept(one)) for one in found.values()]
    panels = [(one, kept) for one, kept in panels if kept]
    if not panels:
        return None
    heights = [len(kept) for _, kept in panels]
    with plots.style():
        figure, axes = plt.subplots(
            len(panels), 1, squeeze=False, height_ratios=heights, layout="constrained",
            figsize=(9.0, HEIGHT * sum(heights) + 0.9 * len(panels)),
        )  # fmt: skip
        for ax, (one, kept) in zip(axes[:, 0], panels, strict=True):
            _panel(ax, one, kept)
        drawn = {words: line for ax in axes[:, 0] for line, words in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(drawn.values(), drawn.keys(), fontsize=8, ncols=len(drawn), loc="outside lower center")
    return figure


def _kept(one: Found) -> list[tuple[str, Judged]]:
    return [(kind, j) for kind in ("primary", "exploratory") for j in one.contrasts(kind) if j.found is not None]


def _panel(ax: Any, one: Found, kept: list[tuple[str, Judged]]) -> None:
    own = one.experiment
    ax.axvspan(-own.bound, own.bound, color="0.9", label="no difference")
    ax.axvline(0.0, color="black", linewidth=0.8)
    for kind, colour, mark in (("primary", "C0", "o"), ("exploratory", "C1", "s")):  # marks: for a grey print
        places = [i for i, (k, _) in enumerate(kept) if k == kind]
        contrasts = [kept[i][1].found for i in places]
        if not contrasts:
            continue
        middle = np.array([c.estimate for c in contrasts])  # type: ignore[union-attr]
        low, high = (np.array([getattr(c, end) for c in contrasts]) for end in ("low", "high"))
        known, at = np.isfinite(low), np.array(places)
        for some, face, words in ((known, colour, kind), (~known, "white", f"{kind}, one seed: no interval")):
            if some.any():
                error = np.where(known, [middle - low, high - middle], 0.0)[:, some]
                ax.errorbar(
                    middle[some], at[some], xerr=error, fmt=mark, color=colour, markersize=4, capsize=2,
                    markerfacecolor=face, label=words,
                )  # fmt: skip
    ax.set_yticks(range(len(kept)), [j.label for _, j in kept], fontsize=8)
    better = "better" if own.larger_is_better else "worse"
    ax.set_title(own.title, fontsize=10)
    ax.set(
        xlabel=f"difference in {own.unit}, 95 % interval (right is {better})",
        ylim=(len(kept) - 0.4, -0.6),
    )
