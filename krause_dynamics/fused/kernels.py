"""The Triton kernels as a torch operator: lowering of an `Interaction` above, `triton.launch` below.

The kernels compute ``scale <q, k> + key_bias``; the key bias ``-scale |k|^2 / 2`` of a distance is part of the
operator, forward and backward. Eager calls take the same steps without the operator, whose bookkeeping in Python would
cost more than a short sequence.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from krause_dynamics.fused.lowering import UNBOUNDED, Lowered, Rule

LARGEST_HEAD = 256


@lru_cache(maxsize=1)
def _launch() -> Any:
    return importlib.import_module("krause_dynamics.fused.triton.launch")


@lru_cache(maxsize=1)
def _terms() -> Any:
    return importlib.import_module("krause_dynamics.fused.triton.terms")


@lru_cache(maxsize=1)
def _planned() -> Any:
    return importlib.import_module("krause_dynamics.fused.triton.replay").planned


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@lru_cache(maxsize=64)
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


def _numbers(rule: Rule) -> tuple[int, ...]:
    return (rule.left, rule.right, rule.top_k, int(rule.keep_ties), *rule.grid)


@lru_cache(maxsize=256)
def _options(left: int, right: int, top_k: int, keep_ties: int, *grid: int) -> dict[str, Any]:
    """Keyword arguments of the launch functions."""
    return {
        "left": None if grid or left == UNBOUNDED else left,
        "right": None if grid or right == UNBOUNDED else right,
        "top_k": top_k or None,
        "ties": "keep" if keep_ties else "index",
        "grid": (*grid[:3], "manhattan" if grid[3] else "chebyshev") if grid else None,
        "prefix": grid[4] if grid else 0,
    }


def _forward(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, mass: Tensor | None, distance: bool, numbers: Sequence[int],
    offset: int,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """Output, log-partition without the query's term, key bias, selected set."""
    bias = _terms().key_bias(k, scale, mass, q.shape[1]) if distance else mass
    out, log_partition, selected = _launch().forward(
        q, k, v, scale=scale, key_bias=bias, query_offset=offset, **_options(*numbers)
    )
    return out, log_partition, bias, selected


def _backward(
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    distance: bool,
    numbers: Sequence[int],
    offset: int,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of q, k, v and of the masses (b, h, m), and what sums over tokens to the gradient of the scale."""
    dq, dk, dv, dbias, rows = _launch().backward(
        torch.zeros_like(out) if grad_out is None else grad_out, q, k, v, out, log_partition, selected, scale=scale,
        key_bias=bias, query_offset=offset, grad_log_partition=grad_log, need_scale=need_scale, **_options(*numbers),
    )  # fmt: skip
    parts = _terms().add_key_gradient(dk, dbias, k, scale, need_scale=need_scale) if distance else None
    return dq, dk, dv, dbias, rows, parts


def _scale_gradient(rows: Tensor, parts: Tensor | None) -> Tensor:
    """(b, h) from the shares of queries and of keys."""
    return rows.sum(-1) if parts is None else rows.sum(-1) + parts.sum(-1)


@torch.library.custom_op("krause_dynamics::kernels", mutates_args=())
def _kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    mass: Tensor | None,
    distance: bool,
    numbers: Sequence[int],
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, log_partition, bias, selected = _forward(q, k, v, scale, mass, distance, numbers, offset)
    # An operator returns tensors of its own: an empty one stands for "no bias but the masses".
    return out, log_partition, bias if distance and bias is not None else scale.new_empty(0), selected


@_kernels.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, mass: Tensor | None, distance: bool, numbers: Sequence[int],
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    selected = _launch().selected_shape(q.shape, k.shape, **_options(*numbers))
    return (
        q.new_empty(q.shape),
        q.new_empty(q.shape[:3], dtype=torch.float32),
        scale.new_empty((*q.shape[:2], k.shape[2]) if distance else 0),
        q.new_empty(selected, dtype=torch.int32),
    )


@torch.library.custom_op("krause_dynamics::kernels_backward", mutates_args=())
def _kernels_backward(
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    distance: bool,
    numbers: Sequence[int],
    offset: int,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dbias, rows, parts = _backward(
        grad_out, grad_log, q, k, v, scale, bias, out, log_partition, selected, distance, numbers, offset, need_scale
    )
    dscale = scale.new_empty(0) if rows is None else _scale_gradient(rows, parts)
    return dq, dk, dv, dscale, scale.new_empty(0) if dbias is None else dbias


@_kernels_backward.register_fake
def _(
    grad_out: Any, grad_log: Any, q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Any, out: Any, log: Any,
    selected: Any, distance: bool, numbers: Any, offset: int, need_scale: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    dscale = scale.new_empty(q.shape[:2] if need_scale else 0)
    dbias = scale.new_empty(0 if bias is None else (*q.shape[:2], k.shape[2]))
    return (*(x.new_empty(x.shape) for x in (q, k, v)), dscale, dbias)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, scale, mass, distance, *rest = inputs
    out, log_partition, bias, selected = output
    ctx.rest = distance, *rest
    ctx.save_for_backward(q, k, v, scale, bias if distance else mass, out, log_partition, selected)
    ctx.mark_non_differentiable(bias, selected)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None, *_: Any) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    *grads, dscale, dmass = torch.ops.krause_dynamics.kernels_backward(
        grad_out, grad_log, *ctx.saved_tensors, *ctx.rest, needs[3]
    )
    return (*grads, dscale if needs[3] else None, dmass if needs[4] else None, None, None, None)


_kernels.register_autograd(_gradient, setup_context=_setup)


class _Attend(torch.autograd.Function):
    """The same step without the operator."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        q, k, v, scale = inputs[:4]
        out, log_partition, bias, selected = _planned()(_forward, inputs[:5], inputs[5:])
        ctx.rest = inputs[5:]
        ctx.save_for_backward(q, k, v, scale, bias, out, log_partition, selected)
        ctx.set_materialize_grads(False)
        return out, log_partition

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        tensors = (ctx.saved_tensors[0], grad_out, grad_log, *ctx.saved_tensors[1:])
        dq, dk, dv, dmass, rows, parts = _planned()(_planned_backward, tensors, (*ctx.rest, needs[3]))
        dscale = _scale_gradient(rows, parts) if needs[3] else None
        return dq, dk, dv, dscale, dmass if needs[4] else None, None, None, None


def _planned_backward(q: Tensor, grad_out: Any, grad_log: Any, *rest: Any) -> tuple[Any, ...]:
    return _backward(grad_out, grad_log, q, *rest)


@torch.library.custom_op("krause_dynamics::squared_norms", mutates_args=())
def _squared_norms(x: Tensor) -> Tensor:
    result: Tensor = _terms().squared_norms(x)
    return result


@_squared_norms.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:3], dtype=torch.float32)


