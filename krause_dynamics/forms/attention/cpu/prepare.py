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
from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype, selection_bytes, split_heads
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout
from krause_dynamics.interaction import random_keys
from krause_dynamics.interaction.reach import Reach

NOTHING_LISTED = np.empty((0, 0), np.int32)
NOTHING_BESIDE = np.empty((0, 0, 0), np.int64)
NOTHING_LISTED.flags.writeable = False  # as the tables are: one type for the compiler
REMEMBERED = 1024  # rows up to which the outline of a call is kept for the next layer or token


def prepare(call: Call) -> tuple[Outline, Arrays]:
    """Numbers and arrays of a call, whose scale is (b, h), for the compiled loops."""
    (_, heads, n, _), (_, kv_heads, m, _), mass, scale = call.q.shape, call.k.shape, call.log_mass, call.scale
    assert isinstance(scale, Tensor)
    dtype = scale.dtype
    find = _outline if n > REMEMBERED else _remembered_outline
    outline = find(
        call.reach, call.distance, call.ranked, heads, kv_heads, 0 if mass is None else mass.shape[1], n, m,
        call.offset, call.seed,
    )  # fmt: skip
    own = call.segments is not None or call.beside is not None
    lower, upper = _own_intervals(call) if own else (outline.lower, outline.upper)
    beside = NOTHING_BESIDE if call.beside is None else call.beside.long().contiguous().numpy()
    pairs = NO_PAIRS[dtype] if call.pair_bias is None else _pairs(call.pair_bias, dtype)
    (q, k, v), steps = rows_of(dtype, call.q, call.k, call.v)
    masses = NOTHING[dtype, 2] if mass is None else arrays_of(dtype, mass)[0].reshape(-1, m)
    a = arrays_of(dtype, scale)[0].reshape(-1)
    return outline, Arrays(q, k, v, steps, a, masses, pairs[0], pairs[1], lower, upper, beside, outline.listed)


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


def _own_intervals(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """First key of each row by window and segment, first tokens left out, and one past the last, (n,) each."""
    first, last = tiles.bounds(call)
    return first.numpy(), last.numpy()


def rows_of(dtype: torch.dtype, *tensors: Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokens (b, h, n, d) as rows of memory, and their steps (see `Arrays`); copied only where rows have gaps."""
    found, steps = [], []
    for given in tensors:
        x = given.detach() if given.requires_grad else given
        x = x if x.dtype == dtype else x.to(dtype)
        strides = _steps(x)
        if strides is None:
            x = x.contiguous()
            strides = _steps(x)
            assert strides is not None
        last = [(size - 1) * step for size, step in zip(x.shape, strides, strict=False)]
        rows, d = 1 + sum(last) if x.numel() else 0, x.shape[3]
        found.append(x.as_strided((rows, d), (d, 1)).numpy())
        steps.append(strides)
    return found, np.array(steps, np.int64)


def _steps(x: Tensor) -> list[int] | None:
    """Steps of tokens over batch, heads and tokens in rows, or ``None`` where they lie otherwise."""
    d, strides = x.shape[3], x.stride()
    if d == 0 or (d > 1 and strides[3] != 1):
        return None if d else [0, 0, 0]
    steps = [0 if size == 1 else stride for size, stride in zip(x.shape[:3], strides, strict=False)]
    return None if any(step % d for step in steps) else [step // d for step in steps]


def arrays_of(dtype: torch.dtype, *tensors: Tensor) -> list[np.ndarray]:
    """Each (b, h, ...) -> (b h, ...), a C-contiguous numpy view where possible."""
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
    (dtype, axes): np.empty((0,) * axes, kind)  # of no tensor: a mode of fake ones may be on when this is imported
    for dtype, kind in ((torch.float64, np.float64), (torch.float32, np.float32))
    for axes in (1, 2)
}
NO_PAIRS = {dtype: (NOTHING[dtype, 1], np.empty(0, np.int64)) for dtype in (torch.float64, torch.float32)}


class Sums:
    """Arrays into which gradients are summed.

    Attributes:
        tokens: Gradients of queries, keys and values as rows of memory, see `Arrays`.
        steps: (3, 3) their steps.
        scale: (batch heads, n).
        mass: (batch heads, m), or of size 0.
        pair: (batch heads, n, m), or of size 0.
    """

    def __init__(self, call: Call, *, by_heads: bool = False) -> None:
        """Empty sums of a call.

        Args:
            call: The call.
            by_heads: Whether tokens of a head are summed side by side and copied to their places in the end.
        """
        (batch, heads, n, _), m, dtype = call.q.shape, call.k.shape[2], score_dtype(call.q)
        self.call = call
        # Laid out by tokens, as a projection takes them; those of tokens projected together as parts of one tensor.
        room = torch.empty if by_heads else torch.zeros
        if call.joint is not None:
            self.whole: Tensor | None = room(call.joint.shape, dtype=dtype)
            self.results = split_heads(self.whole, call.k.shape[1])
        else:
            self.whole, shapes = None, [x.transpose(1, 2).shape for x in call[:3]]
            q, k, v = (room(shape, dtype=dtype).transpose(1, 2) for shape in shapes)
            self.results = q, k, v
        self.parts = [torch.zeros(x.shape, dtype=dtype) for x in call[:3]] if by_heads else None
        self.tokens, self.steps = rows_of(dtype, *(self.parts or self.results))
        kind = self.tokens[0].dtype
        self.scale = np.zeros((batch * heads, n), kind)
        self.mass = np.zeros((0, 0) if call.log_mass is None else (batch * heads, m), kind)
        self.pair = np.zeros((0, 0, 0) if call.pair_bias is None else (batch * heads, n, m), kind)

    def gradients(self) -> Gradients:
        """In the shapes and dtypes of the call."""
        call, (batch, heads) = self.call, self.call.q.shape[:2]
        for result, part in zip(self.results, self.parts or (), strict=False):
            result.copy_(part)
        q, k, v = (x.to(call.q.dtype) for x in self.results) if self.whole is None else (self.whole, None, None)
        mass, pair = (
            None if given is None else torch.from_numpy(g).view(batch, heads, *g.shape[1:])
            for given, g in ((call.log_mass, self.mass), (call.pair_bias, self.pair))
        )
        scale = torch.from_numpy(self.scale).sum(-1).view(batch, heads)
        return Gradients(q.to(call.q.dtype), k, v, scale, mass, pair)


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
