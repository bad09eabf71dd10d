"""Blocks that hear a window, and blocks that hear all.

Gemma 3 of 270M, three texts of 1024 tokens. Every sixth block hears the whole text, the others 512 tokens back. The
share of the first token is divided by the queries that can see it, so that a window is not mistaken for the absence of
a sink. In the last third all blocks share one sink; before, the blocks with a window have little of it.
[Numbers](../figures/trained_models.md).
"""

import sys

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("gemma")
with kd.plots.style():
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 5.6), sharex=True)
    for kind, mark, label in (("sliding", "o", "window of 512"), ("full", "s", "whole text")):
        here = data.kind.values == kind
        for ax, name in ((top, "long_importance_first"), (bottom, "long_mean_distance")):
            heads = data[name].mean("text").values[here]
            colour = "C0" if kind == "sliding" else "C1"
            ax.plot(data.block[here], heads, mark, color=colour, markersize=3, alpha=0.5)
            ax.plot(data.block[here], heads.mean(-1), mark, color=colour, markersize=7, label=label)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    top.set(ylabel="attention to the\nfirst token (share)", ylim=(0, 1))
    bottom.set(ylabel="mean distance of\nattention (tokens)", xlabel="block", ylim=(0, None))
    top.legend(title="large: mean over heads", loc="center left", bbox_to_anchor=(1.0, 0.5))
    fig.savefig(sys.argv[1])
