"""How a result shows itself in a notebook: a small table of names and values, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

LONGEST = 200  # characters of a cell; the value itself has the rest


def facts(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """A title and two columns as HTML; rows whose value is None or empty are left out.

    Args:
        title: Set in bold above.
        rows: Names and values; a value that has ``_repr_html_`` is shown by it, all else as text.
    """
    shown = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{_cell(value)}</td></tr>'
        for name, value in rows
        if value is not None and str(value) != ""
    )
    return f"<div><b>{escape(title)}</b><table>{shown}</table></div>"


def in_brief(value: Any) -> str:
    """One line: arrays by their shape, functions by their name, numbers in full."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"array {tuple(shape)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _cell(value: Any) -> str:
    html = getattr(value, "_repr_html_", None)
    return str(html()) if html is not None and not isinstance(value, type) else escape(in_brief(value))
