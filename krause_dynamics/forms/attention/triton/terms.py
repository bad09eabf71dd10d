"""Terms of a distance that depend on one token only, each token read once: norms and the key bias.

    -a/2 |q - k|^2 = a <q, k> - a/2 |k|^2 - a/2 |q|^2

The kernels see a <q, k> and the key bias -a/2 |k|^2 + log mass; the last term joins the log-partition afterwards.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .arguments import launch_options, on_device, padded, rows_contiguous, scale_arguments
from .primitives import load_scale


@triton.jit
def _rows(X, i, n, stride, D: tl.constexpr, DP: tl.constexpr):
    """Rows i of x in float32, 0 outside."""
    d = tl.arange(0, DP)
    place = X + i.to(tl.int64)[:, None] * stride + d[None, :]
    return tl.load(place, mask=(i < n)[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)


@triton.jit
def squared_norms_kernel(
    X, OUT, n, heads, stride_b, stride_h, stride_n, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr
):
    """Rows of one head: out_i = sum_c x_ic^2, summed in float32."""
    blocks = tl.cdiv(n, B)
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * B + tl.arange(0, B)
    x = _rows(X + unit // heads * stride_b + unit % heads * stride_h, i, n, stride_n, D, DP)
    tl.store(OUT + unit * n + i, tl.sum(x * x, 1), mask=i < n)


@triton.jit
def key_bias_kernel(
    K, MASS, SCALE, OUT, scale_value, m, heads, group,
    stride_kb, stride_kh, stride_kn, stride_mb, stride_mh, stride_sb, stride_sh,
    HAS_MASS: tl.constexpr, SCALE_TENSOR: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Keys of one key head: out_hj = -a_h/2 |k_j|^2 + mass_hj for each of its query heads; -inf where the mass is."""
    blocks = tl.cdiv(m, B)
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    j = (tl.program_id(0) % blocks) * B + tl.arange(0, B)
    batch = unit // (heads // group)
    kv_head = unit % (heads // group)
    k = _rows(K + batch * stride_kb + kv_head * stride_kh, j, m, stride_kn, D, DP)
    squared = tl.sum(k * k, 1)
    for g in range(group):
        head = kv_head * group + g
        bias = (-0.5 * load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)) * squared
        if HAS_MASS:
            mass = tl.load(MASS + batch * stride_mb + head * stride_mh + j, mask=j < m, other=0.0)
            bias = tl.where(mass == float("-inf"), mass, bias + mass)  # an absent key may hold NaN
        tl.store(OUT + (batch * heads + head) * m + j, bias, mask=j < m)


@triton.jit
def centre_kernel(
    K, MASS, OUT, m, sampled, heads, group, stride_kb, stride_kh, stride_kn, stride_mb, stride_mh,
    HAS_MASS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """A point near the keys of one key head: the mean of `sampled` of them, evenly spread, present and finite."""
    unit = tl.program_id(0).to(tl.int64)
    batch = unit // (heads // group)
    kv_head = unit % (heads // group)
    s = tl.arange(0, B)
    j = tl.where(s < sampled, (s.to(tl.int64) * m) // sampled, m)
    k = _rows(K + batch * stride_kb + kv_head * stride_kh, j, m, stride_kn, D, DP)
    there = (tl.sum(tl.where(tl.abs(k) < float("inf"), 0, 1), 1) == 0) & (s < sampled)
    if HAS_MASS:
        mass = tl.load(MASS + batch * stride_mb + kv_head * group * stride_mh + j, mask=s < sampled, other=0.0)
        there = there & (mass > float("-inf"))
    number = tl.maximum(tl.sum(there.to(tl.float32), 0), 1.0)
    mean = tl.sum(tl.where(there[:, None], k, 0.0), 0) / number
    d = tl.arange(0, DP)
    apart = tl.where(there[:, None] & (d < D)[None, :], k - mean[None, :], 0.0)
    spread = tl.sqrt(tl.sum(tl.sum(apart * apart, 1), 0) / (number * D))
    # A multiple of a power of two as large as the spread: subtracting it leaves small integers integers, ties ties.
    quantum = tl.exp2(tl.ceil(tl.log2(tl.maximum(spread, 1e-30))))
    tl.store(OUT + unit * D + d, tl.floor(mean / quantum + 0.5) * quantum, mask=d < D)


def _block(d: int) -> int:
    """Rows of a program: 64 numbers a thread at most."""
    return min(64, 8192 // padded(d))


def _launch(kernel: Any, units: int, rows: int, d: int, *arguments: Any, **constants: Any) -> None:
    block = _block(d)
    constants |= {"D": d, "DP": padded(d), "B": block}
    with on_device(arguments[0]):
        kernel[(units * -(-rows // block),)](*arguments, **constants, **launch_options(4))


def squared_norms(x: torch.Tensor) -> torch.Tensor:
    """(b, h, n, d) of any float type -> (b, h, n) float32."""
    x = rows_contiguous(x)
    batch, heads, n, d = x.shape
    out = torch.empty(batch, heads, n, dtype=torch.float32, device=x.device)
    if out.numel():
        _launch(squared_norms_kernel, batch * heads, n, d, x, out, n, heads, *x.stride()[:3])
    return out


def key_bias(k: torch.Tensor, scale: float | torch.Tensor, mass: torch.Tensor | None, heads: int) -> torch.Tensor:
    """``-scale |k|^2 / 2 + mass`` in float32, from k as rounded.

    Args:
        k: (b, h_kv, m, d).
        scale: A number, or (b, h) float32.
        mass: (b, h, m) float32 or None; -inf takes a key out, whatever it holds.
        heads: h, a multiple of h_kv.

    Returns:
        (b, h, m) float32.
    """
    k = rows_contiguous(k)
    batch, kv_heads, m, d = k.shape
    out = torch.empty(batch, heads, m, dtype=torch.float32, device=k.device)
    if out.numel():
        mass = mass if mass is None else rows_contiguous(mass)
        given = scale_arguments(scale, out)
        _launch(
            key_bias_kernel, batch * kv_heads, m, d, k, k if mass is None else mass, given[0], out, given[1], m, heads,
            heads // kv_heads, *k.stride()[:3], *((0, 0) if mass is None else mass.stride()[:2]), *given[2:4],
            HAS_MASS=mass is not None, SCALE_TENSOR=given[4],
        )  # fmt: skip
    return out


def centre(k: torch.Tensor, mass: torch.Tensor | None, heads: int) -> torch.Tensor:
    """(b, h_kv, 1, d): a point near the keys of each head that are there and finite; float32 k.

    Any point there does: distances do not see it, rounding does.
    """
    k = rows_contiguous(k)
    batch, kv_heads, m, d = k.shape
    out = torch.zeros(batch, kv_heads, 1, d, dtype=k.dtype, device=k.device)
    if m:
        mass = mass if mass is None else rows_contiguous(mass)
        # One program a head, whatever the number of rows that is asked of it.
        _launch(
            centre_kernel, batch * kv_heads, 1, d, k, k if mass is None else mass, out, m, min(m, _block(d)), heads,
            heads // kv_heads, *k.stride()[:3], *((0, 0) if mass is None else mass.stride()[:2]),
            HAS_MASS=mass is not None,
        )  # fmt: skip
    return out
