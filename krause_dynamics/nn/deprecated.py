"""Words of the last release, in place of which values are written now; they go with the next one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from krause_dynamics._arguments.meant import unknown
from krause_dynamics.interaction import Causal, Everyone, Grid, TopK, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood

NAMES = ("neighbourhood", "window", "top_k", "causal", "grid", "sigma")  # of today, that others call otherwise
WORDS: dict[str, Any] = {"side": "past", "ties": "index", "radius": 2, "metric": "chebyshev", "prefix_tokens": 0}


def warn(word: str, instead: str) -> None:
    """Say once a place what to write instead."""
    warnings.warn(f"{word}= is deprecated and goes with the next release: write {instead}", DeprecationWarning, 4)


def neighbourhood(window: Any, top_k: Any, causal: bool, grid: Any, old: Mapping[str, Any]) -> Neighbourhood:
    """The value of the old keywords beside window, top_k, causal and grid, with a warning that shows it.

    Raises:
        TypeError: A keyword that never was.
        ValueError: A word that they do not take.
    """
    if not old.keys() <= WORDS.keys():
        raise unknown("Krause attention", old, (*NAMES, *WORDS))
    words = WORDS | dict(old)
    _check(words, grid)
    joined: Neighbourhood = Everyone()
    if window is not None:
        joined = joined & Window(window, two_sided=words["side"] == "both")
    if causal:
        joined = joined & Causal()
    if grid is not None:
        joined = joined & Grid(grid[0], grid[1], words["radius"], words["metric"], words["prefix_tokens"])
    if top_k is not None:
        joined = joined & TopK(top_k, words["ties"])
    warn(", ".join(old), f"the neighbourhood {spelled(joined)}")
    return joined


def _check(words: Mapping[str, Any], grid: Any) -> None:
    for name, known in (
        ("side", ("past", "both")),
        ("ties", ("index", "keep")),
        ("metric", ("chebyshev", "manhattan")),
    ):
        if words[name] not in known:
            raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, got {words[name]!r}")
    if grid is not None and not (isinstance(grid, tuple | list) and len(grid) == 2):
        raise ValueError(f"grid must be (height, width) beside radius, metric and prefix_tokens, got {grid!r}")
    for name in ("radius", "metric"):
        if words[name] != WORDS[name] and grid is None:
            raise ValueError(
                f"{name}={words[name]!r} needs grid=(height, width), whose cells it counts; attention hears by index "
                "and rank, not within a distance"
            )
    if words["prefix_tokens"] and grid is None:
        raise ValueError(
            f"prefix_tokens={words['prefix_tokens']} needs grid=(height, width); without a grid all hear all already, "
            "and a window has no prefix"
        )


def spelled(value: Neighbourhood) -> str:
    """A neighbourhood as a user types it: ``kd.Window(9, two_sided=True) & kd.TopK(4)``."""
    return " & ".join(_spelled_part(part) for part in value.parts)


def _spelled_part(part: Any) -> str:
    words = []
    for field in fields(part):
        given = getattr(part, field.name)
        if field.default is MISSING:
            words.append(repr(given))
        elif given != field.default:
            words.append(f"{field.name}={given!r}")
    return f"kd.{type(part).__name__}({', '.join(words)})"


def pattern(
    window: int | None = None,
    side: str = "past",
    top_k: int | None = None,
    ties: str = "index",
    causal: bool = False,
    grid: tuple[int, int] | None = None,
    radius: int = 2,
    metric: str = "chebyshev",
    prefix_tokens: int = 0,
) -> Neighbourhood:
    """What ``nn.Pattern`` said, as a neighbourhood of the core; every attention layer and function takes it.

    Args:
        window: W keys, the query's own counted.
        side: ``"past"`` or ``"both"``.
        top_k: Keys that stay.
        ties: ``"index"`` or ``"keep"``.
        causal: No later keys.
        grid: (height, width) of a picture.
        radius: Of the grid, in cells.
        metric: ``"chebyshev"`` or ``"manhattan"``.
        prefix_tokens: Leading tokens of a grid.

    Raises:
        ValueError: A size or a word that no neighbourhood takes.
    """
    old = {"side": side, "ties": ties, "radius": radius, "metric": metric, "prefix_tokens": prefix_tokens}
    return neighbourhood(window, top_k, causal, grid, old)
