"""One-token decoding from a ring of keys: a program answers one query head and writes the new key in its place.

A slot is written once, when its token comes, and read where it lies: W keys and as many values as are kept a token and
head, nothing else. Ties go to the earlier position, whatever slots the ring has turned to.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from krause_dynamics.forms.attention.slots import Ring
from krause_dynamics.interaction.reach import Reach

from .arguments import launch_options, on_device, padded, rows_contiguous, scale_arguments
from .decode import LARGEST_CACHE, best_of, weighed
from .primitives import RUN_TIME, load_scale


@triton.jit
def ring_places(seen, j, FIRST: tl.constexpr, WINDOW: tl.constexpr):
    """Slot of the new token, order of the slots j by their tokens' positions, and which of them hold one by now."""
    turns = tl.maximum(seen - FIRST, -1)  # -1: the ring is empty, no age is as low
    newest = (turns + WINDOW) % WINDOW
    slot = tl.where(turns < 0, seen, FIRST + newest)
    age = (newest - (j - FIRST) + WINDOW) % WINDOW
    order = tl.where(j < FIRST, j, FIRST + WINDOW - 1 - age)
    there = (j >= FIRST) & (j < FIRST + WINDOW) & (age <= turns)
    return slot, order, there | ((j < FIRST) & (j <= seen))


