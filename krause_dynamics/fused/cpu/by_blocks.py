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

from krause_dynamics.fused.call import Call, Gradients, Options
from krause_dynamics.fused.cpu.layout import Arrays, Layout, Tiles
from krause_dynamics.fused.cpu.prepare import Sums, array, packed, prepare, spread
from krause_dynamics.fused.lowering import UNBOUNDED, Rule

MANY = 256  # queries, and scores and values a query, from which blocks are faster than rows (measured)
WORTH = 192
PAIRS = 1 << 18  # pairs of a chunk and thread: 1 MiB of scores
FEWEST_TILES = 4  # fewer are not worth a second thread
SMALLEST, LARGEST = 16, 64  # queries a block: below, products are slow; above, the corners of the slab are waste


@lru_cache(maxsize=2)
def _kernels(name: str) -> Any:
    return importlib.import_module(f"krause_dynamics.fused.cpu.{name}")  # numba takes a second to import: on first use


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
    """Tiles [start, start + number) of the list of a `Tiles`."""

    tiles: Tiles
    start: int
    number: int

    def run(self, kernel: Any, *arguments: Any) -> None:
        """A compiled pass over these tiles, on all threads."""
        spread(lambda a, b: kernel((self.start, a, b), self.tiles, *arguments), self.number, FEWEST_TILES)


def _chunks(rule: Rule, arrays: Arrays) -> Iterator[_Chunk]:
    """All tiles of all heads: those of a window are equally long, others grow or are met one position at a time."""
    heads, n, _ = arrays.q.shape
    m, bounded = arrays.k.shape[1], UNBOUNDED not in (rule.left, rule.right)
    size = int(np.clip(rule.row_length(m) // 2, SMALLEST, LARGEST)) & ~7
    starts = np.arange(0, n, size)
    begin, end = arrays.lower[starts], arrays.upper[np.minimum(starts + size, n) - 1]
    end = np.maximum(begin, end)
    number = len(starts) if bounded else 1
    for first in range(0, len(starts), number):
        span = max(1, int((end - begin)[first : first + number].max()))
        tiles = Tiles(size, span, first, number, begin, end)
        step = max(1, PAIRS * torch.get_num_threads() // (size * span))
        for start in range(0, heads * number, step):
            yield _Chunk(tiles, start, min(step, heads * number - start))


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
    tiles, count = chunk.tiles, chunk.number
    q = buffers("q", count, tiles.size, arrays.q.shape[2])
    k = buffers("k", count, tiles.span, arrays.k.shape[2])
    v = buffers("v", count, tiles.span, arrays.v.shape[2])
    squares = buffers("squares", count, tiles.size + tiles.span)
    views = q.numpy(), k.numpy(), v.numpy(), squares.numpy()
    chunk.run(_kernels("blocks").load, layout, arrays, *views)
    return _Loaded(q, k, v, squares, _product(buffers("products", count, tiles.size, tiles.span), q, k.mT))


def _product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b, out=out)


@torch.no_grad()
def forward(call: Call, options: Options, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `banded.forward`."""
    layout, arrays = prepare(call, options)
    (batch, heads, n, _), dtype = call.q.shape, call.scale.dtype
    out = torch.empty(batch * heads, n, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits, buffers = packed(call, options, save), _Buffers(dtype)
    results = log_partition.numpy(), bits.numpy()
    for chunk in _chunks(options.rule, arrays):
        at = _load(chunk, layout, arrays, buffers)
        views = at.products.numpy(), at.squares.numpy()
        chunk.run(_kernels("blocks").weigh_tiles, layout, arrays, options.dropout, *views, *results)
        means = _product(buffers("means", chunk.number, chunk.tiles.size, out.shape[2]), at.products, at.v)
        _place(chunk, means, out)
    return out.view(batch, heads, n, -1).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def _place(chunk: _Chunk, means: Tensor, out: Tensor) -> None:
    """Rows of the tiles to their places in (heads, n, d_v)."""
    tiles, n = chunk.tiles, out.shape[1]
    done = 0
    while done < chunk.number:
        x, t = divmod(chunk.start + done, tiles.number)
        many = min(chunk.number - done, tiles.number - t)
        first = (tiles.first + t) * tiles.size
        last = min(n, first + many * tiles.size)
        out[x, first:last] = means[done : done + many].view(-1, out.shape[2])[: last - first]
        done += many


@torch.no_grad()
def backward(
    call: Call, options: Options, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor
) -> Gradients:
    """See `banded.backward`."""
    layout, arrays = prepare(call, options)
    dtype, sums = call.scale.dtype, Sums(call, arrays)
    logs, grad_logs = array(log_partition, dtype), array(grad_log, dtype)
    grads, bits, buffers = array(grad_out, dtype), selection.numpy(), _Buffers(dtype)
    for chunk in _chunks(options.rule, arrays):
        tiles, count = chunk.tiles, chunk.number
        at = _load(chunk, layout, arrays, buffers)
        g = _tiles_of(grads, chunk, buffers)
        slopes = _product(buffers("slopes", count, tiles.size, tiles.span), g, at.v.mT)
        rows, keys = buffers("rows", count, tiles.size), buffers("keys", count, tiles.span)
        views = at.products.numpy(), slopes.numpy(), at.squares.numpy(), logs, bits, grad_logs, grads
        results = rows.numpy(), keys.numpy(), sums.scale, sums.pair
        chunk.run(_kernels("block_gradients").slope_tiles, layout, arrays, options.dropout, *views, *results)
        parts = (
            _product(buffers("grad q", *at.q.shape), slopes, at.k),
            _product(buffers("grad k", *at.k.shape), slopes.mT, at.q),
            _product(buffers("grad v", *at.v.shape), at.products.mT, g),
        )
        _kernels("block_gradients").collect(
            (chunk.start, 0, count), tiles, layout, arrays, at.q.numpy(), at.k.numpy(), rows.numpy(), keys.numpy(),
            tuple(part.numpy() for part in parts), sums.vectors, sums.mass,
        )  # fmt: skip
    return sums.gradients()


def _tiles_of(grads: np.ndarray, chunk: _Chunk, buffers: _Buffers) -> Tensor:
    """(heads, n, d_v) -> (count, size, d_v), zeros beyond the last row."""
    tiles, n = chunk.tiles, grads.shape[1]
    found = buffers("grad out", chunk.number, tiles.size, grads.shape[2])
    view = found.numpy()
    for p in range(chunk.number):
        x, t = divmod(chunk.start + p, tiles.number)
        first = (tiles.first + t) * tiles.size
        rows = min(tiles.size, n - first)
        view[p, :rows] = grads[x, first : first + rows]
        view[p, rows:] = 0
    return found
