"""Backward kernels for neighbourhoods on grids: patches of queries for dq, patches of keys for dk, dv and the bias.

Formulas are those of `backward`; geometry, bits and prefix programs are those of `grid`. As the neighbourhood is
symmetric, the queries that may hear a patch of keys are its halo and the prefix queries, in the order of `candidates`.
Prefix queries hear all keys and prefix keys are heard by all queries: these have a program each, which walks over all
of them. Every sum is taken by one program in a fixed order.
"""

import torch
import triton
import triton.language as tl

from .arguments import bias_arguments, on_device, padded, rows_contiguous, scale_arguments
from .grid import NOBODY, Sizes, bits_of, candidates, cells_of_patch, code, heard, load_listed, plan, products
from .neighbourhood import Neighbourhood
from .primitives import INTERPRETED, LOG2E, RUN_TIME, load_bias, load_rows, load_scale, opaque

CLAMP = tl.constexpr("{ .reg .b32 t; mov.b32 t, %s; min.%s $0, $1, t; mov.b32 t, %s; max.%s $0, $0, t; }")
CLAMP_BFLOAT = tl.constexpr(CLAMP.value % ("0x7F7F7F7F", "bf16x2", "0xFF7FFF7F", "bf16x2"))
CLAMP_HALF = tl.constexpr(CLAMP.value % ("0x7BFF7BFF", "f16x2", "0xFBFFFBFF", "f16x2"))


@triton.jit
def finite(x):
    """Numbers as they are, NaN and infinities as finite ones: a weight of 0 must erase a row, and 0 * NaN does not.

    Rows that hear such a key keep their NaN through the log-partition.
    """
    if INTERPRETED:
        return tl.where(tl.abs(x.to(tl.float32)) < float("inf"), x, tl.zeros_like(x))
    elif x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(CLAMP_BFLOAT, "=r,r", [x], dtype=tl.bfloat16, is_pure=False, pack=2)
    elif x.dtype == tl.float16:
        return tl.inline_asm_elementwise(CLAMP_HALF, "=r,r", [x], dtype=tl.float16, is_pure=False, pack=2)
    else:
        return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def _row_statistics(LOGZ, i, there):
    """(-log2 Z of rows i or 0 where they hear nothing, whether they hear anything)."""
    logz = tl.load(LOGZ + i, mask=there, other=float("-inf"))
    return -tl.where(logz == float("-inf"), 0.0, logz) * LOG2E, logz != float("-inf")


