"""Banded attention on the CPU as matrix products: blocks of queries against the slab of keys that they reach.

Products are torch's; what lies between them (scores, selection, softmax) is compiled and visits admitted pairs only.
A chunk of blocks at a time, small enough to stay in the cache. A NaN in a slab would reach every row of its block
through a product with weight 0, so inputs must be finite here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, Gradients, Options
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout, Tiles
from krause_dynamics.forms.attention.cpu.prepare import Sums, array, packed, prepare, spread
from krause_dynamics.forms.attention.lowering import Rule

MANY = 256  # queries, and scores and values a query, from which blocks are faster than rows (measured)
WORTH = 192
PAIRS = 1 << 18  # pairs of a chunk: 1 MiB of scores
FEWEST_TILES = 4  # fewer are not worth a second thread
SMALLEST, LARGEST = 16, 64  # queries a block: below, products are slow; above, the corners of the slab are waste


@lru_cache(maxsize=2)
def _kernels(name: str) -> Any:
    return importlib.import_module(
        f"krause_dynamics.forms.attention.cpu.{name}"
    )  # numba takes a second to import: on first use


def pays(call: Call, options: Options) -> bool:
    """Whether blocks beat rows: many queries, each with much to hear (keys scored) and to read (values summed)."""
    n, rule = call.q.shape[2], options.rule
    if rule.grid or n < MANY or _rounds_factors():
        return False
    heard = rule.row_length(call.k.shape[2])
    return heard + min(rule.top_k or heard, heard) >= WORTH and finite(call.q, call.k, call.v)


def _rounds_factors() -> bool:
    """Whether products of float32 may be computed from bfloat16 or TF32, which would change who is admitted."""
    precision = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    return precision not in ("none", "ieee")


def finite(*tensors: Tensor) -> bool:
    """Whether no NaN or infinity is among the entries (nor a sum that overflows)."""
    return all(bool(torch.isfinite(x.detach().sum(dtype=torch.float32 if x.itemsize < 4 else None))) for x in tensors)


class _Chunk(NamedTuple):
    """Tiles [begin, end) of the list of a `Tiles`."""

    tiles: Tiles
    begin: int
    end: int

    def rows(self, n: int) -> Iterator[tuple[int, slice, slice]]:
        """Stretches of rows: head, rows of the head, and the same among the rows of this chunk."""
        size, number, p = self.tiles.size, self.tiles.number, self.begin
        while p < self.end:
            x, t = divmod(p, number)
            following = min(self.end, p + number - t)
            first, last = t * size, min(n, (t + following - p) * size)
            place = (p - self.begin) * size
            yield x, slice(first, last), slice(place, place + last - first)
            p = following


def _tiles(rule: Rule, arrays: Arrays) -> Tiles:
    n, m = arrays.q.shape[1], arrays.k.shape[1]
    size = int(np.clip(rule.row_length(m) // 2, SMALLEST, LARGEST)) & ~7
    starts = np.arange(0, n, size)
    begin, end = arrays.lower[starts], arrays.upper[np.minimum(starts + size, n) - 1]
    return Tiles(size, 0, len(starts), begin, np.maximum(begin, end))


def _chunks(tiles: Tiles, begin: int, end: int) -> Iterator[_Chunk]:
    """Tiles [begin, end) of the list in chunks of about `PAIRS` pairs."""
    widths = np.maximum(tiles.end - tiles.begin, 1)
    while begin < end:
        number = min(end - begin, max(1, PAIRS // (tiles.size * int(widths[begin % tiles.number]))))
        while True:
            span = int(widths[np.arange(begin, begin + number) % tiles.number].max())
            if number == 1 or number * tiles.size * span <= PAIRS:
                break
            number //= 2  # tiles without a window grow
        yield _Chunk(tiles._replace(span=span), begin, begin + number)
        begin += number


class _Buffers:
    """Memory of the largest chunk, used again by the others."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        size = int(np.prod(shape))
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = torch.empty(size, dtype=self.dtype)
        return self.held[name][:size].view(shape)


class _Loaded(NamedTuple):
    """A chunk's queries (count, size, d), keys (count, span, d), values and squares, with products of the first two."""

    q: Tensor
    k: Tensor
    v: Tensor
    squares: Tensor
    products: Tensor


