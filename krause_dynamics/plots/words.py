"""Texts in figures: those of others short, without formulas, in letters that the font has; labels in lines that fit."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes


@lru_cache(maxsize=4)
def _font(path: str) -> Any:
    return font_manager.get_font(path)


def drawable(text: str, letters: int) -> str:
    """At most so many letters, of which the font has each; others are written as Python's escapes.

    Letters that a font lacks are drawn as boxes, all alike, with a warning for each.
    """
    font = _font(font_manager.findfont(font_manager.FontProperties()))
    known = "".join(c if font.get_char_index(ord(c)) else c.encode("unicode_escape").decode("ascii") for c in text)
    return known if len(known) <= letters else known[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def upright(ax: Axes, words: str) -> str:
    """Words of a vertical axis, in lines that are no longer than it is high; lines of their own stay."""
    letters = max(12, int(72.0 * ax.bbox.height / ax.figure.dpi / _letter("axes.labelsize")))
    return "\n".join(textwrap.fill(line, letters) for line in words.split("\n"))


def wide(ax: Axes, letters: int) -> bool:
    """Whether so many small letters stand side by side below the axes."""
    return bool(72.0 * ax.bbox.width / ax.figure.dpi >= letters * _letter("legend.fontsize"))


def _letter(parameter: str) -> float:
    """Width of a letter in points."""
    size = font_manager.FontProperties(size=mpl.rcParams[parameter]).get_size_in_points()
    return 0.55 * float(size)
