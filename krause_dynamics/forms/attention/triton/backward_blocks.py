"""Backward kernels by blocks: a program per block of queries for dq, one per block of keys for dk, dv and the bias."""

import triton
import triton.language as tl

from .backward_tiles import (
    load_cleared,
    load_delta,
    load_marks,
    not_a_number,
    of_distance,
    of_scale,
    scale_of_distance,
    squares,
    store_rows,
)
from .backward_walks import walk_keys, walk_rows
from .primitives import RUN_TIME, load_rows, load_scale, within


@triton.jit(do_not_specialize=RUN_TIME)
def backward_queries_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE, FLAGS,
    scale_value, n, m, heads, group, offset,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_sb, stride_sh,
    stride_ob, stride_oh, stride_gb, stride_gh, stride_dqb, stride_dqh, slopes,
    stride_qn: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_on: tl.constexpr,
    stride_gn: tl.constexpr, stride_dqn: tl.constexpr,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    HAS_DLOGZ: tl.constexpr, NEED_DSCALE: tl.constexpr, FULL: tl.constexpr, WORDS: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradient of B queries of one head; also delta_i (read by the other kernel) and dscale_i."""
    blocks = tl.cdiv(n, B)
    block = tl.program_id(0) % blocks
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    batch = unit // heads
    head = unit % heads
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    DOUT += batch * stride_gb + head * stride_gh
    BITS += unit * n * WORDS
    r = tl.arange(0, B)
    i = block * B + r
    do = load_rows(DOUT, block * B, r, n, stride_gn, D, DP, "")
    cleared, hears = load_cleared(LOGZ + unit * n, i, n)
    OUT += batch * stride_ob + head * stride_oh
    delta = load_delta(OUT, DOUT, DLOGZ + unit * n, block * B, i, n, hears, stride_on, stride_gn, D, DP, HAS_DLOGZ)
    tl.store(DELTA + unit * n + i, delta, mask=i < n)
    q = load_rows(Q + batch * stride_qb + head * stride_qh, block * B, r, n, stride_qn, D, DP, "")
    dq = walk_keys(
        q, do, cleared, delta, load_marks(BITS, i, n, SELECT), K + batch * stride_kb + (head // group) * stride_kh,
        V + batch * stride_vb + (head // group) * stride_vh, BIAS + batch * stride_bb + head * stride_bh, BITS, block,
        scale, n, m, offset, stride_kn, stride_vn, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), SELECT,
        HAS_BIAS, FULL, WORDS, D, DP, B, T, STAGES, False,
    )  # fmt: skip
    store_rows(DQ + batch * stride_dqb + head * stride_dqh, dq * scale, block * B, r, i < n, stride_dqn, D, DP)
    if NEED_DSCALE:
        # Read again: kept, q would take registers all along.
        q = load_rows(Q + batch * stride_qb + head * stride_qh, block * B, r, n, stride_qn, D, DP, "")
        dscale = of_scale(dq, q)
        tl.store(DSCALE + unit * slopes + i, dscale, mask=i < n)
        tl.store(FLAGS + unit * n + i, (dscale != dscale).to(tl.int8), mask=i < n)
    else:
        tl.store(FLAGS + unit * n + i, not_a_number(dq), mask=i < n)


@triton.jit(do_not_specialize=RUN_TIME)
def backward_keys_kernel(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE, FLAGS,
    scale_value, n, m, heads, group, offset, shift, first_block, blocks,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_sb, stride_sh,
    stride_gb, stride_gh, stride_dkb, stride_dkh, slopes,
    stride_qn: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_gn: tl.constexpr,
    stride_dkn: tl.constexpr,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    NEED_DBIAS: tl.constexpr, DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr, FULL: tl.constexpr,
    WORDS: tl.constexpr, B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of T keys and values of one key head, summed over its query heads, and of the bias of each of those.

    Key blocks are counted in band coordinates (j - shift) so that their columns are whole words.
    """
    position = (first_block + tl.program_id(0) % blocks) * T
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    kv_heads = heads // group
    batch = unit // kv_heads
    kv_head = unit % kv_heads
    c = tl.arange(0, T)
    first = position + shift
    j = first + c
    inside = within(first, c, m)
    k = load_rows(K + batch * stride_kb + kv_head * stride_kh, first, c, m, stride_kn, D, DP, "")
    v = load_rows(V + batch * stride_vb + kv_head * stride_vh, first, c, m, stride_vn, D, DP, "")
    squared = tl.zeros([T], tl.float32)
    if DISTANCE and NEED_DSCALE:
        squared = squares(k)
    slope = tl.zeros([T], tl.float32)
    dk = tl.zeros([T, DP], tl.float32)
    dv = tl.zeros([T, DP], tl.float32)
    for g in range(group):
        head = kv_head * group + g
        row = batch * heads + head
        scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
        dk, dv, dbias = walk_rows(
            k, v, Q + batch * stride_qb + head * stride_qh, DOUT + batch * stride_gb + head * stride_gh, DOUT,
            LOGZ + row * n, LOGZ, DELTA + row * n, BITS + row * n * WORDS, BIAS + batch * stride_bb + head * stride_bh,
            position, shift, scale, n, m, offset, stride_qn, stride_gn, stride_gn, dk, dv,
            (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), SELECT, HAS_BIAS, False,
            NEED_DBIAS or DISTANCE, FULL, WORDS, D, DP, B, T, STAGES, False,
        )  # fmt: skip
        if NEED_DBIAS:
            tl.store(DBIAS + row * m + j, dbias, mask=inside)
        if DISTANCE:
            slope += dbias * scale
            if NEED_DSCALE:
                tl.store(DSCALE + row * slopes + n + j, scale_of_distance(squared, dbias), mask=inside)
    place = batch * stride_dkb + kv_head * stride_dkh
    marked = not_a_number(dk + dv)
    store_rows(DV + place, dv, first, c, inside, stride_dkn, D, DP)
    if DISTANCE:
        # Read again, once dv is away: kept beside both sums, k would take registers all along.
        k = load_rows(K + batch * stride_kb + kv_head * stride_kh, first, c, m, stride_kn, D, DP, "")
        dk = of_distance(dk, k, slope)
    store_rows(DK + place, dk, first, c, inside, stride_dkn, D, DP)
    tl.store(FLAGS + unit * m + j, marked, mask=inside)