_squared_norms.register_autograd(
    lambda ctx, grad: (2.0 * grad[..., None] * ctx.saved_tensors[0]).to(ctx.saved_tensors[0].dtype),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@torch.library.custom_op("krause_dynamics::centre", mutates_args=())
def _centre(k: Tensor, mass: Tensor | None, heads: int) -> Tensor:
    result: Tensor = _terms().centre(k, mass, heads)
    return result


@_centre.register_fake
def _(k: Tensor, mass: Tensor | None, heads: int) -> Tensor:
    return k.new_empty((*k.shape[:2], 1, k.shape[3]))


@register_flop_formula(torch.ops.krause_dynamics.kernels)
def _forward_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    return _pair_flops(q, k, v, rest[3])


@register_flop_formula(torch.ops.krause_dynamics.kernels_backward)
def _backward_flops(grad_out: Any, grad_log: Any, q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    return 5 * _pair_flops(q, k, v, rest[6]) // 2


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    left, right, top_k, keep_ties, *grid = numbers
    length = Rule(left, right, tuple(grid), top_k, bool(keep_ties)).row_length(k[2])
    return int(2 * q[0] * q[1] * q[2] * length * (q[3] + v[3]))


def _alone(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether nobody looks on (compiler, tracer, flop counter, tensor subclass), so that the operator serves no one."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in tensors)


def _centred(q: Tensor, k: Tensor, mass: Tensor | None, alone: bool) -> tuple[Tensor, Tensor]:
    """float32 tokens moved near the keys that are there and finite: distances do not see it, rounding does.

    Half types stay as they are: rounding them again would change who is admitted.
    """
    find = _terms().centre if alone else torch.ops.krause_dynamics.centre
    centre = find(k.detach(), None if mass is None else mass.detach(), q.shape[1])
    group = q.shape[1] // k.shape[1]
    return q - (centre if group == 1 else centre.repeat_interleave(group, 1)), k - centre


def kernels(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d) and log-partition (b, h, n) of a lowered call on a GPU."""
    batch, heads, n, _ = q.shape
    scale, mass = lowered.scale.expand(batch, heads), lowered.log_mass
    if mass is not None:
        mass = mass.expand(batch, heads, k.shape[2])
    alone = _alone((q, k, v, scale, mass))
    if lowered.distance and q.dtype == torch.float32:
        q, k = _centred(q, k, mass, alone)
    tensors = (q, k, v, scale, mass)
    tracked = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    rest = lowered.distance, _numbers(lowered.rule), lowered.query_offset
    if not alone:
        out, log_partition, *_ = torch.ops.krause_dynamics.kernels(*tensors, *rest)
    elif tracked:
        out, log_partition = _Attend.apply(*tensors, *rest)
    elif n == 1 and _fits_decode(q, k, lowered.rule):
        out, log_partition = _decode(q, k, v, scale, mass, lowered)
    else:
        out, log_partition, *_ = _planned()(_forward, tensors, rest)
    if lowered.distance and not lowered.mean_only:
        direct = alone and not tracked
        squares = _terms().squared_norms if direct else torch.ops.krause_dynamics.squared_norms
        log_partition = log_partition + lowered.query_term(q, squares)
    return out, log_partition


def _fits_decode(q: Tensor, k: Tensor, rule: Rule) -> bool:
    """Whether one program reads the whole cache; powers of two as the kernel pads them."""
    padded = [1 << (max(16, size) - 1).bit_length() for size in (q.shape[3], k.shape[2])]
    return not rule.grid and padded[0] * padded[1] <= _launch().LARGEST_CACHE


def _decode(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, mass: Tensor | None, lowered: Lowered
) -> tuple[Tensor, Tensor]:
    """One token against the keys that its window leaves."""
    rule, position, m = lowered.rule, lowered.query_offset, k.shape[2]
    first = 0 if rule.left == UNBOUNDED else max(0, position - rule.left)
    last = m if rule.right == UNBOUNDED else min(m, position + rule.right + 1)
    result: tuple[Tensor, Tensor] = _launch().decode(
        q, k, v, scale=scale, key_bias=_terms().key_bias(k, scale, mass, q.shape[1]) if lowered.distance else mass,
        first=first, last=last, top_k=rule.top_k or None, ties="keep" if rule.keep_ties else "index",
    )  # fmt: skip
    return result
