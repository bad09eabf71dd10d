"""Backward pass of neighbourhoods on grids: `grid_queries_kernel`, then `grid_keys_kernel`, which reads its deltas.

Formulas are those of `backward`; geometry and bits are those of `grid`. Prefix queries hear all keys and prefix keys
are heard by all queries: these have a program each, which walks over all of them. Every sum is taken by one program in
a fixed order.
"""

import torch

from .arguments import (
    bias_arguments,
    gradients_like,
    on_device,
    padded,
    rows_contiguous,
    scale_arguments,
    single,
    slopes_like,
)
from .grid_keys import grid_keys_kernel
from .grid_queries import grid_queries_kernel
from .grid_sizes import Sizes, launches_of
from .tiling import Tiling


def backward_grid(
    hood: Tiling,
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
    distance: bool = False,
    joint: bool = False,
    chosen: Sizes | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """`backward` for what `launch_grid` computed; arguments and results as there."""
    batch, heads, n, d = q.shape
    keys, kv_heads = k.shape[-2], k.shape[1]
    q, k, v, grad_out, out = (rows_contiguous(x) for x in (q, k, v, grad_out, out))
    dq, dk, dv, whole = gradients_like(q, k, joint)
    delta = torch.empty((batch, heads, n), dtype=torch.float32, device=q.device)
    need_key_bias = need_key_bias and key_bias is not None
    dbias = delta.new_empty((batch, heads, keys)) if need_key_bias else None
    slopes = slopes_like(delta, keys, distance) if need_scale else None
    sums, length = (delta, 0) if slopes is None else (slopes, slopes.shape[2])
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    bias, *bias_strides = bias_arguments(key_bias, q, keys)
    dlog = single(grad_log_partition).contiguous() if grad_log_partition is not None else delta
    numbers = (scale_value, n, keys, heads, heads // kv_heads, query_offset)
    inputs = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides)
    outer = grad_out.stride()[:3]
    stored = selected.shape[-1] * selected.shape[-2]
    common = {name: hood.constants[name] for name in ("WIDTH", "RADIUS", "MANHATTAN", "PREFIX")}
    common |= {"D": d, "DP": padded(d), "HAS_BIAS": key_bias is not None, "SCALE_TENSOR": is_tensor}
    common["SELECT"] = hood.top_k > 0
    leading = min(max(hood.prefix - query_offset, 0), n)
    with on_device(q):
        for one in launches_of(hood, query_offset + n, leading, keys, d, q.dtype, True, chosen):
            grid_queries_kernel[(batch * heads * one.programs,)](
                q, k, v, bias, scale_tensor, out, log_partition, selected, grad_out, dlog, delta, dq,
                sums, *numbers, batch * heads, one.patches, stored, length, *inputs,
                *out.stride()[:3], *outer, *dq.stride()[:3], **common, **one.constants, **one.options,
                HAS_DLOGZ=grad_log_partition is not None, NEED_DSCALE=need_scale,
            )  # fmt: skip
        for one in launches_of(hood, keys, min(hood.prefix, keys), n, d, q.dtype, True, chosen):
            grid_keys_kernel[(batch * kv_heads * one.programs,)](
                q, k, v, bias, scale_tensor, log_partition, selected, grad_out, delta, dk, dv,
                delta if dbias is None else dbias, sums, *numbers, batch * kv_heads, one.patches, stored, length,
                *inputs, *outer,
                *dk.stride()[:3], *dv.stride()[:3], **common, **one.constants, **one.options, NEED_DBIAS=need_key_bias,
                DISTANCE=distance, NEED_DSCALE=need_scale, ONE=heads == kv_heads,
            )  # fmt: skip
    return (dq, dk, dv, dbias, slopes) if whole is None else (whole, None, None, dbias, slopes)
