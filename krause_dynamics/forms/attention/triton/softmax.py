"""Forward kernel without top-k: one pass over the keys with a running softmax, over neighbourhoods of any size.

Only tiles at the edge of a neighbourhood are masked. The loop trusts its numbers: a NaN or infinity in a key or value
that is not heard may reach its sums (-inf + inf, 0 * NaN), which is then seen in them, and the block is computed once
more by `_careful`. Scores are scale * <q, k> + bias in float32, here with fused multiply-adds, since no set depends on
their last bit; the running maximum is kept in units of log 2, as exp2 wants it.

Tuples keep the argument lists short: those of `walk`, and ``keys`` = (K, V, BIAS, scale, m, stride of K, stride of V).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import is_hopper, launch_options
from .primitives import LN2, LOG2E, RUN_TIME, load_rows, load_scale, opaque, row_maximum, within
from .tiling import Tiling
from .walk import CAREFUL, add_finite, key_range, load_tile_bias, locate, masked, store_mended, tile_start


@triton.jit
def _step(
    u, q, factor, top, weight, out, keys, rows, walk, hood,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, T: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Running maximum (times log2 e), weight and values after the u-th tile."""
    K, V, BIAS, scale, m, stride_k, stride_v = keys
    c = tl.arange(0, T)
    start = tile_start(u, walk, T)
    x = tl.dot(q, tl.trans(load_rows(K, start, c, m, stride_k, D, DP, "")), input_precision="ieee")
    if HAS_BIAS:
        x = tl.fma(x, scale, load_tile_bias(BIAS, start, m, 0.0, T, COPIES)[None, :])
    x = masked(x, u, start, m, rows, walk, hood, T)
    higher = tl.maximum(top, tl.max(x, 1) * factor)
    base = tl.where(higher == float("-inf"), 0.0, higher)
    p = tl.exp2(tl.fma(x, factor, -base[:, None]))
    shrink = tl.exp2(top - base)
    v = load_rows(V, start, c, m, stride_v, D, DP, "")
    out = tl.dot(p.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
    return higher, weight * shrink + tl.sum(p, 1), out


@triton.jit
def _careful(
    tensors, strides, row_strides, scale, n, m, heads, group, offset, hood,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Maximum, weight and stored output where some number is not finite: NaN in rows that hear one, else no trace.

    Small tiles, CAREFUL columns of the output at a time, and everything worked out once more from the program's number:
    held over the loop, it would cost that registers.
    """
    Q, K, V, BIAS, OUT, _, _, query = locate(opaque(tl.program_id(0)), tensors, strides, n, heads, group, B)
    stride_q, stride_k, stride_v, stride_o = row_strides
    c = tl.arange(0, CAREFUL)
    i = query + tl.arange(0, B)
    last = tl.minimum(query + B, n) - 1 + offset
    rows = (i + offset, query + offset, last)
    walk = key_range(query + offset, last, m, hood[0], hood[1], hood[6], hood[7], CAREFUL)
    q = load_rows(Q, query, tl.arange(0, B), n, stride_q, D, DP, "")
    top = tl.zeros([B], tl.float32)
    weight = tl.zeros([B], tl.float32)
    for column in tl.range(0, D, CAREFUL, num_stages=1):
        d = column + tl.arange(0, CAREFUL)
        top = tl.zeros([B], tl.float32) + float("-inf")
        weight = tl.zeros([B], tl.float32)
        out = tl.zeros([B, CAREFUL], tl.float32)
        poison = tl.zeros([B, CAREFUL], tl.float32)
        for u in tl.range(walk[1], num_stages=1):
            start = tile_start(u, walk, CAREFUL)
            x = tl.dot(q, tl.trans(load_rows(K, start, c, m, stride_k, D, DP, "")), input_precision="ieee") * scale
            if HAS_BIAS:
                bias = tl.load(BIAS + start.to(tl.int64) + c, mask=within(start, c, m), other=0.0)
                x = tl.where((bias > float("-inf"))[None, :], x + bias[None, :], float("-inf"))
            x = masked(x * LOG2E, u, start, m, rows, walk, hood, CAREFUL)
            higher = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
            base = tl.where(higher == float("-inf"), 0.0, higher)
            p = tl.exp2(x - base[:, None])
            shrink = tl.exp2(top - base)
            out, poison = add_finite(
                out * shrink[:, None], poison, p, x != float("-inf"), V, start, d, m, stride_v, D, CAREFUL
            )
            weight = weight * shrink + tl.sum(p, 1)
            top = higher
        weight = tl.where(top == top, weight, top)
        store_mended(OUT, out, poison, weight, i, n, d, stride_o, D)
    return top, weight


@triton.jit(do_not_specialize=RUN_TIME)
def softmax_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ,
    scale_value, n, m, heads, group, offset,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Output (n, D) and log-partition (n,) of B queries of one head."""
    tensors = (Q, K, V, BIAS, OUT)
    strides = (
        stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_ob, stride_oh
    )  # fmt: skip
    Q, K, V, BIAS, OUT, batch, head, query = locate(tl.program_id(0), tensors, strides, n, heads, group, B)
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    i = query + tl.arange(0, B)
    last = tl.minimum(query + B, n) - 1 + offset
    keys = (K, V, BIAS, scale, m, stride_kn, stride_vn)
    rows = (i + offset, query + offset, last)
    walk = key_range(query + offset, last, m, LEFT, RIGHT, PREFIX, FIRST, T)
    q = load_rows(Q, query, tl.arange(0, B), n, stride_qn, D, DP, "")
    if HAS_BIAS:
        factor = LOG2E
    else:
        # The maximum is taken of the products, so their factor must be positive; else `_careful` does the work.
        factor = tl.where(scale > 0, scale * LOG2E, float("nan"))
    top = tl.zeros([B], tl.float32) + float("-inf")
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    for u in tl.range(walk[1], num_stages=STAGES):
        top, weight, out = _step(u, q, factor, top, weight, out, keys, rows, walk, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), D, DP, HAS_BIAS, T, COPIES)  # fmt: skip  # noqa: E501

    check = tl.sum(out, 1) + weight
    if tl.max((check != check).to(tl.int32), 0) > 0:
        row_strides = (stride_qn, stride_kn, stride_vn, stride_on)
        top, weight = _careful(tensors, strides, row_strides, scale, n, m, heads, group, offset, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), D, DP, HAS_BIAS, B)  # fmt: skip  # noqa: E501
    else:
        out *= (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None]
        d = tl.arange(0, DP)
        place = OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :]
        tl.store(place, out.to(OUT.dtype.element_ty), mask=(i < n)[:, None] & (d < D)[None, :])
    # An empty row's maximum is -inf, and so is its log-partition.
    logz = (top + tl.log2(tl.where(weight == 0.0, 1.0, weight))) * LN2
    tl.store(LOGZ + (batch * heads + head) * n + i, logz, mask=i < n)


