"""The Triton kernels as a torch operator: lowering of an `Interaction` above, `triton.launch` below.

The kernels compute ``scale <q, k> + key_bias``; the key bias ``-scale |k|^2 / 2`` of a distance is ordinary torch, so
that its share of the gradients of k and sigma comes from autograd.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from krause_dynamics.fused.lowering import UNBOUNDED, Lowered, Rule

LARGEST_HEAD = 256


@lru_cache(maxsize=1)
def _launch() -> Any:
    return importlib.import_module("krause_dynamics.fused.triton.launch")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _refusal(device: int | None, dtype: torch.dtype) -> str | None:
    """Why this machine has no kernel for such tensors; a constant while compiling, where nothing can be imported."""
    try:
        launch = _launch()
    except ImportError as error:
        return f"triton cannot be imported here ({error}); impl='banded' serves every device"
    example = torch.empty(1, 1, 1, 64, dtype=dtype, device=torch.device("cuda", device or 0))
    reason: str | None = launch.supports(example, example)
    return reason


def supports_tensors(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> str | None:
    """``None`` if the kernels compute a lowered call, else the reason."""
    rule = lowered.rule
    if q.device.type != "cuda":
        return f"the kernels need CUDA tensors, got {q.device}; impl='banded' serves every device"
    if lowered.pair_bias is not None or lowered.segments is not None or lowered.dropout:
        return "the kernels take no pair bias, packed sequences or dropout; impl='banded' does"
    if rule.grid and (rule.left, rule.right) != (UNBOUNDED, UNBOUNDED):
        return "the kernels take a grid or a window, not both; impl='banded' does"
    if rule.top_k and lowered.log_mass is not None and not lowered.mask_only:
        return "the kernels would rank by mass as well; impl='banded' ranks by the score alone"
    if v.shape[-1] != q.shape[-1]:
        return f"the kernels need values of the keys' dimension, got {v.shape[-1]} and {q.shape[-1]}"
    if q.shape[-1] > LARGEST_HEAD:
        return f"the kernels take head dimensions up to {LARGEST_HEAD}, got {q.shape[-1]}; impl='banded' takes any"
    reason: str | None = _refusal(q.device.index, q.dtype)
    return reason


def _numbers(rule: Rule) -> list[int]:
    return [rule.left, rule.right, rule.top_k, int(rule.keep_ties), *rule.grid]


def _options(numbers: Sequence[int]) -> dict[str, Any]:
    """Keyword arguments of the launch functions."""
    left, right, top_k, keep_ties, *grid = numbers
    return {
        "left": None if grid or left == UNBOUNDED else left,
        "right": None if grid or right == UNBOUNDED else right,
        "top_k": top_k or None,
        "ties": "keep" if keep_ties else "index",
        "grid": (*grid[:3], "manhattan" if grid[3] else "chebyshev") if grid else None,
        "prefix": grid[4] if grid else 0,
    }


@torch.library.custom_op("krause_dynamics::kernels", mutates_args=())
def _kernels(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, key_bias: Tensor | None, numbers: Sequence[int], offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _launch().forward(
        q, k, v, scale=scale, key_bias=key_bias, query_offset=offset, **_options(numbers)
    )
    return result


@_kernels.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, key_bias: Tensor | None, numbers: Sequence[int], offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    selected = _launch().selected_shape(q.shape, k.shape, **_options(numbers))
    return (
        q.new_empty(q.shape),
        q.new_empty(q.shape[:3], dtype=torch.float32),
        q.new_empty(selected, dtype=torch.int32),
    )


@torch.library.custom_op("krause_dynamics::kernels_backward", mutates_args=())
def _kernels_backward(
    grad_out: Tensor,
    grad_log: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    key_bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    numbers: Sequence[int],
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, bias, rows = _launch().backward(
        grad_out, q, k, v, out, log_partition, selected, scale=scale, key_bias=key_bias, query_offset=offset,
        grad_log_partition=grad_log, **_options(numbers),
    )  # fmt: skip
    # An operator returns tensors: an empty one stands for "no such argument".
    return dq, dk, dv, rows.sum(-1), scale.new_empty(0) if bias is None else bias


@_kernels_backward.register_fake
def _(
    grad_out: Tensor, grad_log: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: Tensor, key_bias: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    bias = scale.new_empty(0) if key_bias is None else q.new_empty((*q.shape[:2], k.shape[2]), dtype=torch.float32)
    return (*(x.new_empty(x.shape) for x in (q, k, v)), q.new_empty(q.shape[:2], dtype=torch.float32), bias)


@torch.library.custom_op("krause_dynamics::squared_norms", mutates_args=())
def _squared_norms(x: Tensor) -> Tensor:
    result: Tensor = importlib.import_module("krause_dynamics.fused.triton.norms").squared_norms(x)
    return result


@_squared_norms.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:3], dtype=torch.float32)


_squared_norms.register_autograd(
    lambda ctx, grad: (2.0 * grad[..., None] * ctx.saved_tensors[0]).to(ctx.saved_tensors[0].dtype),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.rest = inputs[5:]
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, grad_out: Tensor, grad_log: Tensor, _: Any) -> tuple[Any, ...]:
    grads = torch.ops.krause_dynamics.kernels_backward(grad_out, grad_log, *ctx.saved_tensors, *ctx.rest)
    return (*grads[:4], None if ctx.saved_tensors[4] is None else grads[4], None, None)


_kernels.register_autograd(_gradient, setup_context=_setup)


@register_flop_formula(torch.ops.krause_dynamics.kernels)
def _forward_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    return _pair_flops(q, k, v, rest[2])


@register_flop_formula(torch.ops.krause_dynamics.kernels_backward)
def _backward_flops(grad_out: Any, grad_log: Any, q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    return 5 * _pair_flops(q, k, v, rest[5]) // 2


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    left, right, top_k, keep_ties, *grid = numbers
    length = Rule(left, right, tuple(grid), top_k, bool(keep_ties)).row_length(k[2])
    return int(2 * q[0] * q[1] * q[2] * length * (q[3] + v[3]))


def _centred(q: Tensor, k: Tensor, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """float32 tokens moved near the mean of the keys that are there and finite: distances do not see it, rounding does.

    Half types stay as they are: rounding them again would change who is admitted.
    """
    if not lowered.distance or q.dtype != torch.float32:
        return q, k
    known = k.detach()
    there = known.isfinite().all(-1, keepdim=True)
    if lowered.log_mass is not None:
        there = there & (lowered.log_mass > -float("inf")).any(1, keepdim=True)[..., None]
    count = there.sum(2, keepdim=True).clamp(min=1)
    mean = known.masked_fill(~there, 0.0).sum(2, keepdim=True) / count
    # A multiple of a power of two as large as the spread: subtracting it leaves small integers integers, ties ties.
    spread = (known - mean).masked_fill(~there, 0.0).square().sum((2, 3), keepdim=True) / (count * k.shape[3])
    quantum = spread.sqrt().clamp(min=1e-30).log2().ceil().exp2()
    centre = (mean / quantum).round() * quantum
    return q - centre.repeat_interleave(q.shape[1] // k.shape[1], 1), k - centre


def kernels(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d) and log-partition (b, h, n) of a lowered call on a GPU."""
    q, k = _centred(q, k, lowered)
    scale = lowered.scale.expand(q.shape[0], q.shape[1])
    key_bias = lowered.key_bias(k, q.shape[1], torch.ops.krause_dynamics.squared_norms)
    offset, numbers = lowered.query_offset, _numbers(lowered.rule)
    tensors = (q, k, v, scale, key_bias)
    tracked = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if q.shape[2] == 1 and not tracked and not torch.compiler.is_compiling() and _fits_decode(q, k, lowered.rule):
        out, log_partition = _decode(q, k, v, scale, key_bias, lowered)
    else:
        out, log_partition, _ = torch.ops.krause_dynamics.kernels(*tensors, numbers, offset)
    return out, log_partition + lowered.query_term(q, torch.ops.krause_dynamics.squared_norms)


def _fits_decode(q: Tensor, k: Tensor, rule: Rule) -> bool:
    """Whether one program reads the whole cache; powers of two as the kernel pads them."""
    padded = [1 << (max(16, size) - 1).bit_length() for size in (q.shape[3], k.shape[2])]
    return not rule.grid and padded[0] * padded[1] <= _launch().LARGEST_CACHE


def _decode(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, key_bias: Tensor | None, lowered: Lowered
) -> tuple[Tensor, Tensor]:
    """One token against the keys that its window leaves, without the operator's bookkeeping."""
    rule, position, m = lowered.rule, lowered.query_offset, k.shape[2]
    first = 0 if rule.left == UNBOUNDED else max(0, position - rule.left)
    last = m if rule.right == UNBOUNDED else min(m, position + rule.right + 1)
    result: tuple[Tensor, Tensor] = _launch().decode(
        q, k, v, scale=scale, key_bias=key_bias, first=first, last=last, top_k=rule.top_k or None,
        ties="keep" if rule.keep_ties else "index",
    )  # fmt: skip
    return result
