"""Backward kernel of grids for dq: patches of queries with the keys of their halo, prefix queries with all keys."""

import triton
import triton.language as tl

from .grid_geometry import (
    NOBODY,
    bits_of,
    candidates,
    cells_of_patch,
    code,
    finite,
    heard,
    load_listed,
    products,
    row_statistics,
)
from .primitives import LOG2E, RUN_TIME, load_bias, load_rows, load_scale


@triton.jit
def _bit_set(words, bit, WORDS: tl.constexpr):
    """Whether `bit` (rows, columns) is set in the words of its row."""
    word = words[0][:, None]
    for w in tl.static_range(1, WORDS):
        word = tl.where(bit >> 5 == w, words[w][:, None], word)
    return ((word >> (bit & 31)) & 1) != 0


@triton.jit
def _queries_of_patch(
    Q, K, V, BIAS, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE, pr, pc, scale, n, m, offset,
    stride_qn, stride_kn, stride_vn, stride_on, stride_gn, stride_dqn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DLOGZ: tl.constexpr, NEED_DSCALE: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """dq, delta and the scale's gradient of the queries of one patch of one head."""
    a, b, i, there = cells_of_patch(pr, pc, n, offset, PREFIX, WIDTH, PH, PW, B)
    row_code = code(a, b, 0, MANHATTAN)
    q = load_listed(Q, i, there, stride_qn, D, DP)
    do = load_listed(DOUT, i, there, stride_gn, D, DP)
    o = load_listed(OUT, i, there, stride_on, D, DP)
    cleared, hears = row_statistics(LOGZ, i, there)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    if HAS_DLOGZ:
        delta -= tl.load(DLOGZ + i, mask=hears, other=0.0)
    tl.store(DELTA + i, delta, mask=there)
    words = ()
    if SELECT:
        for w in tl.static_range(WORDS):
            words = words + (tl.load(BITS + w * n.to(tl.int64) + i, mask=there, other=0),)
    dq = tl.zeros([B, DP], tl.float32)
    dscale = tl.zeros([B], tl.float32)
    for t in range(NT):
        c = t * T + tl.arange(0, T)
        j, inside, halo_row, halo_column = candidates(c, pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW, HW)
        k = finite(load_listed(K, j, inside, stride_kn, D, DP))
        v = load_listed(V, j, inside, stride_vn, D, DP)
        product = products(q, k, Q, i, there, stride_qn, K, j, inside, stride_kn, D, DP)
        s = product * scale
        valid = inside
        if HAS_BIAS:
            bias = tl.load(BIAS + j.to(tl.int64), mask=inside, other=float("-inf"))
            s = s + bias[None, :]
            valid = inside & (bias > float("-inf"))
        column_code = tl.where(valid, code(halo_row, halo_column, RADIUS, MANHATTAN), NOBODY)
        keep = heard(column_code[None, :], row_code[:, None], RADIUS)
        if PREFIX > 0:
            keep = keep | ((c < PREFIX) & valid)[None, :]
        if SELECT:
            bit = bits_of(c, halo_row, halo_column, a, b, PREFIX, RADIUS)
            keep = keep & _bit_set(words, bit, WORDS)
        p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared[:, None])), 0.0)
        dp = products(do, v, DOUT, i, there, stride_gn, V, j, inside, stride_vn, D, DP)
        ds = tl.where(keep, p * (dp - delta[:, None]), 0.0)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
        if NEED_DSCALE:
            dscale += tl.sum(tl.where(keep, ds * product, 0.0), 1)
    d = tl.arange(0, DP)
    mask = there[:, None] & (d < D)[None, :]
    tl.store(DQ + (i.to(tl.int64) * stride_dqn)[:, None] + d[None, :], (dq * scale).to(DQ.dtype.element_ty), mask=mask)
    if NEED_DSCALE:
        tl.store(DSCALE + i, dscale, mask=there)


