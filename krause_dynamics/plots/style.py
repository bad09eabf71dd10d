"""The common look of all figures, and the one function that writes a figure to disk."""

from __future__ import annotations

import io
import json
import os
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from krause_dynamics._arguments import FILE, Is, Maybe, Word, reads
from krause_dynamics._files import check_target, with_ending, write_bytes
from krause_dynamics.trajectory import Trajectory

ON = Maybe(Is(Axes, "plt.subplots()[1]"))  # where to draw
A_RUN = Is(Trajectory, "kd.simulate(...)")
FIGURES = (".png", ".pdf", ".svg")  # endings of figures


LOOKS = ("screen", "paper", "slides", "dark")
Look = Literal["screen", "paper", "slides", "dark"]


@reads(look=Word(LOOKS))
def style(look: Look = "screen") -> AbstractContextManager[None]:
    """The look of the package inside a ``with`` block; rcParams are untouched outside.

    Args:
        look: ``"screen"``; ``"paper"`` is one column of 3.3 inches, whose lines differ by their strokes too;
            ``"slides"`` has large letters; ``"dark"`` is light on dark. PDFs hold TrueType fonts (Type 42) in all.

    Raises:
        ValueError: Another look.
    """
    folder = files("krause_dynamics.plots")
    further = [] if look == "screen" else [str(folder / f"{look}.mplstyle")]
    return plt.style.context([str(folder / "krause.mplstyle"), *further])


def across(width: float, height: float) -> tuple[float, float]:
    """Inches of a figure of panels side by side: as given for letters of 10 points, and as much larger as these are."""
    letters = plt.rcParams["font.size"] / 10.0
    return width * letters, height * letters


def column(heights: float) -> tuple[float, float]:
    """Inches of a figure as wide as one panel and so many panels high."""
    width, height = plt.rcParams["figure.figsize"]
    return width, heights * height


@reads(ax=ON)
def new_axes(ax: Axes | None) -> Axes:
    """``ax`` itself, or the Axes of a new figure."""
    return plt.subplots()[1] if ax is None else ax


@reads(fig=Is(Figure, "plt.figure()"), path=FILE, parameters=Maybe(Is(dict, "{'seed': 0}")))
def save_figure(fig: Figure, path: str | os.PathLike[str], parameters: dict[str, Any] | None = None) -> Path:
    """Write a small PNG, or a PDF or SVG, and, beside it, a JSON file of what made it.

    Args:
        fig: The figure; it is closed afterwards.
        path: Target, ``.png``, ``.pdf`` or ``.svg``; without an ending it gets ``.png``. The parameters lie beside it
            under ``.json``.
        parameters: Everything that is needed to draw it again: command, model, rule, seed; ``None``: no file beside.

    Returns:
        Path of the figure.

    Raises:
        TypeError: If ``parameters`` holds something that JSON cannot, before anything is written.
        ValueError: Another ending, or no place where a file can be written.
    """
    path = check_target("path", figure_path(path))
    text = None if parameters is None else json.dumps(parameters, indent=1, sort_keys=True) + "\n"
    raw = io.BytesIO()
    fig.savefig(raw, format=path.suffix[1:].lower())
    plt.close(fig)
    write_bytes(path, raw.getvalue() if path.suffix.lower() != ".png" else small_png(raw))
    if text is not None:
        write_bytes(path.with_suffix(".json"), text.encode())
    return path


def figure_path(path: str | os.PathLike[str]) -> Path:
    """The path of a figure with its ending.

    Raises:
        ValueError: An ending that is none of `FIGURES`.
    """
    path = with_ending(path, ".png")
    if path.is_dir():
        return check_target("path", path)  # which says that it is a folder
    if path.suffix.lower() not in FIGURES:
        raise ValueError(f"path must end in {', '.join(FIGURES)}, got {path.name!r}")
    return path


def small_png(raw: io.BytesIO) -> bytes:
    """A picture of few colours as a small PNG."""
    from PIL import Image

    # Line art needs few colours: a palette of 256 makes the file three to four times smaller.
    picture = Image.open(raw).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, format="PNG", optimize=True)
    return small.getvalue()
