"""Backward kernel of grids for dk, dv and the bias: patches of keys with the queries of their halo.

As the neighbourhood is symmetric, the queries that may hear a patch of keys are its halo and the prefix queries, in the
order of `candidates`. Prefix keys meet all queries.
"""

import triton
import triton.language as tl

from .backward_tiles import of_distance, scale_of_distance, squares
from .grid_geometry import (
    NOBODY,
    candidates,
    cells_of_patch,
    code,
    finite,
    heard,
    load_listed,
    products,
    row_statistics,
)
from .primitives import LOG2E, RUN_TIME, load_rows, load_scale, opaque


@triton.jit
def _keys_of_head(
    Q, K, V, BIAS, LOGZ, SAVED, DOUT, DELTA, DBIAS, DSCALE, a, b, j, there, k, v, dk, dv, pr, pc, scale, n, m, offset,
    stride_qn, stride_kn, stride_vn, stride_gn, SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    NEED_DBIAS: tl.constexpr, DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr,
    HIDE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
    NT: tl.constexpr,
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
        i, inside, halo_row, halo_column = candidates(c, pr, pc, n + offset, PREFIX, WIDTH, RADIUS, PH, PW, HW)
        i = i - offset
        inside = inside & (i >= 0)
        q = finite(load_listed(Q, i, inside, stride_qn, D, DP))
        do = finite(load_listed(DOUT, i, inside, stride_gn, D, DP))
        cleared, _ = row_statistics(LOGZ, i, inside)
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
        if NEED_DBIAS or DISTANCE:
            dbias += tl.sum(ds, 1)
    if NEED_DBIAS:
        tl.store(DBIAS + j, dbias, mask=there)
    if DISTANCE:
        dk = of_distance(dk, k, dbias * scale)
        if NEED_DSCALE:
            tl.store(DSCALE + n + j, scale_of_distance(squares(k), dbias), mask=there)
    return dk, dv


@triton.jit
def _keys_of_patch(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE, pr, pc, scale_value, n, m, group, offset,
    stored, slopes, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh, stride_gn, stride_dkn,
    stride_dvn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr,
    DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr, ONE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
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
            Q, K, V, BIAS, LOGZ, BITS, DOUT, DELTA, DBIAS, DSCALE, a, b, j, there, k, v, dk, dv, pr, pc, scale, n, m,
            offset, stride_qn, stride_kn, stride_vn, stride_gn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP,
            HAS_BIAS, NEED_DBIAS, DISTANCE, NEED_DSCALE, False, PH, PW, HW, B, T, NT, WORDS,
        )  # fmt: skip
    else:
        for g in range(group):
            scale = load_scale(SCALE, scale_value, 0, g, 0, stride_sh, SCALE_TENSOR)
            dk, dv = _keys_of_head(
                Q + g * stride_qh.to(tl.int64), K, V, BIAS + g * stride_bh.to(tl.int64), LOGZ + g * n.to(tl.int64),
                BITS + g * stored.to(tl.int64), DOUT + g * stride_gh.to(tl.int64), DELTA + g * n.to(tl.int64),
                DBIAS + g * m.to(tl.int64), DSCALE + g * slopes.to(tl.int64), a, b, j, there, k, v, dk, dv, pr, pc,
                scale, n, m, offset, stride_qn, stride_kn, stride_vn, stride_gn, SELECT, WIDTH, RADIUS, MANHATTAN,
                PREFIX, D, DP, HAS_BIAS, NEED_DBIAS, DISTANCE, NEED_DSCALE, True, PH, PW, HW, B, T, NT, WORDS,
            )  # fmt: skip
    d = tl.arange(0, DP)
    mask = there[:, None] & (d < D)[None, :]
    columns = j.to(tl.int64)[:, None]
    tl.store(DK + columns * stride_dkn + d[None, :], dk.to(DK.dtype.element_ty), mask=mask)
    tl.store(DV + columns * stride_dvn + d[None, :], dv.to(DV.dtype.element_ty), mask=mask)


@triton.jit
def _key_of_prefix(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE, j, scale_value, n, m, group, offset, stored,
    slopes, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh, stride_gn, stride_dkn,
    stride_dvn,
    SELECT: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr, DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr,
    KEYS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """dk, dv and the bias of key j, which all queries hear."""
    d = tl.arange(0, DP)
    row = j.to(tl.int64)
    k = tl.load(K + row * stride_kn + d, mask=d < D, other=0.0).to(tl.float32)
    v = tl.load(V + row * stride_vn + d, mask=d < D, other=0.0).to(tl.float32)
    dk = tl.zeros([KEYS, DP], tl.float32)
    dv = tl.zeros([KEYS, DP], tl.float32)
    change = tl.zeros([DP], tl.float32)
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
            cleared, _ = row_statistics(LOGZ + g * n.to(tl.int64), i, i < n)
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
        slope = tl.sum(dbias, 0)
        if NEED_DBIAS:
            tl.store(DBIAS + g * m.to(tl.int64) + j, slope)
        if DISTANCE:
            # As `of_distance`, for one key.
            change += tl.where(slope == 0.0, 0.0, slope * scale * k)
            if NEED_DSCALE:
                part = tl.where(slope == 0.0, 0.0, -0.5 * slope * tl.sum(k * k, 0))
                tl.store(DSCALE + g * slopes.to(tl.int64) + n + j, part)
    tl.store(DK + row * stride_dkn + d, (tl.sum(dk, 0) - change).to(DK.dtype.element_ty), mask=d < D)
    tl.store(DV + row * stride_dvn + d, tl.sum(dv, 0).to(DV.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=(*RUN_TIME, "units", "patches", "stored"))
def grid_keys_kernel(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE,
    scale_value, n, m, heads, group, offset, units, patches, stored, slopes,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_gb, stride_gh, stride_gn,
    stride_dkb, stride_dkh, stride_dkn, stride_dvb, stride_dvh, stride_dvn,
    SELECT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr,
    DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr, ONE: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
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
    DSCALE += rows * slopes
    BITS += rows * stored
    if LEADING > 0:
        if program < first:
            _key_of_prefix(
                Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE, patch, scale_value, n, m, group,
                offset, stored, slopes, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh, stride_sh, stride_gh,
                stride_gn,
                stride_dkn, stride_dvn, SELECT, PREFIX, D, DP, HAS_BIAS, SCALE_TENSOR, NEED_DBIAS, DISTANCE,
                NEED_DSCALE, KEYS, WORDS,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _keys_of_patch(
                Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS, DSCALE, patch // across, patch % across,
                scale_value, n, m, group, offset, stored, slopes, stride_qh, stride_qn, stride_kn, stride_vn, stride_bh,
                stride_sh, stride_gh, stride_gn, stride_dkn, stride_dvn, SELECT, WIDTH, RADIUS, MANHATTAN, PREFIX, D,
                DP, HAS_BIAS, SCALE_TENSOR, NEED_DBIAS, DISTANCE, NEED_DSCALE, ONE, PH, PW, HW, B, T, NT, WORDS,
            )  # fmt: skip
