"""Squared norms of tokens in float32, read once: the part of a distance that depends on one token only."""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

ROWS = 64


@triton.jit
def squared_norms_kernel(
    X, OUT, n, heads, stride_b, stride_h, stride_n, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr
):
    """Rows i of one head: out_i = sum_c x_ic^2, summed in float32."""
    blocks = tl.cdiv(n, B)
    pair = tl.program_id(0) // blocks
    row = (tl.program_id(0) % blocks) * B + tl.arange(0, B)
    column = tl.arange(0, DP)
    base = (pair // heads).to(tl.int64) * stride_b + (pair % heads).to(tl.int64) * stride_h
    place = base + row[:, None].to(tl.int64) * stride_n + column[None, :]
    x = tl.load(X + place, mask=(row < n)[:, None] & (column < D)[None, :], other=0.0).to(tl.float32)
    tl.store(OUT + pair.to(tl.int64) * n + row, tl.sum(x * x, 1), mask=row < n)


def squared_norms(x: torch.Tensor) -> torch.Tensor:
    """(b, h, n, d) of any float type -> (b, h, n) float32."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    batch, heads, n, d = x.shape
    out = torch.empty(batch, heads, n, dtype=torch.float32, device=x.device)
    if out.numel():
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # the interpreter's tensors live on the CPU
            squared_norms_kernel[(batch * heads * triton.cdiv(n, ROWS),)](
                x, out, n, heads, *x.stride()[:3], D=d, DP=max(16, triton.next_power_of_2(d)), B=ROWS, num_warps=4
            )
    return out
