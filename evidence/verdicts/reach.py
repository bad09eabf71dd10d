"""Accuracy against the width of the window and the number of keys."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from evidence import statistics
from evidence.verdicts.found import Found, shown

WIDTHS = {"window.r1": "1 (6)", "window.r2": "2 (14)", "window.r3": "3 (26)", "full": "all (50)"}
KEYS = {"k2": "2", "k4": "4", "k8": "8", "": "all"}


def arm(width: str, keys: str) -> str:
    """Name of the arm of a cell."""
    if not keys:
        return f"gaussian.{width}"
    support, _, radius = width.partition(".")
    return ".".join(filter(None, ("gaussian", "top_k" if support == "full" else "window+top_k", radius, keys)))


def section(one: Found) -> Iterator[str]:
    """A table of both; nothing for an experiment of other arms."""
    names = {entry.name for entry in one.experiment.arms}
    if arm("window.r3", "k8") not in names:
        return
    lines = [
        "| radius | " + " | ".join(f"k {k}" for k in KEYS.values()) + " |",
        "| --- " * (1 + len(KEYS)) + "|",
    ]
    for width, told in WIDTHS.items():
        cells = [cell(one, arm(width, keys)) if arm(width, keys) in names else "as all" for keys in KEYS]
        lines.append(f"| {told} | " + " | ".join(cells) + " |")
    yield (
        "Accuracy against the window's radius in steps between patches (in brackets the keys of an inner patch, its "
        "own and CLS included) and the number k of keys that are kept:\n\n" + "\n".join(lines)
    )


def cell(one: Found, name: str) -> str:
    """Mean of an arm with half of its interval."""
    if name not in one.reported:
        return "not run"
    found = statistics.interval(one.pooled, name)
    unit = one.experiment.unit
    mean, half = shown(found.estimate, unit, signed=False), (found.high - found.low) / 2.0
    return f"{mean} +-{shown(half, unit, signed=False)}" if isfinite(half) else mean