def _load(chunk: _Chunk, layout: Layout, arrays: Arrays, buffers: _Buffers) -> _Loaded:
    tiles, count = chunk.tiles, chunk.end - chunk.begin
    q = buffers("q", count, tiles.size, arrays.q.shape[2])
    k = buffers("k", count, tiles.span, arrays.k.shape[2])
    v = buffers("v", count, tiles.span, arrays.v.shape[2])
    squares = buffers("squares", count, tiles.size + tiles.span)
    views = q.numpy(), k.numpy(), v.numpy(), squares.numpy()
    _kernels("blocks").load((chunk.begin, chunk.end), tiles, layout, arrays, *views)
    return _Loaded(q, k, v, squares, _product(buffers("products", count, tiles.size, tiles.span), q, k.mT))


def _product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b, out=out)


def forward(call: Call, options: Options, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `banded.forward`."""
    layout, arrays = prepare(call, options)
    (batch, heads, n, _), dtype, tiles = call.q.shape, call.scale.dtype, _tiles(options.rule, arrays)
    out = torch.empty(batch * heads, n, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits = packed(call, options, save)
    results = log_partition.numpy(), bits.numpy()

    def run(begin: int, end: int) -> None:
        buffers = _Buffers(dtype)
        for chunk in _chunks(tiles, begin, end):
            at = _load(chunk, layout, arrays, buffers)
            _kernels("blocks").weigh_tiles(
                chunk[1:], chunk.tiles, layout, arrays, options.dropout, at.products.numpy(), at.squares.numpy(),
                *results,
            )  # fmt: skip
            means = _product(buffers("means", *at.q.shape[:2], out.shape[2]), at.products, at.v).flatten(0, 1)
            for x, rows, places in chunk.rows(n):
                out[x, rows] = means[places]

    spread(run, batch * heads * tiles.number, FEWEST_TILES, each=4)
    return out.view(batch, heads, n, -1).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def backward(
    call: Call, options: Options, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor
) -> Gradients:
    """See `banded.backward`; no two threads share a key head."""
    layout, arrays = prepare(call, options)
    dtype, sums, tiles = call.scale.dtype, Sums(call, arrays), _tiles(options.rule, arrays)
    given = array(log_partition, dtype), selection.numpy(), array(grad_log, dtype), array(grad_out, dtype)
    step = tiles.number * (layout.heads // layout.kv_heads)

    def run(begin: int, end: int) -> None:
        buffers = _Buffers(dtype)
        for chunk in _chunks(tiles, begin * step, end * step):
            _chunk_gradients(chunk, layout, arrays, options.dropout, given, sums, buffers)

    spread(run, len(arrays.k), 1)
    return sums.gradients()


def _chunk_gradients(
    chunk: _Chunk, layout: Layout, arrays: Arrays, dropout: float, given: tuple[np.ndarray, ...], sums: Sums,
    buffers: _Buffers,
) -> None:  # fmt: skip
    """Add what a chunk contributes; ``given``: log-partition, selection and gradients of log-partition and output."""
    at, kernels = _load(chunk, layout, arrays, buffers), _kernels("block_gradients")
    g = buffers("grad out", *at.q.shape[:2], arrays.v.shape[2]).zero_()
    for x, rows, places in chunk.rows(arrays.q.shape[1]):
        g.flatten(0, 1)[places] = torch.from_numpy(given[3][x, rows])
    slopes = _product(buffers("slopes", *at.products.shape), g, at.v.mT)
    of_rows, of_keys = buffers("rows", *at.q.shape[:2]).numpy(), buffers("keys", *at.k.shape[:2]).numpy()
    kernels.slope_tiles(
        chunk[1:], chunk.tiles, layout, arrays, dropout, at.products.numpy(), slopes.numpy(), at.squares.numpy(),
        *given, of_rows, of_keys, sums.scale, sums.pair,
    )  # fmt: skip
    parts = (
        _product(buffers("grad q", *at.q.shape), slopes, at.k),
        _product(buffers("grad k", *at.k.shape), slopes.mT, at.q),
        _product(buffers("grad v", *at.v.shape), at.products.mT, g),
    )
    kernels.collect(
        chunk[1:], chunk.tiles, layout, arrays, at.q.numpy(), at.k.numpy(), of_rows, of_keys,
        tuple(part.numpy() for part in parts), sums.vectors, sums.mass,
    )  # fmt: skip
