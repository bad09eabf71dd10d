"""What every launch needs: which tensors are served, their strides, compile options."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from krause_dynamics.forms.attention.call import split_heads

from .primitives import INTERPRETED
from .tiling import NO_BOUND

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_HEAD = 256


def supports(q: torch.Tensor, k: torch.Tensor) -> str | None:
    """None if the kernels serve these arguments, else the reason why not and what would."""
    if not q.is_cuda:
        return f"needs CUDA tensors, got {q.device}; impl='banded' serves every device"
    if q.is_cuda and torch.cuda.get_device_capability(q.device) < (8, 0):
        return "needs compute capability 8.0 or later; impl='banded' serves every device"
    if q.dtype not in DTYPES:
        return f"needs float32, float16 or bfloat16, got {q.dtype}; impl='reference' and impl='banded' take float64"
    if q.shape[-1] > LARGEST_HEAD:
        return f"needs head dimensions up to {LARGEST_HEAD}, got {q.shape[-1]}; impl='banded' takes any"
    if q.dtype == torch.float32 and padded(q.shape[-1]) > 128 and torch.cuda.get_device_capability(q.device)[1] != 0:
        return "float32 heads of more than 128 need the shared memory of compute capability 8.0 or 9.0; use bfloat16"
    if max(q.shape[-2], k.shape[-2]) >= NO_BOUND:
        return f"needs fewer than {NO_BOUND} tokens"
    return None


def rows_contiguous(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its last axis is dense, else a dense copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def single(x: torch.Tensor) -> torch.Tensor:
    """In float32; the tensor itself where it is that, so that a recorded call (`replay`) sees no conversion."""
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def padded(d: int) -> int:
    """Head dimension of the tiles: the next power of two, at least 16."""
    return 1 << (max(16, d) - 1).bit_length()


def scale_arguments(scale: float | torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, float, int, int, bool]:
    """Pointer, number and strides of the scale; a number needs no tensor."""
    if isinstance(scale, torch.Tensor):
        wide = single(scale).expand(q.shape[0], q.shape[1])
        return wide, 1.0, wide.stride(0), wide.stride(1), True
    return q, float(scale), 0, 0, False


def bias_arguments(key_bias: torch.Tensor | None, q: torch.Tensor, keys: int) -> tuple[torch.Tensor, int, int]:
    """Pointer and strides over batch and heads of the key bias, float32 and dense along the keys."""
    if key_bias is None:
        return q, 0, 0
    wide = rows_contiguous(single(key_bias)).expand(q.shape[0], q.shape[1], keys)
    if wide.stride(-1) != 1 and keys > 1:
        wide = wide.contiguous()
    return wide, wide.stride(0), wide.stride(1)


def token_major(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """An empty tensor (b, h, n, d) laid out as projections of tokens are, (b, n, h, d)."""
    _, heads, n, d = shape
    return torch.empty_strided(shape, (n * heads * d, d, heads * d, 1), dtype=like.dtype, device=like.device)


def gradients_like(
    q: torch.Tensor, k: torch.Tensor, joint: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Empty gradients of queries, keys and values, and the tensor (b, n, h + 2 h_kv, d) of which they are parts.

    Args:
        q: (b, h, n, d).
        k: (b, h_kv, m, d); m = n where joint.
        joint: Whether the three were projected together, so that one product takes their gradients as they lie.

    Laid out by tokens: by heads the kernels take as long (`benchmarks/gradient_layout_gpu.py` on an H200: 1.005 at
    W = 128, 0.998 at W = 256), and a projection would have to copy them.
    """
    if not joint:
        return token_major(q.shape, q), token_major(k.shape, k), token_major(k.shape, k), None
    (batch, heads, n, d), kv_heads = q.shape, k.shape[1]
    whole = torch.empty((batch, n, heads + 2 * kv_heads, d), dtype=q.dtype, device=q.device)
    dq, dk, dv = split_heads(whole, kv_heads)
    return dq, dk, dv, whole


def slopes_like(delta: torch.Tensor, keys: int, distance: bool) -> torch.Tensor:
    """Empty (b, h, n) or, where keys have their share, (b, h, n + m): what sums to the gradient of the scale."""
    batch, heads, n = delta.shape
    return torch.empty((batch, heads, n + keys if distance else n), dtype=torch.float32, device=delta.device)


def launch_options(warps: int, stages: int = 1, registers: int | None = None) -> dict[str, Any]:
    """Compile options of a launch; `registers` caps those of a thread."""
    # Fused multiply-adds only where a kernel writes them: scores round as in eager code.
    options: dict[str, Any] = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    if registers is not None and not INTERPRETED.value:
        options["maxnreg"] = registers
    return options


def on_device(q: torch.Tensor) -> AbstractContextManager[Any]:
    """Context in which a launch reaches the tensor's device (the interpreter's tensors live on the CPU)."""
    return torch.cuda.device(q.device) if q.is_cuda else nullcontext()


def is_hopper(q: torch.Tensor) -> bool:
    """Whether products read their operands from shared memory (compute capability 9.0 and later)."""
    return not INTERPRETED.value and torch.cuda.get_device_capability(q.device)[0] >= 9
