"""From tensors to what the compiled loops read, and the threads that run them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention import tiles
from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype, selection_bytes
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout
from krause_dynamics.interaction.reach import Reach

REMEMBERED = 1024  # rows up to which the intervals of a call are kept for the next layer or token


def prepare(call: Call, *, stretch: bool = False) -> tuple[Layout, Arrays]:
    """Numbers and arrays of a call for the compiled loops; its scale is spread to (b, h).

    Args:
        call: The call.
        stretch: Whether keys and values may be longer than those of the call, which are then a stretch of them.
    """
    reach, dtype, mass = call.reach, score_dtype(call.q), call.log_mass
    (_, heads, n, _), m = call.q.shape, call.k.shape[2]
    height, width, radius, metric, prefix = reach.grid or (0, 1, 0, 0, 0)
    layout = Layout(
        heads, call.k.shape[1], 0 if mass is None else mass.shape[1], call.offset, int(call.distance), reach.top_k,
        int(reach.keep_ties), height, width, radius, metric, prefix, *selection_bytes(reach, n, m, call.offset),
        call.seed,
    )  # fmt: skip
    lower, upper = intervals(call)
    pairs = NO_PAIRS[dtype] if call.pair_bias is None else _pairs(call.pair_bias, dtype)
    k, v, begin = _buffers(call) if stretch else (call.k, call.v, 0)
    if begin:
        lower, upper = lower + begin, upper + begin
    arrays = Arrays(
        array(call.q, dtype), array(k, dtype), array(v, dtype), array(call.coefficients(), dtype).reshape(-1),
        NOTHING[dtype, 2] if mass is None else array(mass, dtype).reshape(-1, m),
        pairs[0], pairs[1], lower, upper,
    )  # fmt: skip
    return layout, arrays


def _buffers(call: Call) -> tuple[Tensor, Tensor, int]:
    """Keys, values and where their first token stands: of a stretch of a cache the whole buffer, without a copy."""
    begins = _begin(call.k), _begin(call.v)
    if begins[0] != begins[1] or begins[0] is None or call.k.dtype != score_dtype(call.q):
        return call.k, call.v, 0
    assert call.k._base is not None
    assert call.v._base is not None
    return call.k._base, call.v._base, begins[0]


def _begin(x: Tensor) -> int | None:
    """First token of a view [:, :, begin:end] of a contiguous tensor; ``None`` if it is no such view."""
    whole = x._base
    if whole is None or not whole.is_contiguous() or whole.stride() != x.stride() or whole.shape[:2] != x.shape[:2]:
        return None
    return (x.storage_offset() - whole.storage_offset()) // x.shape[3]


def array(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(b, h, n, d) -> (b h, n, d), a C-contiguous numpy view where possible."""
    if x.requires_grad:
        x = x.detach()
    found = (x if x.dtype == dtype else x.to(dtype)).contiguous().numpy()
    return found.reshape(-1, *found.shape[2:])


def _pairs(pair: Tensor, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Storage of the pair bias and its strides: broadcast axes are not filled."""
    pair = pair.detach().to(dtype)
    size = 1 + sum([(s - 1) * t for s, t in zip(pair.shape, pair.stride(), strict=True)])
    return pair.as_strided((size,), (1,)).numpy(), np.array(pair.stride(), np.int64)


NOTHING = {
    (dtype, axes): torch.empty((0,) * axes, dtype=dtype).numpy()
    for dtype in (torch.float64, torch.float32)
    for axes in (1, 2)
}
NO_PAIRS = {dtype: (NOTHING[dtype, 1], np.empty(0, np.int64)) for dtype in (torch.float64, torch.float32)}


def intervals(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """First key of each row by window and segment, and one past the last, (n,) each; grids restrict further."""
    if call.segments is not None:
        first, last = tiles.bounds(call)
        return first.numpy(), last.numpy()
    n, m = call.q.shape[2], call.k.shape[2]
    find = _band if n > REMEMBERED else _remembered_band
    return find(call.reach, call.offset, n, m)


def _band(reach: Reach, offset: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    return reach.interval(np.arange(offset, offset + n), m)


_remembered_band = lru_cache(maxsize=8)(_band)


def packed(call: Call, layout: Layout, save: bool) -> Tensor:
    """Room for the selection of each head, (b h, bytes); no bytes where nothing is selected or kept."""
    batch, heads, n, _ = call.q.shape
    wide, wide_bytes, row_bytes = layout.wide_rows, layout.wide_bytes, layout.row_bytes
    width = wide * wide_bytes + (n - wide) * row_bytes if save and layout.top_k else 0
    return torch.zeros(batch * heads, width, dtype=torch.uint8)


class Sums:
    """Arrays into which gradients are summed."""

    def __init__(self, call: Call, arrays: Arrays) -> None:
        (heads, n, _), m, dtype = arrays.q.shape, arrays.k.shape[1], arrays.q.dtype
        self.call = call
        self.vectors = tuple(np.zeros(x.shape, dtype) for x in arrays[:3])
        self.scale = np.zeros((heads, n), dtype)
        self.mass = np.zeros((0, 0) if call.log_mass is None else (heads, m), dtype)
        self.pair = np.zeros((0, 0, 0) if call.pair_bias is None else (heads, n, m), dtype)

    def gradients(self) -> Gradients:
        """In the shapes and dtypes of the call."""
        call, (batch, heads) = self.call, self.call.q.shape[:2]
        q, k, v = (torch.from_numpy(g).view(x.shape).to(x.dtype) for g, x in zip(self.vectors, call[:3], strict=True))
        mass, pair = (
            None if given is None else torch.from_numpy(g).view(batch, heads, *g.shape[1:])
            for given, g in ((call.log_mass, self.mass), (call.pair_bias, self.pair))
        )
        return Gradients(q, k, v, torch.from_numpy(self.scale).sum(-1).view(batch, heads), mass, pair)


def spread(run: Callable[[int, int], Any], total: int, smallest: int, *, each: int = 1) -> None:
    """run(begin, end) over range(total), on as many threads as torch would use.

    Args:
        run: What to do; torch operations in it stay on their thread.
        total: Length of the range.
        smallest: Least length of a piece.
        each: Pieces a thread, where they differ in cost.
    """
    threads = min(torch.get_num_threads(), max(1, total // smallest))
    if threads == 1:
        run(0, total)
        return
    pieces = min(each * threads, total // smallest)
    edges = [total * t // pieces for t in range(pieces + 1)]
    pool = _pool(torch.get_num_threads(), os.getpid())
    for future in [pool.submit(run, a, b) for a, b in itertools.pairwise(edges)]:
        future.result()


@lru_cache(maxsize=8)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process (a fork does not inherit them, and would wait for them for ever), one of torch's each."""
    before, started = torch.get_num_threads(), Barrier(threads)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    for future in [pool.submit(started.wait) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(before)  # new threads of others would start with the number set last
    return pool
