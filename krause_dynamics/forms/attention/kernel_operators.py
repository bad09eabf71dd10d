"""The Triton kernels as operators of torch, for its compiler, tracers, flop counters and tensor subclasses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.kernel_steps import Options
from krause_dynamics.forms.attention.lowering import Rule


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
    out, log_partition, bias, selected = steps.forward(q, k, v, scale, mass, Options(distance, tuple(numbers), offset))
    # An operator returns tensors of its own: an empty one stands for "no bias but the masses".
    return out, log_partition, bias if distance and bias is not None else scale.new_empty(0), selected


@_kernels.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, mass: Tensor | None, distance: bool, numbers: Sequence[int],
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    selected = steps.launch().selected_shape(q.shape, k.shape, **steps.launch_arguments(*numbers))
    return (
        q.new_empty(q.shape),
        q.new_empty(q.shape[:3], dtype=torch.float32),
        scale.new_empty((*q.shape[:2], k.shape[2]) if distance else 0),
        q.new_empty(selected, dtype=torch.int32),
    )


@torch.library.custom_op("krause_dynamics::kernels_backward", mutates_args=())
def _kernels_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    distance: bool,
    numbers: Sequence[int],
    offset: int,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dbias, rows, parts = steps.backward(
        q, k, v, scale, bias, out, log_partition, selected, grad_out, grad_log,
        Options(distance, tuple(numbers), offset), need_scale,
    )  # fmt: skip
    dscale = scale.new_empty(0) if rows is None else steps.scale_gradient(rows, parts)
    return dq, dk, dv, dscale, scale.new_empty(0) if dbias is None else dbias


@_kernels_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Any, out: Any, log: Any, selected: Any, grad_out: Any,
    grad_log: Any, distance: bool, numbers: Any, offset: int, need_scale: bool,
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
        *ctx.saved_tensors, grad_out, grad_log, *ctx.rest, needs[3]
    )
    return (*grads, dscale if needs[3] else None, dmass if needs[4] else None, None, None, None)


_kernels.register_autograd(_gradient, setup_context=_setup)


@torch.library.custom_op("krause_dynamics::squared_norms", mutates_args=())
def _squared_norms(x: Tensor) -> Tensor:
    result: Tensor = steps.terms().squared_norms(x)
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
    result: Tensor = steps.terms().centre(k, mass, heads)
    return result


@_centre.register_fake
def _(k: Tensor, mass: Tensor | None, heads: int) -> Tensor:
    return k.new_empty((*k.shape[:2], 1, k.shape[3]))


@register_flop_formula(torch.ops.krause_dynamics.kernels)
def _forward_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    return _pair_flops(q, k, v, rest[3])


@register_flop_formula(torch.ops.krause_dynamics.kernels_backward)
def _backward_flops(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    return 5 * _pair_flops(q, k, v, rest[8]) // 2


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    left, right, top_k, keep_ties, *grid = numbers
    length = Rule(left, right, tuple(grid), top_k, bool(keep_ties)).row_length(k[2])
    return int(2 * q[0] * q[1] * q[2] * length * (q[3] + v[3]))


attend = torch.ops.krause_dynamics.kernels
squared_norms = torch.ops.krause_dynamics.squared_norms
centre = torch.ops.krause_dynamics.centre
