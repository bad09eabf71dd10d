"""Templates of pages: words and pictures go in, one file that needs no other comes out."""

from __future__ import annotations

import colorsys
import re
from importlib.resources import files
from typing import Any

from krause_dynamics._version import __version__

_USED = re.compile(r"var\(--k([0-9a-f]{6})")


def rendered(template: str, words: dict[str, Any], pictures: list[str]) -> str:
    """A page of one of the templates beside this file.

    Args:
        template: Name of its file.
        words: What it shows.
        pictures: All SVG on it, whose colours get counterparts for the dark.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    colours = sorted({colour for svg in pictures for colour in _USED.findall(svg)})
    about = {"dark": {colour: dark(colour) for colour in colours}, "version": __version__}
    rules = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    found = Environment(loader=FunctionLoader(_template), **rules).get_template(template)  # type: ignore[arg-type]
    return found.render(words | about)


def _template(name: str) -> str:
    return files("krause_dynamics.report").joinpath(name).read_text(encoding="utf-8")


def dark(colour: str) -> str:
    """The counterpart of a colour on a dark page: the same hue, light for dark.

    Args:
        colour: Six hexadecimal digits.
    """
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    turned = colorsys.hls_to_rgb(hue, 0.95 - 0.8 * light, saturation)
    return "".join(f"{round(255 * part):02x}" for part in turned)
