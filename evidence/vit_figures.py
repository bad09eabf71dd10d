"""Figures of the trained vision transformers: curves over blocks, and what CLS looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from evidence import twins
from evidence.looked import Looked
from krause_dynamics import plots


def lines(found: Mapping[str, Mapping[str, Looked]]) -> Any:
    """Over the blocks: neighbourhoods, sinks, heads and bandwidths of both models with their controls."""
    panels = {
        "keys that a patch hears": Looked.heard,
        "keys that share its weight, 1 / sum A^2": Looked.effective,
        "weight on CLS, by reach": lambda x: x.analysis.importance_first.mean(("sequence", "head")).values,
        "entropy of the weights": lambda x: x.analysis.entropy.mean(("sequence", "head")).values,
        "head diversity": lambda x: x.analysis.head_diversity.mean("sequence").values,
        "learned sigma": lambda x: x.sigma,
    }
    with plots.style():
        figure, axes = plt.subplots(2, 3, figsize=(13.0, 7.0), layout="constrained")
        for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
            for colour, (name, looked) in zip(("C0", "C1"), found.items(), strict=True):
                for control, dash in zip(twins.CONTROLS, ("-", ":", "--"), strict=True):
                    if len(y := values(looked[control])):
                        ax.plot(range(1, len(y) + 1), y, dash, color=colour, label=f"{name}, {control}")
            ax.set(title=title, xlabel="block", ylim=(0.0, None) if title != "learned sigma" else None)
        axes.flat[0].legend(fontsize=8)
    return figure


def evolution(found: Mapping[str, Mapping[str, Looked]], pictures: np.ndarray) -> Any:
    """What CLS looks at, block by block (mean over heads), a line for each picture and model, on a scale of its own."""
    blocks = next(iter(found.values()))["trained"].weights.shape[0]
    rows = [(i, name) for i in range(len(pictures)) for name in found]
    with plots.style():
        figure, axes = plt.subplots(
            len(rows), 1 + blocks, figsize=(1.6 + 0.95 * blocks, 0.95 * len(rows)), layout="constrained"
        )
        for line, (i, name) in zip(axes, rows, strict=True):
            line[0].imshow(pictures[i, 0], cmap="gray")
            line[0].set_ylabel(name, fontsize=8)
            _maps(line[1:], found[name]["trained"].weights[:, i, :, 0, 1:].mean(1))
            for ax in line:
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
        for block, ax in enumerate(axes[0, 1:], 1):
            ax.set_title(f"block {block}", fontsize=8)
    return figure


def _maps(line: np.ndarray, weights: np.ndarray) -> None:
    """Weights (blocks, patches) as squares of one scale, and its bar: blocks of a line compare, lines do by numbers."""
    side, most = round(weights.shape[-1] ** 0.5), float(weights.max())
    for ax, block in zip(line, weights, strict=True):
        image = ax.imshow(block.reshape(side, side), cmap="viridis", vmin=0.0, vmax=most)
    bar = line[0].figure.colorbar(image, ax=list(line), pad=0.01, aspect=8, ticks=[0.0, most])
    bar.ax.set_yticklabels(["0", f"{most:.2g}"], fontsize=7)
    bar.set_label("weight", fontsize=7)
