"""Banded attention on the CPU as matrix products: blocks of queries against the slab of keys that they reach.

Products are torch's; what lies between them (scores, selection, softmax) is compiled and visits admitted pairs only.
A chunk of blocks at a time, small enough to stay in the cache. A NaN in a slab would reach every row of its block
through a product with weight 0, so inputs must be finite here.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout, Tiles
from krause_dynamics.forms.attention.cpu.prepare import Outline, Sums, arrays_of, prepare, rows_of, spread

MANY = 256  # queries, and scores and values a query, from which blocks are faster than rows (measured)
WORTH = 192
PAIRS = 1 << 17  # pairs of a chunk: 512 KiB of scores and as many of slopes, what a megabyte of cache holds
FEWEST_TILES = 4  # fewer are not worth a second thread
EXACT = ("none", "ieee")
SMALLEST, LARGEST = 16, 64  # queries a block: below, products are slow; above, the corners of the slab are waste


@lru_cache(maxsize=3)
def _kernels(name: str) -> Any:
    return importlib.import_module(
        f"krause_dynamics.forms.attention.cpu.{name}"
    )  # numba takes a second to import: on first use


def pays(call: Call) -> bool:
    """Whether blocks beat rows: many queries, each with much to hear (keys scored) and to read (values summed)."""
    n, reach = call.q.shape[2], call.reach
    # Products of float32 may be computed from bfloat16 or TF32, which would change who is admitted.
    if reach.grid or reach.first or reach.random or n < MANY:
        return False
    if torch.backends.mkldnn.matmul.fp32_precision not in EXACT:  # type: ignore[attr-defined]
        return False
    heard = reach.row_length(call.k.shape[2])
    return heard + min(reach.top_k or heard, heard) >= WORTH and finite(call.q, call.k, call.v)


def finite(*tensors: Tensor) -> bool:
    """Whether no NaN or infinity is among the entries (nor a sum that overflows)."""
    for x in tensors:  # noqa: SIM110, a generator would cost a step a tensor, at every call
        if not x.detach().sum(dtype=torch.float32 if x.itemsize < 4 else None).isfinite():
            return False
    return True


def has_equal_keys(k: Tensor) -> bool:
    """Whether two keys of a head may be the same: then products of matrices could break their tie by rounding.

    Equal keys have equal marks; others rarely do, which costs time only.
    """
    k = (k.detach().to(score_dtype(k)) + 0.0).contiguous()  # -0 becomes 0
    bits = k.numpy().reshape(-1, k.shape[-1]).view(np.uint64 if k.dtype == torch.float64 else np.uint32)
    marks = np.empty(len(bits), np.uint64)
    _kernels("marks").mark(bits, _odd(k.shape[-1]), marks)
    marks = np.sort(marks.reshape(-1, k.shape[-2]))
    return bool((marks[:, 1:] == marks[:, :-1]).any())


@lru_cache(maxsize=16)
def _odd(d: int) -> np.ndarray:
    """Odd numbers that look random, of 64 bits."""
    return np.arange(1, 2 * d, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C1)


class _Chunk(NamedTuple):
    """Tiles [begin, end) of the list of a `Tiles`."""

    tiles: Tiles
    begin: int
    end: int

    def rows(self, n: int) -> list[tuple[int, slice, slice]]:
        """Stretches of rows: head, rows of the head, and the same among the rows of this chunk."""
        size, number, p, found = self.tiles.size, self.tiles.number, self.begin, []
        while p < self.end:
            x, t = divmod(p, number)
            following = min(self.end, p + number - t)
            first, last = t * size, min(n, (t + following - p) * size)
            place = (p - self.begin) * size
            found.append((x, slice(first, last), slice(place, place + last - first)))
            p = following
        return found


def _tiles(outline: Outline, arrays: Arrays) -> Tiles:
    n = len(arrays.lower)
    size = min(max(outline.longest // 2, SMALLEST), LARGEST) & ~7
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

    def __call__(self, **shapes: tuple[int, ...]) -> list[Tensor]:
        """A tensor of each shape, by the name of its memory."""
        views = []
        for name, shape in shapes.items():
            size, held = math.prod(shape), self.held.get(name)
            if held is None or held.numel() < size:
                held = self.held[name] = torch.empty(size, dtype=self.dtype)
            views.append(held[:size].view(shape))
        return views


class _Loaded(NamedTuple):
    """A chunk's queries (count, size, d), keys (count, span, d), values and squares, with products of the first two,
    and room for means (count, size, d_v).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    squares: Tensor
    products: Tensor
    means: Tensor


