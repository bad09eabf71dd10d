"""The rare second pass of a gradient: rows and keys that a fast kernel marked, with care for what is not finite."""

import triton
import triton.language as tl

from .backward_tiles import (
    load_cleared,
    load_delta,
    load_marks,
    load_operand,
    of_distance,
    of_scale,
    poison,
    scale_of_distance,
    squares,
    store_rows,
)
from .backward_walks import walk_keys, walk_rows
from .primitives import RUN_TIME, load_rows, load_scale

# Rows whose marks one program reads.
SPAN = 1024


@triton.jit(do_not_specialize=(*RUN_TIME, "row_programs"))
def repair_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, DOUT, DLOGZ, DQ, DK, DV, DBIAS, DSCALE, ROW_FLAGS, KEY_FLAGS,
    scale_value, n, m, heads, group, offset, shift, first_block, row_programs,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_sb, stride_sh,
    stride_ob, stride_oh, stride_gb, stride_gh, stride_dqb, stride_dqh, stride_dkb, stride_dkh, slopes,
    stride_qn: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_on: tl.constexpr,
    stride_gn: tl.constexpr, stride_dqn: tl.constexpr, stride_dkn: tl.constexpr,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    HAS_DLOGZ: tl.constexpr, NEED_DBIAS: tl.constexpr, DISTANCE: tl.constexpr, NEED_DSCALE: tl.constexpr,
    FULL: tl.constexpr, WORDS: tl.constexpr,
    SPAN: tl.constexpr, OWN: tl.constexpr, MET: tl.constexpr,
):  # fmt: skip
    """The first `row_programs` programs look after SPAN queries each, the others after SPAN keys, OWN at a time."""
    r = tl.arange(0, OWN)
    if tl.program_id(0) < row_programs:
        spans = tl.cdiv(n, SPAN)
        unit = (tl.program_id(0) // spans).to(tl.int64)
        origin = (tl.program_id(0) % spans) * SPAN
        batch = unit // heads
        head = unit % heads
        place = origin + tl.arange(0, SPAN)
        ROW_FLAGS += unit * n
        if tl.max(tl.load(ROW_FLAGS + place, mask=place < n, other=0).to(tl.int32), 0) > 0:
            Q += batch * stride_qb + head * stride_qh
            DOUT += batch * stride_gb + head * stride_gh
            OUT += batch * stride_ob + head * stride_oh
            BITS += unit * n * WORDS
            scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
            for t in range(SPAN // OWN):
                start = origin + t * OWN
                i = start + r
                marked = tl.load(ROW_FLAGS + i, mask=i < n, other=0) != 0
                if tl.max(marked.to(tl.int32), 0) > 0:
                    q = load_operand(Q, start, r, n, stride_qn, D, DP, True)
                    do = load_operand(DOUT, start, r, n, stride_gn, D, DP, True)
                    cleared, hears = load_cleared(LOGZ + unit * n, i, n)
                    delta = load_delta(OUT, DOUT, DLOGZ + unit * n, start, i, n, hears, stride_on, stride_gn, D, DP, HAS_DLOGZ)  # fmt: skip  # noqa: E501
                    cleared += poison(DOUT, start, r, n, hears, stride_gn, D, DP)
                    dq = walk_keys(
                        q, do, cleared, delta, load_marks(BITS, i, n, SELECT),
                        K + batch * stride_kb + (head // group) * stride_kh,
                        V + batch * stride_vb + (head // group) * stride_vh,
                        BIAS + batch * stride_bb + head * stride_bh, BITS, start // OWN, scale, n, m, offset, stride_kn,
                        stride_vn, (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), SELECT, HAS_BIAS,
                        FULL, WORDS, D, DP, OWN, MET, 1, True,
                    )  # fmt: skip
                    rows = DQ + batch * stride_dqb + head * stride_dqh
                    store_rows(rows, dq * scale, start, r, marked, stride_dqn, D, DP)
                    if NEED_DSCALE:
                        tl.store(DSCALE + unit * slopes + i, of_scale(dq, q), mask=marked)
    else:
        kv_heads = heads // group
        spans = tl.cdiv(m - shift - first_block * OWN, SPAN)
        unit = ((tl.program_id(0) - row_programs) // spans).to(tl.int64)
        origin = first_block * OWN + (tl.program_id(0) - row_programs) % spans * SPAN
        batch = unit // kv_heads
        kv_head = unit % kv_heads
        place = origin + shift + tl.arange(0, SPAN)
        KEY_FLAGS += unit * m
        if tl.max(tl.load(KEY_FLAGS + place, mask=(place >= 0) & (place < m), other=0).to(tl.int32), 0) > 0:
            for t in range(SPAN // OWN):
                position = origin + t * OWN
                first = position + shift
                j = first + r
                marked = tl.load(KEY_FLAGS + j, mask=(j >= 0) & (j < m), other=0) != 0
                if tl.max(marked.to(tl.int32), 0) > 0:
                    k = load_operand(K + batch * stride_kb + kv_head * stride_kh, first, r, m, stride_kn, D, DP, True)
                    v = load_operand(V + batch * stride_vb + kv_head * stride_vh, first, r, m, stride_vn, D, DP, True)
                    dk = tl.zeros([OWN, DP], tl.float32)
                    dv = tl.zeros([OWN, DP], tl.float32)
                    for g in range(group):
                        head = kv_head * group + g
                        row = batch * heads + head
                        scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
                        dk, dv, dbias = walk_rows(
                            k, v, Q + batch * stride_qb + head * stride_qh, DOUT + batch * stride_gb + head * stride_gh,
                            OUT + batch * stride_ob + head * stride_oh, LOGZ + row * n, DLOGZ + row * n, LOGZ,
                            BITS + row * n * WORDS, BIAS + batch * stride_bb + head * stride_bh, position, shift, scale,
                            n, m, offset, stride_qn, stride_gn, stride_on, dk, dv,
                            (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST), SELECT, HAS_BIAS, HAS_DLOGZ,
                            NEED_DBIAS or DISTANCE, FULL, WORDS, D, DP, MET, OWN, 1, True,
                        )  # fmt: skip
                        if NEED_DBIAS:
                            tl.store(DBIAS + row * m + j, dbias, mask=marked)
                        if DISTANCE:
                            # Keys as given: one that is heard and holds NaN has NaN for a gradient.
                            given = load_rows(K + batch * stride_kb + kv_head * stride_kh, first, r, m, stride_kn, D, DP, "")  # fmt: skip  # noqa: E501
                            dk = of_distance(dk, given, dbias * scale)
                            if NEED_DSCALE:
                                tl.store(
                                    DSCALE + row * slopes + n + j, scale_of_distance(squares(given), dbias), mask=marked
                                )
                    columns = batch * stride_dkb + kv_head * stride_dkh
                    store_rows(DK + columns, dk, first, r, marked, stride_dkn, D, DP)
                    store_rows(DV + columns, dv, first, r, marked, stride_dkn, D, DP)
