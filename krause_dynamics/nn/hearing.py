"""Who hears whom in attention: a neighbourhood of the core, or its short form in keywords."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.forms.attention.lowering import split
from krause_dynamics.interaction import Causal, Everyone, Grid, TopK, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn import deprecated

RADIUS = 2  # cells: the 5 x 5 patch of KViT on ImageNet (2602.11534)
EVERYONE = Everyone()
NOTHING = (None, None, False, None)


def hearing(
    neighbourhood: Neighbourhood | None,
    window: int | None = None,
    top_k: int | None = None,
    causal: bool = False,
    grid: tuple[int, int] | list[int] | Grid | None = None,
    old: Mapping[str, Any] | None = None,
) -> Neighbourhood:
    """The neighbourhood that the arguments of `krause_attention` mean, joined where several are given.

    Raises:
        TypeError: Not a neighbourhood, or an unknown keyword.
        ValueError: Sizes or words that none of them takes.
    """
    if not isinstance(neighbourhood, Neighbourhood | None):
        raise TypeError(f"neighbourhood must be a value such as kd.Window(128) & kd.TopK(96), got {neighbourhood!r}")
    if neighbourhood is not None and not old and (window, top_k, causal, grid) == NOTHING:
        return neighbourhood
    if old:
        short = deprecated.neighbourhood(window, top_k, causal, grid, old)
    elif isinstance(grid, Grid):
        short = grid & short_form(window, top_k, causal, None)
    else:
        short = short_form(window, top_k, causal, tuple(grid) if isinstance(grid, list) else grid)
    if neighbourhood is None or short is EVERYONE:
        return short if neighbourhood is None else neighbourhood
    return neighbourhood & short


def short_form(window: int | None, top_k: int | None, causal: bool, grid: tuple[int, ...] | None) -> Neighbourhood:
    """``Window(window) & Causal() & Grid(*grid, radius=2) & TopK(top_k)``, of what is given."""
    joined: Neighbourhood = EVERYONE
    if window is not None:
        joined = joined & Window(window)
    if causal:
        joined = joined & Causal()
    if grid is not None:
        if not (isinstance(grid, tuple) and len(grid) == 2):
            raise ValueError(f"grid must be (height, width), or a kd.Grid for another radius or metric, got {grid!r}")
        joined = joined & Grid(grid[0], grid[1], radius=RADIUS)
    return joined if top_k is None else joined & TopK(top_k)


def within(neighbourhood: Neighbourhood) -> tuple[Reach, Tensor | None]:
    """Reach and packed sequences of a neighbourhood that attention can hear.

    Raises:
        ValueError: Positions or a network decide in it, not indices.
    """
    reach, segments = split(neighbourhood)
    if isinstance(reach, str):
        raise ValueError(f"attention on tensors hears by index and rank: {reach}; kd.aggregate takes any neighbourhood")
    return reach, segments


def reach_of(
    neighbourhood: Neighbourhood | None, window: Any, top_k: Any, causal: bool, grid: Any, old: dict[str, Any]
) -> tuple[Reach, Tensor | None]:
    """`within` of `hearing`; plain numbers are looked up once a configuration, and are constants for the compiler."""
    if neighbourhood is None and not old and not isinstance(grid, Grid):
        return Reach(*_short_reach(window, top_k, causal, tuple(grid) if isinstance(grid, list) else grid)), None
    segments = old.pop("cu_seqlens", None)
    if segments is not None:
        deprecated.warn("cu_seqlens", "kd.Segments(cu_seqlens), joined to the neighbourhood with &")
    reach, packed = within(hearing(neighbourhood, window, top_k, causal, grid, old))
    return reach, packed if segments is None else segments


def _short_reach(*short: Any) -> tuple[Any, ...]:
    """The fields of the reach of a short form; a tuple, which the compiler can keep as a constant."""
    return _short_reach_once(*short)


when_loaded("torch._dynamo", lambda dynamo: dynamo.assume_constant_result(_short_reach))


@lru_cache(maxsize=256)
def _short_reach_once(*short: Any) -> tuple[Any, ...]:
    return tuple(within(short_form(*short))[0])