@triton.jit
def load_slots(new, fresh, kept, there, D: tl.constexpr, DP: tl.constexpr, ALIGNMENT: tl.constexpr):
    """Rows (M, DP) at the pointers kept (M,), or fresh where new, as float32; zero where nothing is."""
    d = tl.arange(0, DP)
    # The compiler does not see that both are aligned, and would load number by number.
    rows = tl.multiple_of(tl.where(new, fresh, kept), ALIGNMENT)
    mask = there[:, None]
    if D != DP:
        mask = mask & (d < D)[None, :]
    return tl.load(rows[:, None] + d[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=RUN_TIME)
def ring_kernel(
    Q, KNEW, VNEW, VALIDNEW, K, V, VALID, SEEN, SCALE, NORM, OUT, LOGZ,
    scale_value, heads, group,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_nb,
    stride_sb, stride_sh, stride_cb, stride_ch,
    FIRST: tl.constexpr, WINDOW: tl.constexpr, TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr,
    DISTANCE: tl.constexpr, HAS_NORM: tl.constexpr, HAS_VALID: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, M: tl.constexpr, ALIGNMENT: tl.constexpr,
):  # fmt: skip
    """Output (D,) and log-partition of one head of the new token; M is a power of two, at least the number of slots."""
    SLOTS: tl.constexpr = FIRST + WINDOW
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    kv_head = head // group
    d = tl.arange(0, DP)
    j = tl.arange(0, M)
    seen = tl.load(SEEN).to(tl.int32)
    slot, order, there = ring_places(seen, j, FIRST, WINDOW)
    new = j == slot
    # The new row is read from where it was projected, so that no program waits for another to write it.
    KNEW += batch * stride_kb + kv_head * stride_kh
    VNEW += batch * stride_vb + kv_head * stride_vh
    block = (batch * (heads // group) + kv_head) * SLOTS * D
    k = load_slots(new, KNEW, K + block + j * D, there, D, DP, ALIGNMENT)
    q = tl.load(Q + batch * stride_qb + head * stride_qh + d, mask=d < D, other=0.0).to(tl.float32)
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    if DISTANCE:
        gap = q[None, :] - k
        s = tl.sum(gap * gap, 1) * (-0.5 * scale)
    else:
        s = tl.sum(q[None, :] * k, 1) * scale
        if HAS_NORM:
            s = s - tl.load(NORM + batch * stride_cb + head * stride_ch) * tl.sum(k * k, 1)
    valid_new = 1
    if HAS_VALID:
        valid_new = tl.load(VALIDNEW + batch * stride_nb).to(tl.int32)
    valid = tl.load(VALID + batch * SLOTS + j, mask=there & (j != slot), other=0).to(tl.int32)
    heard = there & (tl.where(new, valid_new, valid) > 0)
    s = tl.where(heard, s, float("-inf"))
    keep = heard
    if TOP_K > 0:
        keep = best_of(s, heard, order, TOP_K, KEEP_TIES, M)
    p, weight, logz = weighed(s, keep, heard)
    v = load_slots(new, VNEW, V + block + j * D, keep, D, DP, ALIGNMENT)
    out = tl.sum(p[:, None] * v, 0) / tl.where(weight == 0.0, 1.0, weight)
    tl.store(OUT + tl.program_id(0).to(tl.int64) * D + d, out.to(OUT.dtype.element_ty), mask=d < D)
    tl.store(LOGZ + tl.program_id(0), logz)
    if head % group == 0:
        tl.store(K + block + slot * D + d, tl.load(KNEW + d, mask=d < D), mask=d < D)
        tl.store(V + block + slot * D + d, tl.load(VNEW + d, mask=d < D), mask=d < D)
    if head == 0:
        tl.store(VALID + batch * SLOTS + slot, valid_new)


def ring_refusal(k: torch.Tensor, values_dim: int) -> str | None:
    """None if one program can hold the slots (batch, kv_heads, slots, d) of a head, else the reason why not."""
    d = k.shape[3]
    if d != values_dim:
        return f"the kernels need values of the keys' dimension, got {values_dim} and {d}"
    if triton.next_power_of_2(k.shape[2]) * padded(d) > LARGEST_CACHE:
        return f"one program reads at most {LARGEST_CACHE // padded(d)} keys of dimension {d}, got {k.shape[2]}"
    return None


def ring_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    ring: Ring,
    *,
    scale: float | torch.Tensor,
    norm: torch.Tensor | None,
    valid: torch.Tensor | None,
    distance: bool,
    reach: Reach,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new token q (batch, heads, 1, d), k and v (batch, kv_heads, 1, d) hears the ring and is written to its slot.

    Scores are ``-scale/2 |q - k|^2`` (`distance`) or ``scale <q, k> - norm |k|^2``; the best `reach.top_k` stay.

    Returns:
        out (batch, heads, 1, d) and log_partition (batch, heads, 1), the query's term included.
    """
    batch, heads, _, d = q.shape
    slots = ring.k.shape[2]
    q, k, v = rows_contiguous(q), rows_contiguous(k.to(ring.k.dtype)), rows_contiguous(v.to(ring.v.dtype))
    out = torch.empty((batch, heads, 1, d), dtype=q.dtype, device=q.device)
    log_partition = torch.empty((batch, heads, 1), dtype=torch.float32, device=q.device)
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    norm_tensor, _, *norm_strides, has_norm = scale_arguments(0.0 if norm is None else norm, q)
    fresh, fresh_stride = (
        (q, 0) if valid is None else (valid.view(torch.uint8), valid.stride(0) if len(valid) > 1 else 0)
    )
    width = max(16, triton.next_power_of_2(slots))
    with on_device(q):
        ring_kernel[(batch * heads,)](
            q, k, v, fresh, ring.k, ring.v, ring.valid.view(torch.uint8), ring.seen, scale_tensor, norm_tensor,
            out, log_partition, scale_value, heads, heads // ring.k.shape[1],
            *q.stride()[:2], *k.stride()[:2], *v.stride()[:2], fresh_stride, *scale_strides, *norm_strides,
            FIRST=ring.first, WINDOW=ring.window, TOP_K=0 if reach.top_k >= slots else reach.top_k,
            KEEP_TIES=reach.keep_ties, DISTANCE=distance, HAS_NORM=has_norm, HAS_VALID=valid is not None,
            SCALE_TENSOR=is_tensor, D=d, DP=padded(d), M=width, ALIGNMENT=alignment(k, v, ring.k, ring.v),
            **ring_options(width, ring.k),
        )  # fmt: skip
    return out, log_partition


def alignment(*tensors: torch.Tensor) -> int:
    """Bytes, 16 at most, of which the addresses of all rows are multiples."""
    size = tensors[0].element_size()
    return math.gcd(16, *(x.data_ptr() for x in tensors), *(s * size for x in tensors for s in x.stride()[:-1]))


def ring_options(width: int, k: torch.Tensor) -> dict[str, Any]:
    """Compile options, for many programs at a time: few warps, few registers beside the 32 or 64 that hold the keys.

    Measured on an H200 (bfloat16, 128 keys of 32 and 256 of 64): 3.0 TB/s of keys and values; twice the warps 2.2 and
    2.6, half of them 2.9 and 2.0, values asked for before the rank 2.9 and 2.7.
    """
    tile = width * padded(k.shape[3]) * k.element_size()
    warps = max(2, min(8, tile // 8192))
    words = tile // (128 * warps)
    options = launch_options(warps, registers=words + 32 if words <= 64 else None)
    # A score is one sum here, rounded alike for equal keys, so that fusing its steps moves no tie.
    return options | {"enable_fp_fusion": True}
