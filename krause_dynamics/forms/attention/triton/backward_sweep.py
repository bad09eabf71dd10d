"""Backward kernel for short windows: one walk along the sequence gives all gradients, every token read once or twice.

In band coordinates (key - query_offset + left) the rows of block r hear keys of the blocks r and r + 1 only, if the
window is no longer than a block and a key. So a program that walks over r has the gradients of key block r complete
once row block r is done, and carries those of block r + 1. It starts on the row block before its first key block
(unless that is the first of all): all numbers but two blocks per program are used once.

Both score tiles of a row being at hand, delta_i = sum_j p_ij <do_i, v_j> - d(log Z_i) needs no output.
"""

import triton
import triton.language as tl

from .backward_tiles import (
    load_cleared,
    not_a_number,
    of_distance,
    of_scale,
    scale_of_distance,
    squares,
    store_rows,
)
from .primitives import LOG2E, RUN_TIME, load_bias, load_rows, load_scale, opaque_once, within
from .words import load_words, selected


@triton.jit
def _weights(
    k, q, bias, cleared, words, j, row, scale, SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Tile (keys, queries) of p_ij."""
    product = tl.dot(k, tl.trans(q), input_precision="ieee")
    if SELECT == 1:
        keep = selected(words, tl.arange(0, B), B, True)
    else:
        keep = (j[:, None] >= row[None, :] - LEFT) & (j[:, None] <= row[None, :] + RIGHT)
    if HAS_BIAS or (SELECT == 0):
        exponent = tl.fma(product, scale * LOG2E, (bias * LOG2E)[:, None] + cleared[None, :])
    else:
        exponent = tl.fma(product, scale * LOG2E, cleared[None, :])
    return tl.where(keep, tl.exp2(exponent), 0.0)


@triton.jit(do_not_specialize=(*RUN_TIME, "chunks", "length"))
def sweep_kernel(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DLOGZ, DQ, DK, DV, DBIAS, DSCALE, ROW_FLAGS, KEY_FLAGS,
    scale_value, n, m, heads, offset, chunks, length,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_sb, stride_sh,
    stride_gb, stride_gh, stride_dqb, stride_dqh, stride_dkb, stride_dkh, slopes,
    stride_qn: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_gn: tl.constexpr,
    stride_dqn: tl.constexpr, stride_dkn: tl.constexpr,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, HAS_DLOGZ: tl.constexpr, NEED_DBIAS: tl.constexpr,
    DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr, WORDS: tl.constexpr, B: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """All gradients of `length` blocks of B queries and keys of one head."""
    chunk = tl.program_id(0) % chunks
    unit = (tl.program_id(0) // chunks).to(tl.int64)
    batch = unit // heads
    head = unit % heads
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + head * stride_kh
    V += batch * stride_vb + head * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    DOUT += batch * stride_gb + head * stride_gh
    DQ += batch * stride_dqb + head * stride_dqh
    DK += batch * stride_dkb + head * stride_dkh
    DV += batch * stride_dkb + head * stride_dkh
    DSCALE += unit * slopes
    LOGZ += unit * n
    BITS += unit * n * WORDS
    begin = chunk * length
    end = tl.minimum(begin + length, tl.cdiv(n, B))
    c = tl.arange(0, B)
    dk = tl.zeros([B, DP], tl.float32)
    dv = tl.zeros([B, DP], tl.float32)
    dbias = tl.zeros([B], tl.float32)
    # The last step completes the last key block; its queries belong to the next program.
    for u in tl.range(0, end - begin + 1, num_stages=STAGES):
        r = begin + u
        i = r * B + c
        first = r * B + offset - LEFT
        j = first + c
        q = load_rows(Q, r * B, c, n, stride_qn, D, DP, "")
        do = load_rows(DOUT, r * B, c, n, stride_gn, D, DP, "")
        k0 = load_rows(K, first, c, m, stride_kn, D, DP, "")
        v0 = load_rows(V, first, c, m, stride_vn, D, DP, "")
        k1 = load_rows(K, first + B, c, m, stride_kn, D, DP, "")
        v1 = load_rows(V, first + B, c, m, stride_vn, D, DP, "")
        words0, words1 = (i, i), (i, i)
        if SELECT == 1:
            words0 = load_words(BITS, i, n, c * 0, B, WORDS)
            words1 = load_words(BITS, i, n, c * 0 + 1, B, WORDS)
        bias0 = load_bias(BIAS, first, c, m, HAS_BIAS)
        bias1 = load_bias(BIAS, first + B, c, m, HAS_BIAS)
        cleared, hears = load_cleared(LOGZ, i, n)
        p0 = _weights(k0, q, bias0, cleared, words0, j, i + offset, scale, SELECT, LEFT, RIGHT, HAS_BIAS, B)
        p1 = _weights(k1, q, bias1, cleared, words1, j + B, i + offset, scale, SELECT, LEFT, RIGHT, HAS_BIAS, B)  # fmt: skip  # noqa: E501
        dp0 = tl.dot(v0, tl.trans(do), input_precision="ieee")
        dp1 = tl.dot(v1, tl.trans(do), input_precision="ieee")
        delta = tl.sum(tl.fma(p0, dp0, p1 * dp1), 0)
        if HAS_DLOGZ:
            delta -= tl.load(DLOGZ + unit * n + i, mask=hears, other=0.0)
        ds0 = p0 * (dp0 - delta[None, :])
        ds1 = p1 * (dp1 - delta[None, :])
        half0 = ds0.to(q.dtype)
        half1 = ds1.to(q.dtype)

        complete = within(first, c, m) & (c * 0 + u >= tl.minimum(begin, 1))
        zero = tl.zeros([B, DP], tl.float32)
        dv = tl.dot(p0.to(do.dtype), do, dv, input_precision="ieee")
        dk = tl.dot(half0, q, dk, input_precision="ieee")
        dk = dk * scale
        if NEED_DBIAS or DISTANCE:
            dbias += tl.sum(ds0, 1)
        tl.store(KEY_FLAGS + unit * m + j, not_a_number(dk + dv), mask=complete)
        store_rows(DV, dv, first, c, complete, stride_dkn, D, DP)
        if DISTANCE:
            # Read again: kept, k0 would take registers all along.
            k = load_rows(K, opaque_once(first), c, m, stride_kn, D, DP, "")
            dk = of_distance(dk, k, dbias * scale)
            if NEED_DSCALE:
                tl.store(DSCALE + n + j, scale_of_distance(squares(k), dbias), mask=complete)
        store_rows(DK, dk, first, c, complete, stride_dkn, D, DP)
        if NEED_DBIAS:
            tl.store(DBIAS + unit * m + j, dbias, mask=complete)
        if NEED_DBIAS or DISTANCE:
            dbias = tl.sum(ds1, 1)
        dv = tl.dot(p1.to(do.dtype), do, zero, input_precision="ieee")
        dk = tl.dot(half1, q, zero, input_precision="ieee")

        own = (i < n) & (c * 0 + r < end)
        dq = tl.dot(tl.trans(half0), k0, input_precision="ieee")
        dq = tl.dot(tl.trans(half1), k1, dq, input_precision="ieee")
        store_rows(DQ, dq * scale, r * B, c, own, stride_dqn, D, DP)
        if NEED_DSCALE:
            # Read again: kept, q would take registers all along.
            dscale = of_scale(dq, load_rows(Q, r * B, c, n, stride_qn, D, DP, ""))
            tl.store(DSCALE + i, dscale, mask=own)
            tl.store(ROW_FLAGS + unit * n + i, (dscale != dscale).to(tl.int8), mask=own)
        else:
            tl.store(ROW_FLAGS + unit * n + i, not_a_number(dq), mask=own)
