"""From tensors to what the compiled loops read, and the threads that run them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention import tiles
from krause_dynamics.forms.attention.call import Call, Gradients, selection_bytes
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout
from krause_dynamics.interaction import random_keys
from krause_dynamics.interaction.reach import Reach

NOTHING_LISTED = np.empty((0, 0), np.int32)
NOTHING_LISTED.flags.writeable = False  # as the tables are: one type for the compiler
REMEMBERED = 1024  # rows up to which the outline of a call is kept for the next layer or token


def prepare(call: Call, *, stretch: bool = False) -> tuple[Outline, Arrays]:
    """Numbers and arrays of a call, whose scale is (b, h), for the compiled loops.

    Args:
        call: The call.
        stretch: Whether keys and values may be longer than those of the call, which are then a stretch of them.
    """
    (_, heads, n, _), (_, kv_heads, m, _), mass, scale = call.q.shape, call.k.shape, call.log_mass, call.scale
    assert isinstance(scale, Tensor)
    dtype = scale.dtype
    find = _outline if n > REMEMBERED else _remembered_outline
    outline = find(
        call.reach, call.distance, call.ranked, heads, kv_heads, 0 if mass is None else mass.shape[1], n, m,
        call.offset, call.seed,
    )  # fmt: skip
    lower, upper = (outline.lower, outline.upper) if call.segments is None else _packed_intervals(call)
    pairs = NO_PAIRS[dtype] if call.pair_bias is None else _pairs(call.pair_bias, dtype)
    k, v = call.k, call.v
    if stretch and k._base is not None and v._base is not None and k.dtype == dtype:
        k, v, begin = _buffers(k, v, k._base, v._base)
        if begin:
            lower, upper = lower + begin, upper + begin
    q, keys, values, a = arrays_of(dtype, call.q, k, v, scale)
    masses = NOTHING[dtype, 2] if mass is None else arrays_of(dtype, mass)[0].reshape(-1, m)
    return outline, Arrays(q, keys, values, a.reshape(-1), masses, pairs[0], pairs[1], lower, upper, outline.listed)


class Outline(NamedTuple):
    """What follows from the rule and the lengths of a call alone.

    Attributes:
        layout: Whole numbers for the kernels.
        lower: (n,) first key of each row by the window.
        upper: (n,) one past its last key.
        longest: Upper bound of the keys that a row hears, at least 1.
        bytes: Of the packed selection of a head; 0 where nothing is selected.
        listed: See `Arrays`.
    """

    layout: Layout
    lower: np.ndarray
    upper: np.ndarray
    longest: int
    bytes: int
    listed: np.ndarray


def _outline(
    reach: Reach, distance: bool, ranked: bool, heads: int, kv_heads: int, mass_heads: int, n: int, m: int, offset: int,
    seed: int,
) -> Outline:  # fmt: skip
    height, width, radius, metric, _ = reach.grid or (0, 1, 0, 0, 0)
    wide, wide_bytes, row_bytes = selection_bytes(reach, n, m, offset)
    layout = Layout(
        heads, kv_heads, mass_heads, offset, int(distance), reach.top_k, int(reach.keep_ties), reach.exempt,
        int(ranked), reach.first, height, width, radius, metric, reach.prefix, wide, wide_bytes, row_bytes, seed,
    )  # fmt: skip
    lower, upper = reach.interval(np.arange(offset, offset + n), m)
    selected = wide * wide_bytes + (n - wide) * row_bytes if reach.top_k else 0
    listed = random_keys.table(*reach.random, max(0, offset + n)) if reach.random else NOTHING_LISTED
    return Outline(layout, lower, upper, m if wide else max(1, reach.row_length(m)), selected, listed)


_remembered_outline = lru_cache(maxsize=8)(_outline)


def _packed_intervals(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """First key of each row by window and segment, and one past the last, (n,) each."""
    first, last = tiles.bounds(call)
    return first.numpy(), last.numpy()


def _buffers(k: Tensor, v: Tensor, whole_k: Tensor, whole_v: Tensor) -> tuple[Tensor, Tensor, int]:
    """Keys, values and where their first token stands: of a stretch of a cache the whole buffer, without a copy.

    Such a stretch is a view [:, :, begin:end] of a contiguous tensor.
    """
    begins = []
    for x, whole in ((k, whole_k), (v, whole_v)):
        if not whole.is_contiguous() or whole.stride() != x.stride() or whole.shape[:2] != x.shape[:2]:
            return k, v, 0
        begins.append((x.storage_offset() - whole.storage_offset()) // x.shape[3])
    return (whole_k, whole_v, begins[0]) if begins[0] == begins[1] else (k, v, 0)


def arrays_of(dtype: torch.dtype, *tensors: Tensor) -> list[np.ndarray]:
    """Each (b, h, n, d) -> (b h, n, d), a C-contiguous numpy view where possible."""
    found = []
    for x in tensors:
        if x.requires_grad:
            x = x.detach()
        x = (x if x.dtype == dtype else x.to(dtype)).contiguous()
        found.append(x.numpy().reshape(-1, *x.shape[2:]))
    return found


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
