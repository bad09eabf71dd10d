"""One-token decoding: a program answers one query head from a small cache, read once, scores in registers."""

import triton
import triton.language as tl

from .primitives import (
    LN2,
    LOG2E,
    RUN_TIME,
    float_of_ordinal,
    load_bias,
    load_rows,
    load_scale,
    midpoint,
    ordinal_of_float,
)


@triton.jit(do_not_specialize=RUN_TIME)
def decode_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ,
    scale_value, m, heads, group, first, last,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    SCALE_TENSOR: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Output (D,) and log-partition of one query; it hears the keys first .. last - 1. M is a power of two."""
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    d = tl.arange(0, DP)
    q = tl.load(Q + batch * stride_qb + head * stride_qh + d, mask=d < D, other=0.0).to(tl.float32)
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    j = tl.arange(0, M)
    s = tl.sum(load_rows(K, first * 0, j, m, stride_kn, D, DP, "").to(tl.float32) * q[None, :], 1) * scale
    bias = load_bias(BIAS + batch * stride_bb + head * stride_bh, first * 0, j, m, HAS_BIAS)
    if HAS_BIAS:
        s = s + bias
    heard = (j >= first) & (j < last) & (bias > float("-inf"))
    s = tl.where(heard, s, float("-inf"))
    keep = heard
    if TOP_K > 0:
        lo = ordinal_of_float(tl.min(tl.where(heard, s, float("inf")), 0))
        hi = ordinal_of_float(tl.max(s, 0)) + 1
        at_lo = tl.sum(heard.to(tl.int32), 0)
        at_hi = 0
        if at_lo > TOP_K:
            while (at_lo != TOP_K) & (hi - lo != 1):
                middle = midpoint(lo, hi)
                n = tl.sum((s >= float_of_ordinal(middle)).to(tl.int32), 0)
                if n >= TOP_K:
                    lo = middle
                    at_lo = n
                else:
                    hi = middle
                    at_hi = n
            mark = float_of_ordinal(lo)
            keep = s >= mark
            if not KEEP_TIES:
                if at_lo > TOP_K:
                    # Last tied key that still fits, by bisection on the index.
                    tied = s == mark
                    low = 0
                    high = M
                    while low < high:
                        half = (low + high) // 2
                        n = tl.sum((tied & (j <= half)).to(tl.int32), 0)
                        if n >= TOP_K - at_hi:
                            high = half
                        else:
                            low = half + 1
                    keep = (s > mark) | (tied & (j <= low))
    nan = tl.max((heard & (s != s)).to(tl.int32), 0) > 0
    top = tl.max(s, 0)
    base = tl.where(top == float("-inf"), 0.0, top)
    p = tl.where(keep, tl.exp2((s - base) * LOG2E), 0.0)
    weight = tl.sum(p, 0)
    weight = tl.where(nan, float("nan"), weight)
    v = load_rows(V, first * 0, tl.where(keep, j, -1), m, stride_vn, D, DP, "").to(tl.float32)
    out = tl.sum(p[:, None] * v, 0) / tl.where(weight == 0.0, 1.0, weight)
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    tl.store(OUT + tl.program_id(0).to(tl.int64) * D + d, out.to(OUT.dtype.element_ty), mask=d < D)
    tl.store(LOGZ + tl.program_id(0), logz)
