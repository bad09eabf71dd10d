"""Tile sizes and launch of the kernel that holds whole rows of scores in registers."""

from dataclasses import dataclass
from typing import Any

import torch
import triton

from .arguments import launch_options, padded
from .forward import forward_kernel
from .tiling import Tiling, expected_threshold


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of one launch of the register kernel."""

    queries: int
    keys: int
    warps: int
    registers: int | None = None


def _tiles(span: int, full: bool, d: int, dtype: torch.dtype) -> Tiles:
    """Tile sizes by window and head dimension, from measurements on an H200 (benchmarks/results/attention_h200.md)."""
    if padded(d) > 128 or dtype == torch.float32 or span > 320 or (padded(d) > 64 and span > 160):
        return Tiles(32, 32, 4)
    if span <= 64 and not full:
        # More programs at a time are worth a cap.
        return Tiles(16, 16, 1, registers=128 if padded(d) <= 64 else None)
    if full and span <= 160:
        # Sets of keys of 64 spill registers there, and one alone is not compiled by Triton 3.6 (its pass on layouts
        # fails in 16-bit types); 65 tokens are 96 rows in blocks of 32, and 128 in blocks of 64.
        return Tiles(32, 32, 4)
    return Tiles(64, 64 if span <= 160 else 32, 4)


def launch_registers(
    hood: Tiling, full: bool, keys: int, words: int, tiles: Tiles | None, arrays: tuple[Any, ...],
    numbers: tuple[Any, ...], strides: tuple[Any, ...], common: dict[str, Any], listed: torch.Tensor | None,
) -> None:  # fmt: skip
    """Launch `forward_kernel`: as many key tiles as a block of queries can hear."""
    batch, heads, n, d = arrays[0].shape
    span = keys if full else hood.left + hood.right + 1
    tiles = tiles or _tiles(span, full, d, arrays[0].dtype)
    count = -(-(words * 32 if full else tiles.queries + span - 1) // tiles.keys)
    # Steps after which most rows have one or two candidates left.
    steps = 4 if span <= 64 else (6 if span <= 160 else 7)
    constants = common | {"FULL": full, "B": tiles.queries, "T": tiles.keys, "NT": count, "WORDS": words}
    constants["HAS_LIST"] = listed is not None
    forward_kernel[(batch * heads * triton.cdiv(n, tiles.queries),)](
        *arrays, arrays[0] if listed is None else listed, *numbers, *expected_threshold(hood, keys), *strides,
        **constants, STEPS=steps, **launch_options(tiles.warps, registers=tiles.registers),
    )  # fmt: skip