def _load(chunk: _Chunk, layout: Layout, arrays: Arrays, buffers: _Buffers) -> _Loaded:
    tiles, count = chunk.tiles, chunk.end - chunk.begin
    size, span, d, width = tiles.size, tiles.span, arrays.q.shape[1], arrays.v.shape[1]
    at = _Loaded(
        *buffers(
            q=(count, size, d), k=(count, span, d), v=(count, span, width), squares=(count, size + span),
            products=(count, size, span), means=(count, size, width),
        )
    )  # fmt: skip
    views = at.q.numpy(), at.k.numpy(), at.v.numpy(), at.squares.numpy()
    _kernels("blocks").load((chunk.begin, chunk.end), tiles, layout, arrays, *views)
    torch.bmm(at.q, at.k.mT, out=at.products)
    return at


def _by_heads(call: Call) -> Call:
    """The call with the tokens of a head side by side: tiles load each key several times.

    In the layout of a projection, whose rows are often powers of two apart, keys would drive one another out of the
    cache (measured on a KARM of width 256: a layer took a tenth longer).
    """
    return call._replace(q=call.q.contiguous(), k=call.k.contiguous(), v=call.v.contiguous())


def forward(call: Call, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `engine.forward`."""
    outline, arrays = prepare(_by_heads(call))
    (batch, heads, n, _), dtype = call.q.shape, score_dtype(call.q)
    layout, tiles = outline.layout, _tiles(outline, arrays)
    out = torch.empty(batch, n, heads, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits = torch.zeros(batch * heads, outline.bytes if save else 0, dtype=torch.uint8)
    results = log_partition.numpy(), bits.numpy()

    def run(begin: int, end: int) -> None:
        buffers, weigh = _Buffers(dtype), _kernels("blocks").weigh_tiles
        for chunk in _chunks(tiles, begin, end):
            at = _load(chunk, layout, arrays, buffers)
            weigh(
                chunk[1:], chunk.tiles, layout, arrays, call.dropout, at.products.numpy(), at.squares.numpy(), *results
            )
            means = torch.bmm(at.products, at.v, out=at.means).flatten(0, 1)
            for x, rows, places in chunk.rows(n):
                out[x // heads, rows, x % heads] = means[places]

    spread(run, batch * heads * tiles.number, FEWEST_TILES, each=4)
    return out.transpose(1, 2).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def backward(call: Call, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """See `engine.backward`; no two threads share a key head."""
    outline, arrays = prepare(_by_heads(call))
    layout, dtype, sums, tiles = outline.layout, score_dtype(call.q), Sums(call, by_heads=True), _tiles(outline, arrays)
    log_z, g_log = arrays_of(dtype, log_partition, grad_log)
    grad_out = grad_out.to(dtype)
    (g_out,), steps = rows_of(dtype, grad_out)
    given = log_z, selection.numpy(), g_log, g_out, steps
    step = tiles.number * (layout.heads // layout.kv_heads)

    def run(begin: int, end: int) -> None:
        buffers = _Buffers(dtype)
        for chunk in _chunks(tiles, begin * step, end * step):
            _chunk_gradients(chunk, layout, arrays, call.dropout, given, grad_out, sums, buffers)

    spread(run, call.k.shape[0] * call.k.shape[1], 1)
    return sums.gradients()


def _chunk_gradients(
    chunk: _Chunk, layout: Layout, arrays: Arrays, dropout: float, given: tuple[np.ndarray, ...],
    grad_out: Tensor, sums: Sums, buffers: _Buffers,
) -> None:  # fmt: skip
    """Add what a chunk contributes; ``given``: log-partition, selection, gradients of both."""
    at, kernels = _load(chunk, layout, arrays, buffers), _kernels("block_gradients")
    count, size, span = at.products.shape
    g = at.means.zero_()
    for x, rows, places in chunk.rows(len(arrays.lower)):
        g.flatten(0, 1)[places] = grad_out[x // layout.heads, x % layout.heads, rows]
    slopes, of_rows, of_keys, grad_q, grad_k, grad_v = buffers(
        slopes=(count, size, span), rows=(count, size), keys=(count, span), grad_q=tuple(at.q.shape),
        grad_k=tuple(at.k.shape), grad_v=tuple(at.v.shape),
    )  # fmt: skip
    torch.bmm(g, at.v.mT, out=slopes)
    kernels.slope_tiles(
        chunk[1:], chunk.tiles, layout, arrays, dropout, at.products.numpy(), slopes.numpy(), at.squares.numpy(),
        *given, of_rows.numpy(), of_keys.numpy(), sums.scale, sums.pair,
    )  # fmt: skip
    torch.bmm(slopes, at.k, out=grad_q)
    torch.bmm(slopes.mT, at.q, out=grad_k)
    torch.bmm(at.products.mT, g, out=grad_v)
    kernels.collect(
        chunk[1:], chunk.tiles, layout, arrays, at.q.numpy(), at.k.numpy(), of_rows.numpy(), of_keys.numpy(),
        (grad_q.numpy(), grad_k.numpy(), grad_v.numpy()), tuple(sums.tokens), sums.steps,
        sums.mass,
    )  # fmt: skip
