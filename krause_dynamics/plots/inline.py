"""A figure inside a page: SVG whose words are words and whose colours the page may change."""

from __future__ import annotations

import html
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from krause_dynamics._arguments import Is, reads

_HEAD = re.compile(r"^.*?<svg .*?(viewBox=\"[^\"]*\").*?>", re.DOTALL)
_UNUSED = re.compile(r"\s*<(metadata|style).*?</\1>", re.DOTALL)
_NAMES = re.compile(r"(\bid=\"|url\(#|href=\"#)")
_COLOUR = re.compile(r": #([0-9a-f]{6})\b")
_BLACK = ": #000000"


@reads(fig=Is(Figure, "plt.figure()"), label=Is(str, "'clusters over layers'"))
def inline_svg(fig: Figure, label: str) -> str:
    """A figure as an ``<svg>`` element for a page of HTML.

    Text stays text, in the page's own font. Black is the page's ``currentColor``, and any other colour ``#0072b2`` is
    ``var(--k0072b2, #0072b2)``, so that a page that is dark may give it another value. Names inside are made unique
    by the label: a page can hold many.

    Args:
        fig: The figure; it is closed afterwards.
        label: What the picture shows, for those who do not see it; each of a page has its own.
    """
    raw = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        fig.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    plt.close(fig)
    prefix = re.sub(r"\W+", "-", label).strip("-").lower()
    text = _UNUSED.sub("", raw.getvalue())
    text = _NAMES.sub(rf"\g<1>{prefix}.", text)
    text = _COLOUR.sub(r": var(--k\1, #\1)", text.replace(_BLACK, ": currentColor").replace("xlink:href", "href"))
    return _HEAD.sub(rf'<svg \1 role="img" aria-label="{html.escape(label)}" fill="currentColor">', text, count=1)