@triton.jit
def _query_of_prefix(
    Q, K, V, BIAS, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE, i, scale, n, m,
    stride_qn, stride_kn, stride_vn, stride_on, stride_gn, stride_dqn,
    SELECT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DLOGZ: tl.constexpr,
    NEED_DSCALE: tl.constexpr, KEYS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """dq, delta and the scale's gradient of query i, which hears all keys."""
    d = tl.arange(0, DP)
    row = i.to(tl.int64)
    q = tl.load(Q + row * stride_qn + d, mask=d < D, other=0.0).to(tl.float32)
    do = tl.load(DOUT + row * stride_gn + d, mask=d < D, other=0.0).to(tl.float32)
    o = tl.load(OUT + row * stride_on + d, mask=d < D, other=0.0).to(tl.float32)
    cleared, hears = row_statistics(LOGZ, i, i < n)
    delta = tl.sum(do * o, 0)
    if HAS_DLOGZ:
        delta -= tl.load(DLOGZ + i, mask=hears, other=0.0)
    tl.store(DELTA + i, delta)
    BITS += WORDS * n.to(tl.int64) + row * tl.cdiv(m, 32)
    sums = tl.zeros([KEYS, DP], tl.float32)
    dscale = tl.zeros([KEYS], tl.float32)
    for u in range(tl.cdiv(m, KEYS)):
        start = u * KEYS + i * 0
        c = tl.arange(0, KEYS)
        k = load_rows(K, start, c, m, stride_kn, D, DP, "").to(tl.float32)
        v = load_rows(V, start, c, m, stride_vn, D, DP, "").to(tl.float32)
        bias = load_bias(BIAS, start, c, m, HAS_BIAS)
        keep = bias > float("-inf")
        if SELECT:
            j = start + c
            keep = keep & (((tl.load(BITS + j // 32, mask=j < m, other=0) >> (j & 31)) & 1) != 0)
        product = tl.sum(k * q[None, :], 1)
        s = product * scale + bias
        p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared)), 0.0)
        ds = p * (tl.sum(v * do[None, :], 1) - delta)
        sums += tl.where(keep[:, None], ds[:, None] * k, 0.0)
        dscale += tl.where(keep, ds * product, 0.0)
    tl.store(DQ + row * stride_dqn + d, (tl.sum(sums, 0) * scale).to(DQ.dtype.element_ty), mask=d < D)
    if NEED_DSCALE:
        tl.store(DSCALE + i, tl.sum(dscale, 0))


@triton.jit(do_not_specialize=(*RUN_TIME, "units", "patches", "stored"))
def grid_queries_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE,
    scale_value, n, m, heads, group, offset, units, patches, stored, slopes,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on, stride_gb, stride_gh, stride_gn,
    stride_dqb, stride_dqh, stride_dqn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, HAS_DLOGZ: tl.constexpr,
    NEED_DSCALE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
    NT: tl.constexpr, WORDS: tl.constexpr, LEADING: tl.constexpr, PATCHES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Programs of the first LEADING queries of every head, then (if PATCHES) those of patches of queries."""
    program = tl.program_id(0)
    first = units * LEADING
    each = LEADING if program < first else patches
    place = program if program < first else program - first
    unit = place // each
    patch = place % each
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    rows = unit.to(tl.int64) * n
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    OUT += batch * stride_ob + head * stride_oh
    DOUT += batch * stride_gb + head * stride_gh
    DQ += batch * stride_dqb + head * stride_dqh
    BITS += unit.to(tl.int64) * stored
    DSCALE += unit.to(tl.int64) * slopes
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    if LEADING > 0:
        if program < first:
            _query_of_prefix(
                Q, K, V, BIAS, OUT, LOGZ + rows, BITS, DOUT, DLOGZ + rows, DELTA + rows, DQ, DSCALE, patch,
                scale, n, m, stride_qn, stride_kn, stride_vn, stride_on, stride_gn, stride_dqn, SELECT, D, DP, HAS_BIAS,
                HAS_DLOGZ, NEED_DSCALE, KEYS, WORDS,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _queries_of_patch(
                Q, K, V, BIAS, OUT, LOGZ + rows, BITS, DOUT, DLOGZ + rows, DELTA + rows, DQ, DSCALE,
                patch // across, patch % across, scale, n, m, offset, stride_qn, stride_kn, stride_vn, stride_on,
                stride_gn, stride_dqn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS, HAS_DLOGZ,
                NEED_DSCALE, PH, PW, HW, B, T, NT, WORDS,
            )  # fmt: skip
