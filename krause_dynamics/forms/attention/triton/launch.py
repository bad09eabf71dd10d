"""Border of the Triton kernels: choice of kernel and tile sizes, allocation, launch. Plain tensors in and out.

Query i (at position i + query_offset) hears key j when j is within its reach, a window or a grid neighbourhood, or when
one of the two is among the first `prefix` tokens, and key_bias[..., j] > -inf; of these the `top_k` best by

    s_ij = scale * <q_i, k_j> + key_bias_j            (float32: product, scale and sum rounded in this order)

are selected, the earlier key winning a tie, or all that tie being kept. Then

    log Z_i = log sum_j exp s_ij,     out_i = sum_j exp(s_ij - log Z_i) v_j,

and out = 0, log Z = -inf in a row that hears no key.

Who serves: `grid_kernel` neighbourhoods on grids of a radius up to 4 (saves a bit for each cell around);
`forward_kernel` windows to 512 keys and rows of at most 512 keys in all, random ones too, which it holds in registers
(saves the set as bit words); `streaming_kernel` any neighbourhood (saves the k-th score and the cut among its ties);
`softmax_kernel` any without top-k (saves nothing, and multiplies and adds in one rounding).
"""

import math
from typing import Any

import torch

from krause_dynamics.interaction.reach import Reach

from .arguments import bias_arguments, on_device, padded, rows_contiguous, scale_arguments, supports, token_major
from .backward import backward as backward_of_bands
from .decode import LARGEST_CACHE, decode
from .forward_launch import Tiles, launch_registers
from .grid import launch_grid
from .grid_backward import backward_grid
from .ring import ring_refusal, ring_step
from .softmax import launch_softmax
from .streaming import launch_streaming
from .tiling import selected_mask, selected_shape, tiling

__all__ = [
    "LARGEST_CACHE",
    "Tiles",
    "backward",
    "decode",
    "forward",
    "ring_refusal",
    "ring_step",
    "selected_mask",
    "selected_shape",
    "supports",
]


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    reach: Reach,
    prefix: int = 0,
    query_offset: int = 0,
    listed: torch.Tensor | None = None,
    tiles: Tiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Selected softmax of scale * <q, k> + key_bias applied to v.

    Args:
        q: (batch, heads, n, d), d <= 256, any strides.
        k: (batch, kv_heads, m, d); kv_heads divides heads, consecutive query heads share one.
        v: As k.
        scale: Number, or tensor that broadcasts to (batch, heads); multiplies in float32 after the product.
        key_bias: (batch, heads, m) or None; -inf marks a key that nobody hears (its k and v may hold anything).
        reach: Who is heard: a window (of the past, where it has first tokens) or a grid, and a rank. Token
            prefix + r * width + c of a grid lies at row r, column c.
        prefix: First tokens, which hear all and are heard by all, beside a window; a grid names its own.
        query_offset: Position of query 0 among the keys.
        listed: Bits (words, n) of the keys that each row hears, int32 as `listed.bits` gives them, where the reach has
            random keys.
        tiles: Tile sizes of the register kernel instead of the tabulated ones; for measurements.

    Returns:
        out (batch, heads, n, d) in the dtype of q, laid out as (batch, n, heads, d), log_partition (batch, heads, n)
        float32, and the selected set for `backward` (int32, `selected_shape`).
    """
    batch, heads, n, d = q.shape
    keys = k.shape[-2]
    q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    hood = tiling(reach, keys, prefix)
    registers, full = hood.registers(keys)
    shape = selected_shape(q.shape, k.shape, reach=reach, prefix=prefix)
    out = token_major(q.shape, q)
    log_partition = torch.empty((batch, heads, n), dtype=torch.float32, device=q.device)
    selected = torch.empty(shape, dtype=torch.int32, device=q.device)
    if out.numel() == 0 or keys == 0:
        return out.zero_(), log_partition.fill_(-math.inf), selected.zero_()
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    bias, *bias_strides = bias_arguments(key_bias, q, keys)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides, *out.stride()[:3])
    common = {
        "TOP_K": hood.top_k,
        "KEEP_TIES": hood.keep_ties,
        "D": d,
        "DP": padded(d),
        "HAS_BIAS": key_bias is not None,
        "SCALE_TENSOR": is_tensor,
        **hood.constants,
    }
    arrays = (q, k, v, bias, scale_tensor, out, log_partition, selected)
    numbers = (scale_value, n, keys, heads, heads // k.shape[1], query_offset)
    with on_device(q):
        if hood.patched:
            launch_grid(hood, arrays, numbers, strides, common)
        elif registers:
            launch_registers(hood, full, keys, shape[2], tiles, arrays, numbers, strides, common, listed)
        elif hood.top_k == 0:
            launch_softmax(hood, arrays, numbers, strides, common)
        else:
            launch_streaming(hood, arrays, numbers, strides, common)
    return out, log_partition, selected


def backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_partition: torch.Tensor,
    selected: torch.Tensor,
    *,
    reach: Reach,
    prefix: int = 0,
    **rest: Any,
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of `forward` for the same arguments, on the set that it selected.

    Beside the arguments of `forward` (`rest`: scale, key_bias, query_offset): grad_log_partition, the gradient of the
    log-partition or None; need_key_bias and need_scale, whether these gradients are asked for (default true); distance,
    whether the key bias holds -scale |k|^2 / 2, through which keys and scale have a gradient too (default false);
    joint, whether dq, dk and dv are asked for as parts of one tensor (n = m; default false).

    Returns:
        dq, dk, dv in the dtypes of q, k, v, laid out as (batch, tokens, heads, d), or, where `joint`, the tensor
        (batch, n, heads + 2 kv_heads, d) of `split_heads` and twice None; dkey_bias (batch, heads, m) float32 or None;
        and, where `need_scale`, the parts of the scale's gradient, (batch, heads, n), or (batch, heads, n + m) of a
        distance, float32: the gradient of a scale per head is their sum over tokens (and batch).
    """
    tensors = (grad_out, q, k, v, out, log_partition, selected)
    hood = tiling(reach, k.shape[-2], prefix)
    if hood.patched and q.numel() and k.numel():
        return backward_grid(hood, *tensors, **rest)
    return backward_of_bands(hood, *tensors, **rest)
