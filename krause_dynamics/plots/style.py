"""The common look of all figures, and the one function that writes a figure to disk."""

from __future__ import annotations

import io
import json
import os
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def style() -> AbstractContextManager[None]:
    """The look of the package inside a ``with`` block; rcParams are untouched outside."""
    return plt.style.context(str(files("krause_dynamics.plots") / "krause.mplstyle"))


def new_axes(ax: Axes | None) -> Axes:
    """``ax`` itself, or the Axes of a new figure."""
    return plt.subplots()[1] if ax is None else ax


def save_figure(fig: Figure, path: str | os.PathLike[str], parameters: dict[str, Any]) -> Path:
    """Write a small PNG and, beside it, a JSON file of what made it.

    Args:
        fig: The figure; it is closed afterwards.
        path: Target; the suffix becomes ``.png``, and ``.json`` for the parameters.
        parameters: Everything that is needed to draw it again: command, model, rule, seed.

    Returns:
        Path of the PNG.

    Raises:
        TypeError: If ``parameters`` holds something that JSON cannot, before anything is written.
    """
    from PIL import Image

    path = Path(path).with_suffix(".png")
    text = json.dumps(parameters, indent=1, sort_keys=True) + "\n"
    raw = io.BytesIO()
    fig.savefig(raw, format="png")
    plt.close(fig)
    # Line art needs few colours: a palette of 256 makes the file three to four times smaller.
    picture = Image.open(raw).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    return path
