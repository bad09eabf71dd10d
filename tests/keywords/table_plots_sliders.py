"""Rows of `kd.plots.sliders`: a picture for each combination, the first one shown."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import krause_dynamics as kd
from tests.keywords.figures import drawing

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(red=0, blue=0):
    """A figure of one colour, one inch wide."""
    return plt.figure(figsize=(1, 1), facecolor=(red, 0, blue), layout="none")


def pixels(shown):
    """Each picture of the page as its first pixel, its width, and whether it is hidden."""
    found = re.findall(r'<img [^>]*base64,([^"]+)"( hidden)?>', shown._repr_html_())
    opened = [(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), bool(hidden)) for data, hidden in found]
    return [(picture.getpixel((0, 0)), picture.width, hidden) for picture, hidden in opened]


@drawing("kd.plots.sliders", "draw", RED, BLUE, "the pictures are what it draws, figures or axes, and are closed")
def _(first, second):
    for colour in (first, second):

        def draw(number, colour=colour):
            figure = plt.figure(figsize=(1, 1), facecolor=np.divide(colour, 255), layout="none")
            return figure.add_axes((0.4, 0.4, 0.2, 0.2)) if number else figure

        shown = kd.plots.sliders(draw, number=[0, 1])
        assert [pixel for pixel, _, _ in pixels(shown)] == [colour, colour]
        assert plt.get_fignums() == []
    with pytest.raises(TypeError, match="draw must return Axes or a Figure, got int"):
        kd.plots.sliders(lambda number: number, number=[1])


@drawing("kd.plots.sliders", "dpi", 75, 20, "dots per inch of each picture")
def _(first, second):
    for dpi in (first, second):
        assert [width for _, width, _ in pixels(kd.plots.sliders(plain, red=[0, 1], dpi=dpi))] == [dpi, dpi]
    assert pixels(kd.plots.sliders(plain, red=[0]))[0][1] == first


@drawing("kd.plots.sliders", "progress", False, True, "silent, or told picture by picture")
def _(first, second):
    told = []
    kd.plots.sliders(plain, red=[0, 1], progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    for progress in (first, second):
        assert len(pixels(kd.plots.sliders(plain, red=[0, 1], progress=progress))) == 2


@drawing("kd.plots.sliders", "values", {"red": [1, 0]}, {"red": [0, 1], "blue": [0, 0.5, 1]},
         "every combination, the last fastest; the first is seen; a slider each with its values as words")  # fmt: skip
def _(first, second):
    shown = kd.plots.sliders(plain, **first)
    assert [(pixel, hidden) for pixel, _, hidden in pixels(shown)] == [(RED, False), ((0, 0, 0), True)]
    shown = kd.plots.sliders(plain, **second)
    drawn = [(0, 0, 0), (0, 0, 128), BLUE, RED, (255, 0, 128), (255, 0, 255)]
    # A palette of so few colours is exact but for rounding of one half.
    np.testing.assert_allclose([pixel for pixel, _, _ in pixels(shown)], drawn, atol=1)
    assert [hidden for _, _, hidden in pixels(shown)] == [False] + [True] * 5
    page = shown._repr_html_()
    assert re.findall(r'data-at="([^"]+)"', page) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert re.findall(r'max="(\d)"', page) == ["1", "2"]
    assert "[&quot;0&quot;, &quot;0.5&quot;, &quot;1&quot;]" in page
    assert repr(shown) == "Sliders: 6 pictures over red (2), blue (3)"
    for values in ({}, {"red": []}):
        with pytest.raises(ValueError, match="at least one value"):
            kd.plots.sliders(plain, **values)
    with pytest.raises(ValueError, match="500"):
        kd.plots.sliders(plain, red=range(501))
