"""Windowed top-k attention on any torch device in O(N W d) time and O(N W) memory, forward and backward.

On the CPU compiled row kernels (`rows`) visit exactly the admitted pairs; elsewhere blocks of queries meet the slab of
keys that they reach (`tiles`). Both compute in float32 (float64 for float64 inputs) whatever the inputs' dtype.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.fused import tiles
from krause_dynamics.fused.lowering import UNBOUNDED, Lowered, Rule, flatten, leading_shape, lower
from krause_dynamics.interaction import Aggregate, Interaction, Request

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PAIRS_A_BLOCK = 1 << 23  # pairs of one block times batch and heads: 32 MiB of float32 scores
THREAD_ROWS = 256  # fewer rows than this are not worth a second thread


class Call(NamedTuple):
    """The tensors of one call, (b, h, n, d), (b, h_kv, m, d), (b, h_kv, m, d_v), with scale (b, h)."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None
    segments: Tensor | None


class Options(NamedTuple):
    """The numbers of one call."""

    rule: Rule
    distance: bool
    offset: int
    dropout: float
    seed: int


class Gradients(NamedTuple):
    """Gradients in the shapes of the inputs; masses per head (b, h, m), biases per pair (b, h, n, m); or ``None``."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None


def supports_tensors(q: Tensor, lowered: Lowered) -> str | None:
    """``None`` if banded can compute a lowered call, else the reason."""
    if q.dtype not in DTYPES:
        return f"dtype {q.dtype} is not one of float64, float32, bfloat16, float16"
    return None


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None`` if banded computes this interaction on these arrays, else the reason."""
    lowered = lower(interaction, request)
    return lowered if isinstance(lowered, str) else supports_tensors(request.queries, lowered)


def pays(interaction: Interaction, request: Request) -> bool:
    """Whether banded is expected to beat the dense reference: torch arrays, and a rule that leaves most pairs out."""
    lowered = lower(interaction, request)
    m = request.sources.shape[-2]
    return not isinstance(lowered, str) and m >= 64 and 2 * lowered.rule.row_length(m) <= m


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """The one operation for torch arrays, through the operator with all its gradients."""
    from krause_dynamics.fused import operators

    lowered = lower(interaction, request)
    if isinstance(lowered, str):
        raise ValueError(f"banded cannot compute this interaction: {lowered}")
    lead = leading_shape(request)
    q, k, v = (flatten(x, lead) for x in (request.queries, request.sources, request.values))
    mean, log_partition = operators.banded(q, k, v, lowered)
    n = request.queries.shape[-2]
    return Aggregate(mean.reshape(*lead, n, mean.shape[-1]), log_partition.reshape(*lead, n))


def selection_bytes(rule: Rule, n: int, m: int, offset: int) -> tuple[int, int, int]:
    """Packed selection: number of rows that may hear all keys, their bytes, and the bytes of the other rows."""
    wide = min(n, max(rule.prefix - offset, 0)) if rule.grid else 0
    return wide, (m + 7) // 8, (rule.row_length(m) + 7) // 8


def forward(call: Call, options: Options, *, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, h, n, d_v), log-partition (b, h, n) and packed selection (b h, bytes; no bytes when not saved)."""
    if call.q.device.type == "cpu":
        return _forward_rows(call, options, save)
    out, log_partition = _forward_tiles(call, options)
    return out, log_partition, torch.empty(0, dtype=torch.uint8, device=call.q.device)


def backward(
    call: Call, options: Options, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor
) -> Gradients:
    """All gradients, on the same selection as the forward pass whatever the rounding."""
    if call.q.device.type == "cpu":
        return _backward_rows(call, options, log_partition, selection, grad_out, grad_log)
    return _backward_tiles(call, options, grad_out, grad_log)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return importlib.import_module("krause_dynamics.fused.rows")  # numba takes a second to import: on first use


@lru_cache(maxsize=8)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork does not inherit them, and would wait for them for ever."""
    return ThreadPoolExecutor(threads)


