"""One-token decoding: a program answers one query head from a small cache, read once, scores in registers."""

import torch
import triton
import triton.language as tl

from .arguments import bias_arguments, launch_options, on_device, padded, rows_contiguous, scale_arguments
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

# Numbers of a cache that one program reads at most.
LARGEST_CACHE = 65536


@triton.jit
def best_of(s, heard, order, top_k, KEEP_TIES: tl.constexpr, M: tl.constexpr):
    """Which of the M scores of one query stay: the top_k best of those heard, the least in order winning a tie."""
    keep = heard
    lo = ordinal_of_float(tl.min(tl.where(heard, s, float("inf")), 0))
    hi = ordinal_of_float(tl.max(s, 0)) + 1
    at_lo = tl.sum(heard.to(tl.int32), 0)
    at_hi = 0
    if at_lo > top_k:
        while (at_lo != top_k) & (hi - lo != 1):
            middle = midpoint(lo, hi)
            n = tl.sum((s >= float_of_ordinal(middle)).to(tl.int32), 0)
            if n >= top_k:
                lo = middle
                at_lo = n
            else:
                hi = middle
                at_hi = n
        mark = float_of_ordinal(lo)
        keep = s >= mark
        if not KEEP_TIES:
            if at_lo > top_k:
                # Last tied key that still fits, by bisection on the order.
                tied = s == mark
                low = 0
                high = M
                while low < high:
                    half = (low + high) // 2
                    n = tl.sum((tied & (order <= half)).to(tl.int32), 0)
                    if n >= top_k - at_hi:
                        high = half
                    else:
                        low = half + 1
                keep = (s > mark) | (tied & (order <= low))
    return keep


@triton.jit
def weighed(s, keep, heard):
    """Weights of scores up to a factor, their sum and the log-partition; NaN where a score that is heard is."""
    nan = tl.max((heard & (s != s)).to(tl.int32), 0) > 0
    top = tl.max(s, 0)
    base = tl.where(top == float("-inf"), 0.0, top)
    p = tl.where(keep, tl.exp2((s - base) * LOG2E), 0.0)
    weight = tl.sum(p, 0)
    weight = tl.where(nan, float("nan"), weight)
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    return p, weight, logz


@triton.jit(do_not_specialize=RUN_TIME)
def decode_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ,
    scale_value, m, heads, group,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    SCALE_TENSOR: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Output (D,) and log-partition of one query that hears m keys. M is a power of two."""
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    d = tl.arange(0, DP)
    q = tl.load(Q + batch * stride_qb + head * stride_qh + d, mask=d < D, other=0.0).to(tl.float32)
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    j = tl.arange(0, M)
    start = m * 0
    s = tl.sum(load_rows(K, start, j, m, stride_kn, D, DP, "").to(tl.float32) * q[None, :], 1) * scale
    bias = load_bias(BIAS + batch * stride_bb + head * stride_bh, start, j, m, HAS_BIAS)
    if HAS_BIAS:
        s = s + bias
    heard = bias > float("-inf")
    s = tl.where(heard, s, float("-inf"))
    keep = heard
    if TOP_K > 0:
        keep = best_of(s, heard, j, TOP_K, KEEP_TIES, M)
    p, weight, logz = weighed(s, keep, heard)
    v = load_rows(V, start, tl.where(keep, j, -1), m, stride_vn, D, DP, "").to(tl.float32)
    out = tl.sum(p[:, None] * v, 0) / tl.where(weight == 0.0, 1.0, weight)
    tl.store(OUT + tl.program_id(0).to(tl.int64) * D + d, out.to(OUT.dtype.element_ty), mask=d < D)
    tl.store(LOGZ + tl.program_id(0), logz)


def decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    first: int = 0,
    last: int | None = None,
    top_k: int = 0,
    keep_ties: bool = False,
    out: torch.Tensor | None = None,
    log_partition: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One query a head, q (batch, heads, 1, d), against a cache, k and v (batch, kv_heads, m, d).

    Hears the keys first .. last - 1 (all by default; a ring buffer marks unused slots by key_bias = -inf); no others
    are read. Their number times d, both rounded up to powers of 2, may reach 65 536. Nothing is saved for a backward
    pass.
    `out` and `log_partition` may be given, so that a captured graph allocates nothing.

    Returns:
        out (batch, heads, 1, d) and log_partition (batch, heads, 1).

    Raises:
        ValueError: more keys than one program reads.
    """
    batch, heads, queries, d = q.shape
    last = k.shape[-2] if last is None else last
    if last - first < k.shape[-2]:
        k, v = k[:, :, first:last], v[:, :, first:last]
        key_bias = None if key_bias is None else key_bias[..., first:last]
    keys = k.shape[-2]
    width = max(16, triton.next_power_of_2(keys))
    if queries != 1 or width * padded(d) > LARGEST_CACHE:
        raise ValueError(
            f"decode expects one query and at most {LARGEST_CACHE // padded(d)} keys, "
            f"got {queries} and {keys}; use forward"
        )
    q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    out = torch.empty((batch, heads, 1, d), dtype=q.dtype, device=q.device) if out is None else out
    if log_partition is None:
        log_partition = torch.empty((batch, heads, 1), dtype=torch.float32, device=q.device)
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    bias, *bias_strides = bias_arguments(key_bias, q, keys)
    warps = 4 * max(1, min(4, width * padded(d) // 8192))
    with on_device(q):
        decode_kernel[(batch * heads,)](
            q, k, v, bias, scale_tensor, out, log_partition,
            scale_value, keys, heads, heads // k.shape[1],
            *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides,
            TOP_K=0 if top_k >= keys else top_k, KEEP_TIES=keep_ties, D=d, DP=padded(d),
            HAS_BIAS=key_bias is not None, SCALE_TENSOR=is_tensor, M=width,
            **launch_options(8 if warps == 12 else warps),
        )  # fmt: skip
    return out, log_partition
