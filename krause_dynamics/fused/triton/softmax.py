"""Forward kernel without top-k: one pass over the keys with a running softmax, over neighbourhoods of any size.

A block of B queries walks over the tiles of keys that any of them may hear: the prefix keys first, then the band. Only
tiles at the edge of the neighbourhood are masked. The loop trusts its numbers: a NaN or infinity in a key or value
that is not heard may reach its sums (-inf + inf, 0 * NaN), which is then seen in them, and the block is computed once
more by `_careful`. Scores are scale * <q, k> + bias in float32, here with fused multiply-adds, since no set depends on
their last bit; the running maximum is kept in units of log 2, as exp2 wants it.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import launch_options
from .neighbourhood import Neighbourhood
from .primitives import LN2, LOG2E, RUN_TIME, admitted, load_bias, load_rows, load_scale, row_maximum, scores, within
from .streaming import key_range


@triton.jit
def _heard(
    row, j, m, u, leading, least,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Which keys j (T,) of the u-th tile of a walk the rows (B,) hear; each prefix key counts in one tile."""
    if GRID or PREFIX > 0:
        heard = admitted(row[:, None], j[None, :], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
        if PREFIX > 0:
            heard = heard & tl.where(u < leading, j < PREFIX, j >= least)[None, :]
        return heard
    else:
        # Bounds of the row, so that an element costs two comparisons.
        low = tl.maximum(row - LEFT, 0)
        high = tl.minimum(row + RIGHT, m - 1)
        return (j[None, :] >= low[:, None]) & (j[None, :] <= high[:, None])


@triton.jit
def _careful(
    Q, K, V, BIAS, scale, first_row, offset, n, m, stride_q, stride_k, stride_v,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Sums of a block in which some number is not finite: NaN in the rows that hear one, no trace in the others."""
    c = tl.arange(0, T)
    row = first_row + offset + tl.arange(0, B)
    last = tl.minimum(first_row + B, n) - 1 + offset
    leading, tiles, begin, least = key_range(first_row + offset, last, m, LEFT, RIGHT, PREFIX, T)
    q = load_rows(Q, first_row, tl.arange(0, B), n, stride_q, D, DP, "")
    top = tl.zeros([B], tl.float32) + float("-inf")
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    poison = tl.zeros([B, DP], tl.float32)
    for u in tl.range(tiles, num_stages=1):
        start = tl.where(u < leading, u * T, begin + (u - leading) * T)
        bias = load_bias(BIAS, start, c, m, HAS_BIAS)
        heard = _heard(row, start + c, m, u, leading, least, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
        heard = heard & (bias > float("-inf"))[None, :]
        x = scores(q, load_rows(K, start, c, m, stride_k, D, DP, ""), scale, bias)
        x = tl.where(heard, x * LOG2E, float("-inf"))
        higher = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(x - base[:, None])
        shrink = tl.exp2(top - base)
        weight = weight * shrink + tl.sum(p, 1)
        v = load_rows(V, start, c, m, stride_v, D, DP, "")
        finite = tl.abs(v.to(tl.float32)) < float("inf")
        out = tl.dot(
            p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out * shrink[:, None], input_precision="ieee"
        )
        poison = tl.dot(heard.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
        top = higher
    return top, tl.where(top == top, weight, top), tl.where(poison > 0, float("nan"), out)


@triton.jit
def _step(
    q, K, V, BIAS, top, weight, out, u, start, edge, leading, least, row, scale, factor, m, stride_k, stride_v,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """Running sums after the u-th tile; `edge` says whether it needs a mask."""
    c = tl.arange(0, T)
    c2 = tl.arange(0, 2 * T) & (T - 1)
    k = load_rows(K, start, c, m, stride_k, D, DP, "")
    x = tl.dot(q, tl.trans(k), input_precision="ieee")
    if HAS_BIAS:
        # Twice as many loads as columns: a tile smaller than the number of threads would be loaded by each of them in
        # the product's layout, 16 loads a thread, instead of one asynchronous copy.
        twice = tl.load(BIAS + start.to(tl.int64) + c2, mask=within(start, c2, m), other=0.0)
        bias, _ = tl.split(tl.trans(tl.reshape(twice, (2, T))))
        x = tl.fma(x, scale, bias[None, :])
    if GRID or PREFIX > 0:
        if edge:
            heard = _heard(row, start + c, m, u, leading, least, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
            x = tl.where(heard, x, float("-inf"))
    else:
        if edge & 1:
            x = tl.where(c[None, :] >= (row - LEFT - start)[:, None], x, float("-inf"))
        if edge & 2:
            x = tl.where(c[None, :] <= (tl.minimum(row + RIGHT, m - 1) - start)[:, None], x, float("-inf"))
    higher = tl.maximum(top, tl.max(x, 1) * factor)
    base = tl.where(higher == float("-inf"), 0.0, higher)
    p = tl.exp2(tl.fma(x, factor, -base[:, None]))
    shrink = tl.exp2(top - base)
    v = load_rows(V, start, c, m, stride_v, D, DP, "")
    out = tl.dot(p.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
    return higher, weight * shrink + tl.sum(p, 1), out


@triton.jit(do_not_specialize=RUN_TIME)
def softmax_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ,
    scale_value, n, m, heads, group, offset,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Output (n, D) and log-partition (n,) of B queries of one head."""
    blocks = tl.cdiv(n, B)
    # Late blocks hear most where the past is heard: they go first.
    block = blocks - 1 - tl.program_id(0) % blocks
    unit = tl.program_id(0) // blocks
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    OUT += batch * stride_ob + head * stride_oh
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    i = block * B + tl.arange(0, B)
    row = i + offset
    first = block * B + offset
    last = tl.minimum(block * B + B, n) - 1 + offset
    leading, tiles, begin, least = key_range(first, last, m, LEFT, RIGHT, PREFIX, T)
    q = load_rows(Q, block * B, tl.arange(0, B), n, stride_qn, D, DP, "")
    factor = scale * LOG2E
    if HAS_BIAS:
        factor = LOG2E
    else:
        # The maximum is taken of the products, so their factor must be positive.
        q = tl.where(scale < 0, -q, q)
        factor = tl.where(factor == 0, 1e-38, tl.abs(factor))
    top = tl.zeros([B], tl.float32) + float("-inf")
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    for u in tl.range(tiles, num_stages=STAGES):
        start = tl.where(u < leading, u * T, begin + (u - leading) * T)
        if GRID:
            edge = 1
        else:
            edge = (start < last - LEFT).to(tl.int32) | (2 * ((start + T - 1 > first + RIGHT) | (start + T > m)))
            if PREFIX > 0:
                edge = edge | ((u < leading) | (start < least) | (first < PREFIX)).to(tl.int32)
        top, weight, out = _step(q, K, V, BIAS, top, weight, out, u, start, edge, leading, least, row, scale, factor, m, stride_kn, stride_vn, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS, T)  # fmt: skip  # noqa: E501
    check = tl.sum(out, 1) + weight
    if tl.max((check != check).to(tl.int32), 0) > 0:
        top, weight, out = _careful(Q, K, V, BIAS, scale, block * B, offset, n, m, stride_qn, stride_kn, stride_vn, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS, B, 16)  # fmt: skip  # noqa: E501
    safe = tl.where(weight == 0.0, 1.0, weight)
    d = tl.arange(0, DP)
    mask = (i < n)[:, None] & (d < D)[None, :]
    place = OUT + i.to(tl.int64)[:, None] * stride_on + d[None, :]
    tl.store(place, (out * (1.0 / safe)[:, None]).to(OUT.dtype.element_ty), mask=mask)
    # An empty row's maximum is -inf, and so is its log-partition.
    tl.store(LOGZ + unit.to(tl.int64) * n + i, (top + tl.log2(safe)) * LN2, mask=i < n)


def launch_softmax(hood: Neighbourhood, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any]) -> None:
    """Launch `softmax_kernel`; arguments as prepared by `launch.forward`."""
    q = arrays[0]
    batch, heads, n, _ = q.shape
    block, tile, warps, stages = _tiles(common["DP"], q.dtype)
    common = {name: value for name, value in common.items() if name not in ("TOP_K", "KEEP_TIES")}
    softmax_kernel[(batch * heads * triton.cdiv(n, block),)](
        *arrays[:7], *numbers, *strides, **common, B=block, T=tile, STAGES=stages,
        **(launch_options(warps, stages) | {"enable_fp_fusion": True}),
    )  # fmt: skip


def _tiles(dim: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Queries and keys a tile, warps, stages of the pipeline."""
    if dtype == torch.float32:
        return 32, 32, 4 if dim <= 64 else 8, 1
    return (64, 64, 4, 3) if dim <= 64 else (64, 32, 4 if dim <= 128 else 8, 2)