def _spread(run: Callable[[int, int], None], total: int, smallest: int) -> None:
    """run(begin, end) over range(total), on as many threads as torch would use."""
    threads = min(torch.get_num_threads(), max(1, total // smallest))
    if threads == 1:
        run(0, total)
        return
    edges = [total * t // threads for t in range(threads + 1)]
    for future in [_pool(threads, os.getpid()).submit(run, a, b) for a, b in zip(edges, edges[1:], strict=False)]:
        future.result()


def _array(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(b, h, n, d) -> (b h, n, d), a C-contiguous numpy view where possible."""
    if x.dtype != dtype or not x.is_contiguous():
        x = x.to(dtype).contiguous()
    array = x.detach().numpy()
    return array.reshape(-1, *array.shape[2:])


def _prepare(call: Call, options: Options) -> tuple[Any, Any, int]:
    """Layout, arrays and longest row of the row kernels."""
    rows, rule, dtype = _kernels(), options.rule, call.scale.dtype
    (_, heads, n, _), m = call.q.shape, call.k.shape[2]
    grid = rule.grid or (0, 1, 0, 0, 0)
    packing = selection_bytes(rule, n, m, options.offset)
    mass, pair = call.log_mass, call.pair_bias
    layout = rows.Layout(
        heads, call.k.shape[1], 0 if mass is None else mass.shape[1], options.offset, int(options.distance),
        rule.top_k, int(rule.keep_ties), *grid, *packing, options.seed,
    )  # fmt: skip
    lower, upper = _bounds(call, options)
    flat, strides = np.empty(0, _numpy_dtype(dtype)), np.zeros(4, np.int64)
    if pair is not None:
        pair = pair.detach().to(dtype)
        strides = np.array(pair.stride(), np.int64)
        size = 1 + sum((s - 1) * t for s, t in zip(pair.shape, pair.stride(), strict=True))
        flat = pair.as_strided((size,), (1,)).numpy()
    arrays = rows.Arrays(
        _array(call.q, dtype), _array(call.k, dtype), _array(call.v, dtype),
        call.scale.detach().reshape(-1).contiguous().numpy(),
        np.empty((0, 0), _numpy_dtype(dtype)) if mass is None else _array(mass.unsqueeze(-1), dtype)[..., 0],
        flat, strides, lower, upper,
    )  # fmt: skip
    return layout, arrays, m if packing[0] else max(1, rule.row_length(m))


def _bounds(call: Call, options: Options) -> tuple[np.ndarray, np.ndarray]:
    n, m, rule = call.q.shape[2], call.k.shape[2], options.rule
    if call.segments is not None:
        first, last = tiles.bounds(rule, n, m, options.offset, call.segments, call.q.device)
        return first.numpy(), last.numpy()
    position = np.arange(options.offset, options.offset + n)
    lower = np.zeros(n, np.int64) if rule.left == UNBOUNDED else position - rule.left
    return lower, np.full(n, m - 1) if rule.right == UNBOUNDED else position + rule.right


def _numpy_dtype(dtype: torch.dtype) -> Any:
    return np.float64 if dtype == torch.float64 else np.float32


def _scratch(rows: int, longest: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    floats = np.empty((rows, longest), _numpy_dtype(dtype))
    return floats, floats.view(np.int64 if dtype == torch.float64 else np.int32)


def _forward_rows(call: Call, options: Options, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    layout, arrays, longest = _prepare(call, options)
    (batch, heads, n, _), dtype = call.q.shape, call.scale.dtype
    out = torch.empty(batch * heads, n, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    wide, wide_bytes, row_bytes = selection_bytes(options.rule, n, call.k.shape[2], options.offset)
    width = wide * wide_bytes + (n - wide) * row_bytes if save and options.rule.top_k else 0
    bits = torch.zeros(batch * heads, width, dtype=torch.uint8)
    results = out.numpy(), log_partition.numpy(), bits.numpy()

    def run(begin: int, end: int) -> None:
        scratch = _scratch(4, longest, dtype)
        _kernels().forward((begin, end), layout, arrays, options.dropout, *scratch, *results)

    _spread(run, batch * heads * n, THREAD_ROWS)
    return out.view(batch, heads, n, -1).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def _backward_rows(
    call: Call, options: Options, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor
) -> Gradients:
    layout, arrays, longest = _prepare(call, options)
    (batch, heads, n, _), (_, kv_heads, m, _), dtype = call.q.shape, call.k.shape, call.scale.dtype
    given = _array(log_partition, dtype), selection.numpy(), _array(grad_out, dtype), _array(grad_log, dtype)
    wanted = call.log_mass is not None, call.pair_bias is not None
    grads = [np.zeros(x.shape, x.dtype) for x in arrays[:4]]
    grad_mass = np.zeros((batch * heads, m) if wanted[0] else (0, 0), arrays.q.dtype)
    grad_pair = np.zeros((batch * heads, n, m) if wanted[1] else (0, 0, 0), arrays.q.dtype)

    def run(begin: int, end: int) -> None:
        scratch = _scratch(6, longest, dtype)
        _kernels().backward(
            (begin, end), layout, arrays, options.dropout, *scratch, *given, *grads, grad_mass, grad_pair
        )

    _spread(run, batch * kv_heads, 1 if n >= THREAD_ROWS else batch * kv_heads)
    q, k, v = (
        torch.from_numpy(g).view(x.shape).to(x.dtype) for g, x in zip(grads, (call.q, call.k, call.v), strict=False)
    )
    return Gradients(
        q, k, v, torch.from_numpy(grads[3]).view(batch, heads),
        torch.from_numpy(grad_mass).view(batch, heads, m) if wanted[0] else None,
        torch.from_numpy(grad_pair).view(batch, heads, n, m) if wanted[1] else None,
    )  # fmt: skip


def _walk(call: Call, options: Options) -> Iterator[tuple[tiles.Block, Tensor, Tensor | None]]:
    """Blocks with their admitted pairs and dropout factors, one at a time."""
    (batch, heads, n, _), m, rule = call.q.shape, call.k.shape[2], options.rule
    device = call.q.device
    lower, upper = tiles.bounds(rule, n, m, options.offset, call.segments, device)
    for block in tiles.blocks(rule, n, m, options.offset, max(1, PAIRS_A_BLOCK // (batch * heads)), device):
        keep = None
        if options.dropout > 0:
            keep = tiles.dropout_factors(block, (batch, heads), n, options.dropout, options.seed).to(call.scale.dtype)
        yield block, tiles.admitted(block, rule, options.offset, lower, upper), keep


def _attend(
    call: Call, options: Options, block: tiles.Block, allowed: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor]:
    tile = tiles.gather(block, call.q, call.k, call.v, call.scale, call.log_mass, call.pair_bias)
    return tiles.attend(tile, allowed, options.distance, options.rule.top_k, options.rule.keep_ties, keep)


def _forward_tiles(call: Call, options: Options) -> tuple[Tensor, Tensor]:
    (batch, heads, n, _), dtype = call.q.shape, call.scale.dtype
    # One row more than asked: the tail of the last tile writes there.
    out = torch.empty(batch, heads, n + 1, call.v.shape[3], dtype=call.q.dtype, device=call.q.device)
    log_partition = torch.empty(batch, heads, n + 1, dtype=dtype, device=call.q.device)
    with torch.no_grad(), _exact_products():
        for block, allowed, keep in _walk(call, options):
            result = _attend(call, options, block, allowed, keep)
            out[:, :, block.rows] = result[0].to(out.dtype)
            log_partition[:, :, block.rows] = result[1]
    return out[:, :, :n].contiguous(), log_partition[:, :, :n].contiguous()


def _backward_tiles(call: Call, options: Options, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    (batch, heads, n, _), (_, kv_heads, m, _), dtype = call.q.shape, call.k.shape, call.scale.dtype
    rule, device = options.rule, call.q.device
    # One row more than asked: the tail of the last tile writes there.
    grad_q = torch.zeros(batch, heads, n + 1, call.q.shape[3], dtype=dtype, device=device)
    grad_k, grad_v, grad_scale = (torch.zeros_like(x, dtype=dtype) for x in (call.k, call.v, call.scale))
    grad_mass = None if call.log_mass is None else torch.zeros(batch, heads, m, dtype=dtype, device=device)
    grad_pair = None if call.pair_bias is None else torch.zeros(batch, heads, n + 1, m, dtype=dtype, device=device)
    with torch.no_grad(), _exact_products():
        for block, allowed, keep in _walk(call, options):
            tile = tiles.gather(block, call.q, call.k, call.v, call.scale, call.log_mass, call.pair_bias)
            rows, live = block.rows.clamp(max=n - 1), block.rows < n
            given = grad_out[:, :, rows].to(dtype) * live[..., None], grad_log[:, :, rows].to(dtype) * live
            found = tiles.slopes(tile, allowed, options.distance, rule.top_k, rule.keep_ties, keep, given)
            grad_q[:, :, block.rows] = found.q
            for total, part in ((grad_k, found.k), (grad_v, found.v)):
                grouped = part.unflatten(1, (kv_heads, heads // kv_heads)).sum(2)
                _accumulate(total, block.columns, grouped.flatten(2, 3))
            grad_scale += found.scale
            if grad_mass is not None:
                _accumulate(grad_mass, block.columns, found.pairs.sum(-2).flatten(2))
            if grad_pair is not None:
                places = block.rows[..., None] * m + block.columns[:, None]
                _accumulate(grad_pair.view(batch, heads, -1), places, found.pairs.flatten(2))
    q, k, v = grad_q[:, :, :n].to(call.q.dtype), grad_k.to(call.k.dtype), grad_v.to(call.v.dtype)
    pair = None if grad_pair is None else grad_pair[:, :, :n].contiguous()
    return Gradients(q.contiguous(), k, v, grad_scale, grad_mass, pair)


def _accumulate(total: Tensor, columns: Tensor, part: Tensor) -> None:
    """total[:, :, columns] += part, where a key occurs in several slabs; sorted, hence the same at every run."""
    flat = total.transpose(0, 2)
    flat.index_put_((columns.flatten(),), part.transpose(0, 2), accumulate=True)


class _exact_products:
    """float32 products without TF32: rounding q to ten bits would change who is admitted."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self.before
