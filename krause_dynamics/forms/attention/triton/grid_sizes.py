"""Sizes and launches of the grid kernels: cells of a patch, candidates a tile, programs of prefix tokens."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from .arguments import launch_options, padded
from .tiling import Tiling

# Rows of one matrix product.
ROWS = 16
# Keys up to which one warp takes a prefix row, beside the patches; longer rows have a launch with more warps.
LARGEST_PREFIX_ROW = 512


def halo_extent(extent: int, patch: int, radius: int) -> int:
    """Rows (columns) of a grid that the patches of so many rows meet at most: no more than the grid has.

    Args:
        extent: Rows of the grid.
        patch: Rows of a patch.
        radius: Rows on each side that its cells hear.
    """
    starts = range(0, max(extent, 1), patch)
    return max(min(extent, start + patch + radius) - max(start - radius, 0) for start in starts)


def patch_shape(
    height: int, width: int, radius: int, prefix: int, tiles: tuple[int, ...] = (64, 32, 16)
) -> tuple[int, int, int]:
    """(Rows, columns, candidates a tile) of the patches that cover a grid at the least cost, at most 16 cells each.

    A program costs its candidates, in whole tiles, and what stands beside (48 of them, from measurements on an H200).
    Among equals the largest tile and the squarest patch.
    """

    def cost(choice: tuple[int, int, int]) -> tuple[int, int, int]:
        rows, columns, tile = choice
        programs = -(-height // rows) * -(-width // columns)
        candidates = prefix + halo_extent(height, rows, radius) * halo_extent(width, columns, radius)
        return programs * (48 + -(-candidates // tile) * tile), -tile, abs(rows - columns)

    shapes = ((rows, columns) for rows in range(1, ROWS + 1) for columns in range(1, ROWS // rows + 1))
    return min(((rows, columns, tile) for rows, columns in shapes for tile in tiles), key=cost)


@dataclass(frozen=True)
class Sizes:
    """Cells of a patch, candidates a tile, warps, cap of a thread's registers."""

    rows: int
    columns: int
    tile: int
    warps: int
    registers: int | None = None


@dataclass(frozen=True)
class Launch:
    """One launch of a grid kernel: programs of prefix tokens and of patches for each head, constants, options."""

    leading: int
    patches: int
    constants: dict[str, Any]
    options: dict[str, Any]

    @property
    def programs(self) -> int:
        """Programs for each head."""
        return self.leading + (self.patches if self.constants["PATCHES"] else 0)


def _sizes(hood: Tiling, height: int, d: int, dtype: torch.dtype, backward: bool) -> Sizes:
    """By the registers that tiles of keys, scores and sums take."""
    tiles: tuple[int, ...]
    if dtype == torch.float32:
        tiles, warps = ((16,), 4 if d <= 128 else 8) if backward else (((32,), 4) if d <= 64 else ((16,), 8))
    elif backward:
        tiles, warps = ((64, 32), 2) if d <= 64 else ((64,), 4) if d <= 128 else ((32,), 8)
    else:
        tiles, warps = ((64, 32, 16), 1) if d <= 64 else ((64,), 2) if d <= 128 else ((32,), 4)
    width, radius = hood.width, hood.radius
    rows, columns, tile = patch_shape(height, width, radius, hood.prefix, tiles)
    held = hood.prefix + halo_extent(hood.height, rows, radius) * halo_extent(width, columns, radius)
    # With 64 candidates all fits 168 registers; twelve warps share a multiprocessor then, not eight.
    return Sizes(rows, columns, tile, warps, registers=168 if warps == 1 and held <= 64 else None)


@lru_cache(maxsize=256)
def launches_of(
    hood: Tiling, positions: int, leading: int, walked: int, d: int, dtype: torch.dtype, backward: bool,
    chosen: Sizes | None = None,
) -> list[Launch]:  # fmt: skip
    """Launches for patches of all `positions` and for `leading` prefix tokens, each of which meets `walked` tokens.

    Args:
        hood: Who is heard.
        positions: Tokens to cover with patches, prefix included.
        leading: Prefix tokens that need a program.
        walked: Tokens that such a program walks over; where it is long it has more warps, in a launch before.
        d: Head dimension.
        dtype: Type of the tokens.
        backward: Whether for the backward pass, whose prefix programs hold two sums.
        chosen: Sizes instead of the tabulated ones; for measurements.
    """
    width, radius = hood.width, hood.radius
    d = padded(d)
    numbers = 1024 if backward else 2048
    height = -(-max(positions - hood.prefix, 0) // width)
    size = chosen or _sizes(hood, height, d, dtype, backward)
    patches = -(-height // size.rows) * -(-width // size.columns)
    down, across = halo_extent(hood.height, size.rows, radius), halo_extent(width, size.columns, radius)
    tiles = -(-(hood.prefix + down * across) // size.tile)
    constants = {
        "PH": size.rows, "PW": size.columns, "HW": across, "B": ROWS, "T": size.tile, "NT": tiles,
        "WORDS": hood.patch_words,
    }  # fmt: skip
    launches = []
    if leading and walked > LARGEST_PREFIX_ROW:
        special = {"LEADING": leading, "PATCHES": False, "KEYS": 8 * numbers // d}
        launches.append(Launch(leading, 1, constants | special, launch_options(8)))
        leading = 0
    if leading + patches:
        special = {"LEADING": leading, "PATCHES": patches > 0, "KEYS": size.warps * numbers // d}
        options = launch_options(size.warps, registers=size.registers)
        launches.append(Launch(leading, max(patches, 1), constants | special, options))
    return launches