@triton.jit
def _queries_of_patch(
    Q, K, V, BIAS, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE, pr, pc, scale, n, m, offset,
    stride_qn, stride_kn, stride_vn, stride_on, stride_gn, stride_dqn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DLOGZ: tl.constexpr, NEED_DSCALE: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """dq, delta and the scale's gradient of the queries of one patch of one head."""
    a, b, i, there = cells_of_patch(pr, pc, n, offset, PREFIX, WIDTH, PH, PW, B)
    row_code = code(a, b, 0, MANHATTAN)
    q = load_listed(Q, i, there, stride_qn, D, DP)
    do = load_listed(DOUT, i, there, stride_gn, D, DP)
    o = load_listed(OUT, i, there, stride_on, D, DP)
    cleared, hears = _row_statistics(LOGZ, i, there)
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
        j, inside, halo_row, halo_column = candidates(c, pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW)
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
            bit = bits_of(c, a, b, PREFIX, RADIUS, PW)
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
def _bit_set(words, bit, WORDS: tl.constexpr):
    """Whether `bit` (rows, columns) is set in the words of its row."""
    word = words[0][:, None]
    for w in tl.static_range(1, WORDS):
        word = tl.where(bit >> 5 == w, words[w][:, None], word)
    return ((word >> (bit & 31)) & 1) != 0


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
    cleared, hears = _row_statistics(LOGZ, i, i < n)
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
    scale_value, n, m, heads, group, offset, units, patches, stored,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on, stride_gb, stride_gh, stride_gn,
    stride_dqb, stride_dqh, stride_dqn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, HAS_DLOGZ: tl.constexpr,
    NEED_DSCALE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
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
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    if LEADING > 0:
        if program < first:
            _query_of_prefix(
                Q, K, V, BIAS, OUT, LOGZ + rows, BITS, DOUT, DLOGZ + rows, DELTA + rows, DQ, DSCALE + rows, patch,
                scale, n, m, stride_qn, stride_kn, stride_vn, stride_on, stride_gn, stride_dqn, SELECT, D, DP, HAS_BIAS,
                HAS_DLOGZ, NEED_DSCALE, KEYS, WORDS,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _queries_of_patch(
                Q, K, V, BIAS, OUT, LOGZ + rows, BITS, DOUT, DLOGZ + rows, DELTA + rows, DQ, DSCALE + rows,
                patch // across, patch % across, scale, n, m, offset, stride_qn, stride_kn, stride_vn, stride_on,
                stride_gn, stride_dqn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS, HAS_DLOGZ,
                NEED_DSCALE, PH, PW, B, T, NT, WORDS,
            )  # fmt: skip


@triton.jit
def _keys_of_head(
    Q, K, V, BIAS, LOGZ, SAVED, DOUT, DELTA, DBIAS, a, b, j, there, k, v, dk, dv, pr, pc, scale, n, m, offset,
    stride_qn, stride_kn, stride_vn, stride_gn, SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    NEED_DBIAS: tl.constexpr,
    HIDE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """Sums dk and dv with the share of one query head, whose bias is done; pointers are those of that head."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    row_code = code(a, b, 0, MANHATTAN)
    bias = tl.zeros([B], tl.float32)
    valid = there
    if HAS_BIAS:
        bias = tl.load(BIAS + j, mask=there, other=float("-inf"))
        valid = there & (bias > float("-inf"))
    dbias = tl.zeros([B], tl.float32)
    for t in range(NT):
        c = t * T + tl.arange(0, T)
        if HIDE:
            # In a loop over heads geometry is cheaper computed for each than kept in registers.
            c = opaque(c)
        i, inside, halo_row, halo_column = candidates(c, pr, pc, n + offset, PREFIX, WIDTH, RADIUS, PH, PW)
        i = i - offset
        inside = inside & (i >= 0)
        q = finite(load_listed(Q, i, inside, stride_qn, D, DP))
        do = finite(load_listed(DOUT, i, inside, stride_gn, D, DP))
        cleared, _ = _row_statistics(LOGZ, i, inside)
        delta = tl.load(DELTA + i, mask=inside, other=0.0)
        s = products(k, q, K, j, there, stride_kn, Q, i, inside, stride_qn, D, DP) * scale
        if HAS_BIAS:
            s = s + bias[:, None]
        column_code = tl.where(inside, code(halo_row, halo_column, RADIUS, MANHATTAN), NOBODY)
        keep = heard(column_code[None, :], row_code[:, None], RADIUS)
        if SELECT:
            # The key lies (a + RADIUS - halo_row, b + RADIUS - halo_column) away from the query.
            last = (a + 2 * RADIUS) * SIDE + b + 2 * RADIUS + PREFIX
            bit = last[:, None] - (halo_row * SIDE + halo_column)[None, :]
            word = tl.load(SAVED + i, mask=inside, other=0)[None, :]
            for w in tl.static_range(1, WORDS):
                later = tl.load(SAVED + w * n.to(tl.int64) + i, mask=inside, other=0)[None, :]
                word = tl.where(bit >> 5 == w, later, word)
            keep = keep & (((word >> (bit & 31)) & 1) != 0)
        if PREFIX > 0:
            leading = ((c < PREFIX) & inside)[None, :] & there[:, None]
            if SELECT:
                place = WORDS * n.to(tl.int64) + i[None, :] * tl.cdiv(m, 32).to(tl.int64) + (j // 32)[:, None]
                own = tl.load(SAVED + place, mask=leading, other=0)
                leading = leading & (((own >> (j & 31)[:, None]) & 1) != 0)
            keep = tl.where((c < PREFIX)[None, :], leading, keep)
        keep = keep & valid[:, None]
        p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared[None, :])), 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        dp = products(v, do, V, j, there, stride_vn, DOUT, i, inside, stride_gn, D, DP)
        ds = tl.where(keep, p * (dp - delta[None, :]), 0.0)
        dk = tl.dot((ds * scale).to(q.dtype), q, dk, input_precision="ieee")
        if NEED_DBIAS:
            dbias += tl.sum(ds, 1)
    if NEED_DBIAS:
        tl.store(DBIAS + j, dbias, mask=there)
    return dk, dv


@triton.jit
def _keys_of_patch(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, pr, pc, scale_value, n, m, group, offset, stored,
    stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh, stride_gn, stride_dkn, stride_dvn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr,
    ONE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """dk, dv of the keys of one patch of one key head, and their bias in each of its query heads.

    Pointers are those of the first query head; tiles are (keys, queries).
    """
    a, b, j, there = cells_of_patch(pr, pc, m, pr * 0, PREFIX, WIDTH, PH, PW, B)
    k = load_listed(K, j, there, stride_kn, D, DP)
    v = load_listed(V, j, there, stride_vn, D, DP)
    dk = tl.zeros([B, DP], tl.float32)
    dv = tl.zeros([B, DP], tl.float32)
    if ONE:
        scale = load_scale(SCALE, scale_value, 0, 0, 0, 0, SCALE_TENSOR)
        dk, dv = _keys_of_head(
            Q, K, V, BIAS, LOGZ, BITS, DOUT, DELTA, DBIAS, a, b, j, there, k, v, dk, dv, pr, pc, scale, n, m, offset,
            stride_qn, stride_kn, stride_vn, stride_gn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS,
            NEED_DBIAS, False, PH, PW, B, T, NT, WORDS,
        )  # fmt: skip
    else:
        for g in range(group):
            scale = load_scale(SCALE, scale_value, 0, g, 0, stride_sh, SCALE_TENSOR)
            dk, dv = _keys_of_head(
                Q + g * stride_qh.to(tl.int64), K, V, BIAS + g * stride_bh.to(tl.int64), LOGZ + g * n.to(tl.int64),
                BITS + g * stored.to(tl.int64), DOUT + g * stride_gh.to(tl.int64), DELTA + g * n.to(tl.int64),
                DBIAS + g * m.to(tl.int64), a, b, j, there, k, v, dk, dv, pr, pc, scale, n, m, offset, stride_qn,
                stride_kn, stride_vn, stride_gn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS, NEED_DBIAS,
                True, PH, PW, B, T, NT, WORDS,
            )  # fmt: skip
    d = tl.arange(0, DP)
    mask = there[:, None] & (d < D)[None, :]
    columns = j.to(tl.int64)[:, None]
    tl.store(DK + columns * stride_dkn + d[None, :], dk.to(DK.dtype.element_ty), mask=mask)
    tl.store(DV + columns * stride_dvn + d[None, :], dv.to(DV.dtype.element_ty), mask=mask)


@triton.jit
def _key_of_prefix(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, j, scale_value, n, m, group, offset, stored,
    stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh, stride_gn, stride_dkn, stride_dvn,
    SELECT: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr, KEYS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """dk, dv and the bias of key j, which all queries hear."""
    d = tl.arange(0, DP)
    row = j.to(tl.int64)
    k = tl.load(K + row * stride_kn + d, mask=d < D, other=0.0).to(tl.float32)
    v = tl.load(V + row * stride_vn + d, mask=d < D, other=0.0).to(tl.float32)
    dk = tl.zeros([KEYS, DP], tl.float32)
    dv = tl.zeros([KEYS, DP], tl.float32)
    for g in range(group):
        scale = load_scale(SCALE, scale_value, 0, g, 0, stride_sh, SCALE_TENSOR)
        bias = tl.zeros([KEYS], tl.float32)
        if HAS_BIAS:
            bias += tl.load(BIAS + g * stride_bh.to(tl.int64) + j)
        dbias = tl.zeros([KEYS], tl.float32)
        SAVED = BITS + g * stored.to(tl.int64)
        for u in range(tl.cdiv(n, KEYS)):
            start = u * KEYS + j * 0
            c = tl.arange(0, KEYS)
            i = start + c
            q = load_rows(Q + g * stride_qh.to(tl.int64), start, c, n, stride_qn, D, DP, "").to(tl.float32)
            do = load_rows(DOUT + g * stride_gh.to(tl.int64), start, c, n, stride_gn, D, DP, "").to(tl.float32)
            cleared, _ = _row_statistics(LOGZ + g * n.to(tl.int64), i, i < n)
            delta = tl.load(DELTA + g * n.to(tl.int64) + i, mask=i < n, other=0.0)
            keep = (i < n) & (bias > float("-inf"))
            if SELECT:
                place = (j // 32) * n.to(tl.int64) + i
                own = WORDS * n.to(tl.int64) + i * tl.cdiv(m, 32).to(tl.int64) + j // 32
                word = tl.load(SAVED + tl.where(i + offset < PREFIX, own, place), mask=i < n, other=0)
                keep = keep & (((word >> (j & 31)) & 1) != 0)
            s = tl.sum(q * k[None, :], 1) * scale + bias
            p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared)), 0.0)
            ds = p * (tl.sum(do * v[None, :], 1) - delta)
            dv += tl.where(keep[:, None], p[:, None] * do, 0.0)
            dk += tl.where(keep[:, None], (ds * scale)[:, None] * q, 0.0)
            dbias += tl.where(keep, ds, 0.0)
        if NEED_DBIAS:
            tl.store(DBIAS + g * m.to(tl.int64) + j, tl.sum(dbias, 0))
    tl.store(DK + row * stride_dkn + d, tl.sum(dk, 0).to(DK.dtype.element_ty), mask=d < D)
    tl.store(DV + row * stride_dvn + d, tl.sum(dv, 0).to(DV.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=(*RUN_TIME, "units", "patches", "stored"))
def grid_keys_kernel(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS,
    scale_value, n, m, heads, group, offset, units, patches, stored,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_gb, stride_gh, stride_gn,
    stride_dkb, stride_dkh, stride_dkn, stride_dvb, stride_dvh, stride_dvn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr,
    ONE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr, LEADING: tl.constexpr, PATCHES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Programs of the first LEADING keys of every key head, then (if PATCHES) those of patches of keys."""
    program = tl.program_id(0)
    first = units * LEADING
    each = LEADING if program < first else patches
    place = program if program < first else program - first
    unit = place // each
    patch = place % each
    kv_heads = heads // group
    batch = (unit // kv_heads).to(tl.int64)
    kv_head = (unit % kv_heads).to(tl.int64)
    head = kv_head * group
    rows = batch * heads + head
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + kv_head * stride_kh
    V += batch * stride_vb + kv_head * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    SCALE += batch * stride_sb + head * stride_sh
    DOUT += batch * stride_gb + head * stride_gh
    DK += batch * stride_dkb + kv_head * stride_dkh
    DV += batch * stride_dvb + kv_head * stride_dvh
    LOGZ += rows * n
    DELTA += rows * n
    DBIAS += rows * m
    BITS += rows * stored
    if LEADING > 0:
        if program < first:
            _key_of_prefix(
                Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, patch, scale_value, n, m, group, offset,
                stored, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh, stride_gn,
                stride_dkn, stride_dvn, SELECT, PREFIX, D, DP, HAS_BIAS, SCALE_TENSOR, NEED_DBIAS, KEYS, WORDS,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _keys_of_patch(
                Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, patch // across, patch % across,
                scale_value, n, m, group, offset, stored, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh,
                stride_sh, stride_gh, stride_gn, stride_dkn, stride_dvn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D,
                DP, HAS_BIAS, SCALE_TENSOR, NEED_DBIAS, ONE, PH, PW, B, T, NT, WORDS,
            )  # fmt: skip


def backward_grid(
    hood: Neighbourhood,
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_partition: torch.Tensor,
    selected: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    query_offset: int = 0,
    grad_log_partition: torch.Tensor | None = None,
    need_key_bias: bool = True,
    need_scale: bool = True,
    chosen: Sizes | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """`backward` for what `launch_grid` computed; arguments and results as there."""
    batch, heads, n, d = q.shape
    keys, kv_heads = k.shape[-2], k.shape[1]
    q, k, v, grad_out, out = (rows_contiguous(x) for x in (q, k, v, grad_out, out))
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty((batch, heads, n), dtype=torch.float32, device=q.device)
    need_key_bias = need_key_bias and key_bias is not None
    dbias = delta.new_empty((batch, heads, keys)) if need_key_bias else None
    rows = torch.empty_like(delta) if need_scale else None
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    bias, *bias_strides = bias_arguments(key_bias, q, keys)
    dlog = grad_log_partition.to(torch.float32).contiguous() if grad_log_partition is not None else delta
    numbers = (scale_value, n, keys, heads, heads // kv_heads, query_offset)
    inputs = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides)
    outer = grad_out.stride()[:3]
    stored = selected.shape[-1] * selected.shape[-2]
    common = {name: hood.constants[name] for name in ("WIDTH", "RADIUS", "MANHATTAN", "PREFIX")}
    common |= {"D": d, "DP": padded(d), "HAS_BIAS": key_bias is not None, "SCALE_TENSOR": is_tensor}
    common["SELECT"] = hood.top_k > 0
    leading = min(max(hood.prefix - query_offset, 0), n)
    with on_device(q):
        for one in plan(hood, query_offset + n, leading, keys, d, q.dtype, True, chosen):
            grid_queries_kernel[(batch * heads * one.programs,)](
                q, k, v, bias, scale_tensor, out, log_partition, selected, grad_out, dlog, delta, dq,
                delta if rows is None else rows, *numbers, batch * heads, one.patches, stored, *inputs,
                *out.stride()[:3], *outer, *dq.stride()[:3], **common, **one.constants, **one.options,
                HAS_DLOGZ=grad_log_partition is not None, NEED_DSCALE=need_scale,
            )  # fmt: skip
        for one in plan(hood, keys, min(hood.prefix, keys), n, d, q.dtype, True, chosen):
            grid_keys_kernel[(batch * kv_heads * one.programs,)](
                q, k, v, bias, scale_tensor, log_partition, selected, grad_out, delta, dk, dv,
                delta if dbias is None else dbias, *numbers, batch * kv_heads, one.patches, stored, *inputs, *outer,
                *dk.stride()[:3], *dv.stride()[:3], **common, **one.constants, **one.options, NEED_DBIAS=need_key_bias,
                ONE=heads == kv_heads,
            )  # fmt: skip
    return dq, dk, dv, dbias, rows
