"""Chunks of tiles for attention by blocks: which tiles, the memory that they share, and what is loaded into it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout, Tiles
from krause_dynamics.forms.attention.cpu.prepare import Outline

PAIRS = 1 << 17  # pairs of a chunk: 512 KiB of scores and as many of slopes, what a megabyte of cache holds
SMALLEST, LARGEST = 16, 64  # queries a block: below, products are slow; above, the corners of the slab are waste


class NotFinite(ArithmeticError):
    """A tile holds a NaN or an infinity, or vectors whose squares overflow: products would spread it."""


@lru_cache(maxsize=8)
def kernels(name: str) -> Any:
    """A module of compiled passes."""
    return importlib.import_module(
        f"krause_dynamics.forms.attention.cpu.{name}"
    )  # numba takes a second to import: on first use


class Chunk(NamedTuple):
    """Tiles [begin, end) of the list of a `Tiles`."""

    tiles: Tiles
    begin: int
    end: int


def tiles_of(outline: Outline, arrays: Arrays) -> Tiles:
    """Blocks of queries about half as long as what a row hears."""
    n = len(arrays.lower)
    size = min(max(outline.longest // 2, SMALLEST), LARGEST) & ~7
    starts = np.arange(0, n, size)
    begin, end = arrays.lower[starts], arrays.upper[np.minimum(starts + size, n) - 1]
    return Tiles(size, 0, len(starts), begin, np.maximum(begin, end))


def chunks_of(tiles: Tiles, begin: int, end: int) -> Iterator[Chunk]:
    """Tiles [begin, end) of the list in chunks of about `PAIRS` pairs."""
    widths = np.maximum(tiles.end - tiles.begin, 1)
    while begin < end:
        number = min(end - begin, max(1, PAIRS // (tiles.size * int(widths[begin % tiles.number]))))
        while True:
            span = int(widths[np.arange(begin, begin + number) % tiles.number].max())
            if number == 1 or number * tiles.size * span <= PAIRS:
                break
            number //= 2  # tiles without a window grow
        yield Chunk(tiles._replace(span=span), begin, begin + number)
        begin += number


class Buffers:
    """Memory of the largest chunk, used again by the others."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: dict[str, Tensor] = {}

    def __call__(self, **shapes: tuple[int, ...]) -> list[Tensor]:
        """A tensor of each shape, by the name of its memory."""
        views = []
        for name, shape in shapes.items():
            size, held = math.prod(shape), self.held.get(name)
            if held is None or held.numel() < size:
                held = self.held[name] = torch.empty(size, dtype=self.dtype)
            views.append(held[:size].view(shape))
        return views


class Loaded(NamedTuple):
    """A chunk's queries (count, size, d), keys (count, span, d), values and squares, with products of the first two,
    and room for means (count, size, d_v).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    squares: Tensor
    products: Tensor
    means: Tensor


def load(chunk: Chunk, layout: Layout, arrays: Arrays, buffers: Buffers) -> Loaded:
    """The tiles of a chunk.

    Raises:
        NotFinite: As it says.
    """
    tiles, count = chunk.tiles, chunk.end - chunk.begin
    size, span, d, width = tiles.size, tiles.span, arrays.q.shape[1], arrays.v.shape[1]
    at = Loaded(
        *buffers(
            q=(count, size, d), k=(count, span, d), v=(count, span, width), squares=(count, size + span),
            products=(count, size, span), means=(count, size, width),
        )
    )  # fmt: skip
    views = at.q.numpy(), at.k.numpy(), at.v.numpy(), at.squares.numpy()
    if not kernels("block_tokens").load((chunk.begin, chunk.end), tiles, layout, arrays, *views):
        raise NotFinite
    torch.bmm(at.q, at.k.mT, out=at.products)
    return at
