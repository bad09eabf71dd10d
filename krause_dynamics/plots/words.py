"""Texts in figures: those of others short, without formulas, in letters that the font has; labels in lines that fit."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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
    return "\n".join(_even(line, letters) for line in words.split("\n"))


def level(ax: Axes, words: str, share: float = 1.0) -> str:
    """Words of a horizontal axis, in lines that are no longer than that share of its width."""
    points = share * 72.0 * ax.bbox.width / ax.figure.dpi
    return _even(words, max(12, int(points / _letter("axes.labelsize"))))


def plain(name: str) -> str:
    """A name from elsewhere, whose dollar signs are no formula."""
    return name.replace("$", r"\$")


def wide(ax: Axes, letters: int) -> bool:
    """Whether so many small letters stand side by side below the axes."""
    return bool(72.0 * ax.bbox.width / ax.figure.dpi >= letters * _letter("legend.fontsize"))


def heading(ax: Axes, words: str) -> None:
    """A title in lines that are no longer than the axes are wide."""
    ax.set_title(_within(ax.bbox.width / ax.figure.dpi, words))


def headline(figure: Figure, words: str) -> None:
    """A title above a whole figure, in lines that are no longer than it is wide."""
    figure.suptitle(_within(figure.get_figwidth(), words), fontsize=mpl.rcParams["axes.titlesize"])


def _within(inches: float, words: str) -> str:
    return _even(words, max(20, int(72.0 * inches / _letter("axes.titlesize"))))


def _even(words: str, letters: int) -> str:
    """As few lines as fit, and these as even as the words allow; ``i = 1`` and ``30 %`` stay together."""
    joined = re.sub(r" (?=[=%])|(?<==) ", "\0", words)
    lines = textwrap.wrap(joined, letters)
    for narrower in range(letters // 2, letters):
        shorter = textwrap.wrap(joined, narrower, break_long_words=False)
        if len(shorter) <= len(lines) and max(map(len, shorter), default=0) <= letters:
            lines = shorter
            break
    return "\n".join(lines).replace("\0", " ")


def legend_above(ax: Axes, title: str | None = None) -> None:
    """The legend above the axes, where it hides no data, in as many columns as there is room for."""
    labels = [re.sub(r"[$^_{}]", "", label) for label in ax.get_legend_handles_labels()[1]]
    longest = max(map(len, labels), default=0) + 7  # letters, with the stroke before them
    if not labels:
        return
    columns = next((n for n in range(len(labels), 1, -1) if wide(ax, n * longest)), 1)
    ax.legend(title=title, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, alignment="left")


def _letter(parameter: str) -> float:
    """Width of a letter in points."""
    sizes: Any = mpl.rcParams
    return 0.55 * float(font_manager.FontProperties(size=sizes[parameter]).get_size_in_points())
