"""Banded attention on the CPU as matrix products: blocks of queries against the slab of keys that they reach.

Products are torch's; what lies between them (scores, selection, softmax) is compiled and visits admitted pairs only.
A chunk of blocks at a time, small enough to stay in the cache. A NaN in a slab would reach every row of its block
through a product with weight 0, so inputs must be finite here: the pass that loads them looks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype
from krause_dynamics.forms.attention.cpu.chunks import Buffers, Chunk, NotFinite, chunks_of, kernels, load, tiles_of
from krause_dynamics.forms.attention.cpu.layout import Arrays, Given, Layout
from krause_dynamics.forms.attention.cpu.prepare import Sums, arrays_of, prepare, rows_of, spread

MANY = 256  # queries, and scores and values a query, from which blocks are faster than rows (measured)
WORTH = 192
FEWEST_TILES = 4  # fewer are not worth a second thread
EXACT = ("none", "ieee")


def pays(call: Call) -> bool:
    """Whether blocks beat rows: many queries, each with much to hear (keys scored) and to read (values summed)."""
    n, reach = call.q.shape[2], call.reach
    # Products of float32 may be computed from bfloat16 or TF32, which would change who is admitted.
    if reach.grid or reach.first or reach.random or n < MANY:
        return False
    if torch.backends.mkldnn.matmul.fp32_precision not in EXACT:  # type: ignore[attr-defined]
        return False
    heard = reach.row_length(call.k.shape[2])
    return heard + min(reach.top_k or heard, heard) >= WORTH


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
    kernels("marks").mark(bits, _odd(k.shape[-1]), marks)
    marks = np.sort(marks.reshape(-1, k.shape[-2]))
    return bool((marks[:, 1:] == marks[:, :-1]).any())


@lru_cache(maxsize=16)
def _odd(d: int) -> np.ndarray:
    """Odd numbers that look random, of 64 bits."""
    return np.arange(1, 2 * d, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C1)


def _by_heads(call: Call) -> Call:
    """The call with the tokens of a head side by side: tiles load each key several times.

    In the layout of a projection, whose rows are often powers of two apart, keys would drive one another out of the
    cache (measured on a KARM of width 256: a layer took a tenth longer).
    """
    return call._replace(q=call.q.contiguous(), k=call.k.contiguous(), v=call.v.contiguous())


def forward(call: Call, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `engine.forward`.

    Raises:
        NotFinite: See there.
    """
    outline, arrays = prepare(_by_heads(call))
    (batch, heads, n, _), dtype = call.q.shape, score_dtype(call.q)
    layout, tiles = outline.layout, tiles_of(outline, arrays)
    out = torch.empty(batch, n, heads, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits = torch.zeros(batch * heads, outline.bytes if save else 0, dtype=torch.uint8)
    results, means = (log_partition.numpy(), bits.numpy()), out.flatten(0, 2).numpy()

    def run(begin: int, end: int) -> None:
        buffers, tokens, passes = Buffers(dtype), kernels("block_tokens"), kernels("blocks")
        for chunk in chunks_of(tiles, begin, end):
            at = load(chunk, layout, arrays, buffers)
            passes.weigh_tiles(
                chunk[1:], chunk.tiles, layout, arrays, call.dropout, at.products.numpy(), at.squares.numpy(), *results
            )
            torch.bmm(at.products, at.v, out=at.means)
            tokens.store(chunk[1:], chunk.tiles, layout, n, at.means.numpy(), means)

    spread(run, batch * heads * tiles.number, FEWEST_TILES, each=4)
    return out.transpose(1, 2).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def backward(call: Call, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """See `engine.backward`; no two threads share a key head.

    Raises:
        NotFinite: See there.
    """
    outline, arrays = prepare(_by_heads(call))
    layout, dtype, tiles = outline.layout, score_dtype(call.q), tiles_of(outline, arrays)
    sums = Sums(call, by_heads=True)
    log_z, g_log = arrays_of(dtype, log_partition, grad_log)
    (g_out,), steps = rows_of(dtype, grad_out)
    given = Given(log_z, selection.numpy(), g_log, g_out, steps)
    step = tiles.number * (layout.heads // layout.kv_heads)

    def run(begin: int, end: int) -> None:
        buffers = Buffers(dtype)
        for chunk in chunks_of(tiles, begin * step, end * step):
            _chunk_gradients(chunk, layout, arrays, call.dropout, given, sums, buffers)

    spread(run, call.k.shape[0] * call.k.shape[1], 1)
    return sums.gradients()


def _chunk_gradients(
    chunk: Chunk, layout: Layout, arrays: Arrays, dropout: float, given: Given, sums: Sums, buffers: Buffers
) -> None:
    """Add what a chunk contributes."""
    at, passes, place = load(chunk, layout, arrays, buffers), kernels("block_gradients"), chunk[1:]
    count, size, span = at.products.shape
    g = at.means
    if not kernels("block_tokens").load_grad(place, chunk.tiles, layout, len(arrays.lower), given, g.numpy()):
        raise NotFinite
    slopes, of_rows, of_keys, grad_q, grad_k, grad_v = buffers(
        slopes=(count, size, span), rows=(count, size), keys=(count, span), grad_q=tuple(at.q.shape),
        grad_k=tuple(at.k.shape), grad_v=tuple(at.v.shape),
    )  # fmt: skip
    torch.bmm(g, at.v.mT, out=slopes)
    passes.slope_tiles(
        place, chunk.tiles, layout, arrays, dropout, at.products.numpy(), slopes.numpy(), at.squares.numpy(), g.numpy(),
        given, of_rows.numpy(), of_keys.numpy(), sums.scale, sums.pair,
    )  # fmt: skip
    torch.bmm(slopes, at.k, out=grad_q)
    torch.bmm(slopes.mT, at.q, out=grad_k)
    torch.bmm(at.products.mT, g, out=grad_v)
    passes.collect(
        place, chunk.tiles, layout, arrays, at.q.numpy(), at.k.numpy(), of_rows.numpy(), of_keys.numpy(),
        (grad_q.numpy(), grad_k.numpy(), grad_v.numpy()), tuple(sums.tokens), sums.steps, sums.mass,
    )  # fmt: skip