def launch_softmax(hood: Tiling, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any]) -> None:
    """Launch `softmax_kernel`; arguments as prepared by `launch.forward`."""
    q, k = arrays[:2]
    batch, heads, n, _ = q.shape
    heard = hood.expected(k.shape[-2])
    block, tile, warps, stages, registers = _sizes(common["DP"], q.dtype, heard, common["HAS_BIAS"], is_hopper(q))
    common = {name: value for name, value in common.items() if name not in ("TOP_K", "KEEP_TIES")}
    softmax_kernel[(batch * heads * triton.cdiv(n, block),)](
        *arrays[:7], *numbers, *strides, **common, B=block, T=tile, STAGES=stages,
        COPIES=min(8, max(1, 32 * warps // tile)),
        **(launch_options(warps, stages, registers) | {"enable_fp_fusion": True}),
    )  # fmt: skip


def _sizes(
    dim: int, dtype: torch.dtype, heard: int, biased: bool, hopper: bool
) -> tuple[int, int, int, int, int | None]:
    """Queries and keys a tile, warps, stages of the pipeline, registers a thread; as measured on an H200.

    Four blocks of 128 threads and 128 registers share a multiprocessor there; earlier generations hold the queries in
    registers as well and get what they ask for.
    """
    if dtype == torch.float32:
        return (32, 32, 4 if dim <= 64 else 8, 1, None) if dim <= 128 else (16, 16, 4, 1, None)
    registers = 128 if hopper else None
    if dim <= 64:
        return (64, 32, 4, 3, registers) if heard <= 64 else (64, 64, 4, 2 if biased else 3, registers)
    if dim <= 128:
        return (64, 32, 4, 2, registers) if heard <= 256 else (64, 64, 4, 2, None)
    return 64, 32, 4 if hopper else 8, 2, None
