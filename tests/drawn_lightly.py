"""Figures and pages for tests that read what stands beside the pictures: to draw them is most of their time.

That pictures are drawn is seen in test_report_page.py (every picture of a page), test_figures.py and test_plots_*.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt

from krause_dynamics import plots


@contextmanager
def coarse() -> Iterator[dict[str, Any]]:
    """Figures are written with few pixels and as they stand, which is sooner done; by the name of their file."""
    save, figures = plots.save_figure, {}

    def save_small(fig, path, parameters):
        figures[path.stem] = fig
        fig.set_layout_engine("none")
        with plt.rc_context({"savefig.dpi": 15}):
            return save(fig, path, parameters)

    with patch.object(plots, "save_figure", save_small):
        yield figures


@contextmanager
def undrawn() -> Iterator[None]:
    """Pictures of pages get their axes, curves and words, and stay empty."""

    def closed(figure, label):
        plt.close(figure)
        return f'<svg role="img" aria-label="{escape(label)}"></svg>'

    with patch.object(plots, "inline_svg", closed):
        yield
