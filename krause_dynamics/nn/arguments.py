"""Arguments of `krause_attention`: checked, and written in the lowered form that every implementation reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.fused import banded
from krause_dynamics.fused.lowering import Lowered, Rule

NEVER = -float("inf")


def transformed() -> bool:
    """Whether a function transform (vmap, jvp, ...) is at work; operators know nothing of them."""
    return torch._C._functorch.maybe_current_level() is not None


def lower_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rule: Rule,
    *,
    sigma: float | Tensor | None = None,
    score: str = "gaussian",
    scale: float | Tensor | None = None,
    key_bias: Tensor | None = None,
    pair_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    query_offset: int | None = None,
    dropout: float = 0.0,
    mean_only: bool = False,
) -> Lowered:
    """Check the arguments of `krause_attention` and write them as `Lowered`.

    Raises:
        TypeError, ValueError: As there.
    """
    _check_tensors(q, k, v)
    n, m = q.shape[2], k.shape[2]
    _check_grid(rule, n, m)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    if pair_bias is not None:
        _check_broadcast("pair_bias", pair_bias, (q.shape[0], q.shape[1], n, m))
        pair_bias = pair_bias[(None,) * (4 - pair_bias.ndim)]
    if cu_seqlens is not None:
        _check_segments(cu_seqlens, q, k, query_offset)
    return Lowered(
        scale=_coefficient(q, sigma, score, scale),
        distance=score == "gaussian",
        rule=rule,
        log_mass=_log_mass(q, k, key_bias, key_valid),
        pair_bias=pair_bias,
        segments=cu_seqlens,
        query_offset=m - n if query_offset is None else query_offset,
        dropout=float(dropout),
        mask_only=key_bias is None,
        mean_only=mean_only,
    )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} must have shape (batch, heads, tokens, dim), got {tuple(x.shape)}")
        if x.dtype != q.dtype or x.device != q.device:
            raise TypeError(
                f"q and {name} must share dtype and device, got {q.dtype} on {q.device} and {x.dtype} on {x.device}"
            )
    if q.dtype not in banded.DTYPES:
        raise TypeError(f"q, k, v must be float64, float32, bfloat16 or float16, got {q.dtype}; convert them")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "q (b, h, n, d), k (b, h_kv, m, d) and v (b, h_kv, m, d_v) do not fit, got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"the number of key heads must divide the number of heads, got {k.shape[1]} and {q.shape[1]}")


def _check_grid(rule: Rule, n: int, m: int) -> None:
    if not rule.grid:
        return
    height, width, _, _, prefix = rule.grid
    if m != height * width + prefix or n != m:
        raise ValueError(
            f"grid={(height, width)} with prefix_tokens={prefix} has {height * width + prefix} tokens, got {n} queries "
            f"and {m} keys; pass the grid of this input"
        )


def _check_broadcast(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name} holds log-weights and must be floating, got {x.dtype}; a boolean mask: key_valid, or "
                        "torch.where(mask, 0.0, -torch.inf)")  # fmt: skip
    fits = x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(reversed(x.shape), reversed(shape), strict=False))
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(shape)}, got {tuple(x.shape)}")


def _check_segments(cu_seqlens: Tensor, q: Tensor, k: Tensor, query_offset: int | None) -> None:
    if cu_seqlens.ndim != 1 or cu_seqlens.is_floating_point() or cu_seqlens.dtype == torch.bool:
        raise TypeError(
            f"cu_seqlens must be one-dimensional integers, got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    if q.shape[2] != k.shape[2] or query_offset:
        raise ValueError(
            f"cu_seqlens packs queries and keys alike, got {q.shape[2]} queries, {k.shape[2]} keys, "
            f"query_offset={query_offset}; use one call per sequence to decode"
        )
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        ends = int(cu_seqlens[0]), int(cu_seqlens[-1])
        if ends != (0, q.shape[2]) or bool((cu_seqlens.diff() < 0).any()):
            raise ValueError(f"cu_seqlens must rise from 0 to {q.shape[2]} tokens, got {cu_seqlens.tolist()}")


def _coefficient(q: Tensor, sigma: Any, score: str, scale: Any) -> Tensor:
    """Coefficient a of the score as (1 or batch, 1 or heads), in the dtype in which scores are computed."""
    if score not in ("gaussian", "dot"):
        raise ValueError(f"score must be 'gaussian' or 'dot', got {score!r}")
    if sigma is not None and scale is not None:
        raise ValueError(f"give sigma or scale = 1/sigma^2, not both, got sigma={sigma!r}, scale={scale!r}")
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    name, value = ("sigma", sigma) if scale is None else ("scale", scale)
    if value is None:
        value = q.shape[3] ** 0.25
    _check_positive(name, value, score)
    if not isinstance(value, Tensor):
        # Filled on the device: a copy of one number from the host would make the host wait for the GPU.
        return torch.full((1, 1), value if name == "scale" else value**-2, dtype=dtype, device=q.device)
    value = value.to(q.device, dtype)
    if value.ndim == 2 and value.shape[0] in (1, q.shape[0]) and value.shape[1] in (1, q.shape[1]):
        pass
    elif value.numel() in (1, q.shape[1]):
        value = value.reshape(1, -1)
    else:
        raise ValueError(f"{name} must have one entry or one per head ({q.shape[1]}), got shape {tuple(value.shape)}")
    return value if name == "scale" else value**-2


def _check_positive(name: str, value: Any, score: str) -> None:
    """Check sigma > 0, and a > 0 of a Gaussian; on a device or while compiling the value is not looked at."""
    if name == "scale" and score == "dot":
        return
    if isinstance(value, Tensor):
        unseen = value.device.type != "cpu" or torch.compiler.is_compiling() or transformed()
        positive = unseen or bool((value.detach() > 0).all())
    else:
        positive = float(value) > 0  # false for NaN
    if not positive:
        raise ValueError(f"{name} must be positive, got {value}; learn its logarithm to keep it so")


def _log_mass(q: Tensor, k: Tensor, key_bias: Tensor | None, key_valid: Tensor | None) -> Tensor | None:
    """(batch or 1, heads or 1, m) log masses of the keys, -inf where they are padding."""
    batch, heads, m = q.shape[0], q.shape[1], k.shape[2]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    if key_bias is not None:
        if key_bias.ndim == 2:
            key_bias = key_bias[:, None]
        _check_broadcast("key_bias", key_bias, (batch, heads, m))
        key_bias = key_bias[(None,) * (3 - key_bias.ndim)].to(dtype)
    if key_valid is None:
        return key_bias
    if key_valid.dtype != torch.bool:
        raise TypeError(f"key_valid must be boolean, got {key_valid.dtype}; an additive mask is key_bias or pair_bias")
    if tuple(key_valid.shape) not in ((batch, m), (1, m)):
        raise ValueError(f"key_valid must have shape (batch, m) = {(batch, m)}, got {tuple(key_valid.shape)}")
    if key_bias is None:
        return torch.where(key_valid[:, None], 0.0, NEVER).to(dtype)
    return key_bias.masked_fill(~key_valid[:, None], NEVER)
