"""What a grey print confuses in a figure: legend entries that differ in hue alone, maps that turn in lightness."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb

APART = 10.0  # of lightness L*, 0 to 100: neighbouring steps of a seven-step grey wedge are 14 apart
STILL = 0.5  # of lightness from one of 64 steps of a map to the next: as good as none
TO_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear sRGB


def lightness(colour: Any) -> np.ndarray:
    """L* (CIE 1976) of sRGB colours (..., 3)."""
    values = np.asarray(colour, dtype=float)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array(TO_LUMINANCE)
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def confused(figure: Any) -> Iterator[str]:
    """Pairs of legend entries of one stroke and one lightness, and maps of numbers whose lightness goes up and down."""
    for ax in figure.axes:
        for one, other in _neighbours(ax.get_legend()):
            yield f"GREY: {one!r} and {other!r} look alike"
        for artist in (*ax.collections, *ax.images):
            if artist.get_array() is None or (isinstance(artist.cmap, ListedColormap) and artist.cmap.N < 32):
                continue  # names, not numbers
            steps = np.diff(lightness(artist.cmap(np.linspace(0, 1, 64))[:, :3]))
            if not ((steps > -STILL).all() or (steps < STILL).all()):
                yield f"GREY: {artist.cmap.name} is not monotone in lightness"


def _neighbours(legend: Any) -> Iterator[tuple[str, str]]:
    """Lines are compared with all others, fills with the next one: of many areas, neighbours at least differ."""
    if legend is None:
        return
    names = [text.get_text() for text in legend.get_texts()]
    looks = [_look(handle) for handle in legend.legend_handles]
    for (i, one), (j, other) in itertools.combinations(enumerate(looks), 2):
        filled = one[0][0] == "fill"
        if one[0] == other[0] and abs(one[1] - other[1]) < APART and (j == i + 1 or not filled):
            yield names[i], names[j]


def _look(handle: Any) -> tuple[tuple[Any, ...], float]:
    """All that is not colour, and the lightness of the colour."""
    if hasattr(handle, "get_linestyle") and hasattr(handle, "get_marker"):
        marker, dashes = str(handle.get_marker()), handle._dash_pattern
        hollow = str(handle.get_markerfacecolor()).lower() in ("none", "w", "white")
        look = ("line", marker, str(dashes), hollow, round(handle.get_linewidth(), 1))
        return look, float(lightness(to_rgb(handle.get_color())))
    colours = np.atleast_2d(handle.get_facecolor())
    colour = colours[0][:3] if len(colours) and colours.size else np.zeros(3)
    paths = getattr(handle, "get_paths", list)()
    shape = str(len(paths[0].vertices)) if paths else ""
    kind = "fill" if hasattr(handle, "get_hatch") and not hasattr(handle, "get_offsets") else "dots"
    return (kind, getattr(handle, "get_hatch", lambda: None)(), shape), float(lightness(colour))
