"""How many tokens of Krause layers satisfy the hypotheses of the paper's theorem, over blocks."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from krause_dynamics._arguments import Maybe, Word, reads
from krause_dynamics.plots.bands import draw, mean_and_spread
from krause_dynamics.plots.cases import DASHES, Analysed, Named
from krause_dynamics.plots.heads import head_map
from krause_dynamics.plots.style import ON, across, new_axes
from krause_dynamics.plots.words import legend_above

# Shares of the tokens, each with a few words.
SHARES = {
    "share_separated": "of a group that hears nobody outside",
    "share_near_centroid": "within 4.86\N{DEGREE SIGN} of what they hear",
    "share_theorem": "both: the theorem's hypotheses",
    "share_within_sigma": "hear nothing beyond sigma",
}
CONFIDENCE = Named("kd.checkpoints.confidence", tuple(SHARES))


@reads(dataset=CONFIDENCE, ax=ON, quantity=Maybe(Word(tuple(SHARES))))
def confidence(dataset: Analysed, *, ax: Axes | None = None, quantity: str | None = None, **line: Any) -> Axes:
    """Tokens (%) that satisfy each hypothesis of the theorem on Krause layers, over blocks.

    Lines are means over sequences and heads; the band is the middle 80 per cent of them.

    Args:
        dataset: Of ``kd.checkpoints.confidence``, or several by name.
        ax: Where to draw.
        quantity: One of the shares; by default all of one model, and ``share_theorem`` of several.
        **line: For ``Axes.plot``.
    """
    ax = new_axes(ax)
    alone = not dataset[0].name
    shown = [quantity] if quantity else list(SHARES) if alone else ["share_theorem"]
    for case in dataset:
        for i, name in enumerate(shown):
            percent = 100.0 * case.data[name]
            words = f"{SHARES[name] if alone else case.label}: {float(percent.mean()):.1f} %"
            dash = DASHES[i] if alone else case.line["linestyle"]
            look: dict[str, Any] = {"label": words, "linestyle": dash}
            draw(ax, *mean_and_spread(percent, "block"), **(look | line))
    title = None if alone else SHARES[shown[0]]
    legend_above(ax, title)
    ax.set(xlabel="block", ylabel="tokens (%)", ylim=(-2, 102))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


@reads(dataset=CONFIDENCE)
def confidence_figure(dataset: Analysed) -> Figure:
    """Shares of the tokens over blocks; of one model also both hypotheses and how far is heard, by head.

    Args:
        dataset: Of ``kd.checkpoints.confidence``, or several by name.
    """
    if dataset[0].name:
        figure, ax = plt.subplots()
        confidence(dataset, ax=ax)
        return figure
    figure, axes = plt.subplot_mosaic([["shares", "shares"], ["theorem", "distance"]], figsize=across(8.4, 6.4))
    confidence(dataset, ax=axes["shares"])
    data = dataset[0].data
    percent = (100.0 * data["share_theorem"]).assign_attrs(long_name="tokens (%) of which both hypotheses hold")
    head_map(data.assign(share_theorem=percent), ax=axes["theorem"], quantity="share_theorem", vmin=0, vmax=100)
    head_map(data, ax=axes["distance"], quantity="distance", vmin=0)
    return figure
