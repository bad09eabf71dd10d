"""The Triton kernels as operators of torch, so that torch.compile, flop counters, DDP and checkpointing see one step.

Shapes of results follow from shapes of arguments alone, so that a new length needs no recompilation. An operator
returns tensors of its own: an empty one stands for "no such thing".

The kernels stay opaque to the compiler (no `torch.library.triton_op`): it would compile them with multiplications and
additions fused, which moves scores by a rounding and so ranks, and it would specialise on every length. Instead a call
repeats recorded launches, and a CUDA graph around the step leaves nothing of the host's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics.forms.attention import batched, flops
from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.call import empty_by_tokens, parts
from krause_dynamics.forms.attention.packed import schema
from krause_dynamics.interaction.reach import Reach


class _Given(NamedTuple):
    """What `kernel_steps.forward` takes."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    scale: Tensor
    log_mass: Tensor | None
    numbers: Sequence[int]
    distance: bool
    offset: int
    kv_heads: int


class _Saved(NamedTuple):
    """What `kernel_steps.backward` takes."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    scale: Tensor
    bias: Tensor | None
    out: Tensor
    log_partition: Tensor
    selected: Tensor
    grad_out: Tensor | None
    grad_log: Tensor | None
    numbers: Sequence[int]
    distance: bool
    offset: int
    kv_heads: int
    need_scale: bool
    need_mass: bool


@torch.library.custom_op("krause_dynamics::kernels", mutates_args=(), schema=schema(_Given, 4))
def _kernels(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _Given(*arguments)
    rest = (Reach.from_numbers(given.numbers), given.distance, given.offset, given.kv_heads)
    out, log_partition, bias, selected = steps.forward_recorded(
        given.q, given.k, given.v, given.scale, given.log_mass, rest
    )
    return out, log_partition, bias if given.distance and bias is not None else given.scale.new_empty(0), selected


@_kernels.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _Given(*arguments)
    q, k, _ = parts(given.q, given.k, given.v, given.kv_heads)
    selected = steps.launch().selected_shape(q.shape, k.shape, reach=Reach.from_numbers(given.numbers))
    return (
        empty_by_tokens(q),
        q.new_empty(q.shape[:3], dtype=torch.float32),
        given.scale.new_empty((*q.shape[:2], k.shape[2]) if given.distance else 0),
        q.new_empty(selected, dtype=torch.int32),
    )


@torch.library.custom_op("krause_dynamics::kernels_backward", mutates_args=(), schema=schema(_Saved, 5))
def _kernels_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = _Saved(*arguments)
    reach = Reach.from_numbers(given.numbers)
    rest = (reach, given.distance, given.offset, given.kv_heads, 1.0, given.need_scale, given.need_mass)
    found = steps.backward_recorded(given[:8], given.grad_out, given.grad_log, rest)
    dq, dk, dv, dmass, slopes = (given.scale.new_empty(0) if x is None else x for x in found)
    return dq, dk, dv, slopes, dmass


@_kernels_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = _Saved(*arguments)
    (heads, n), batch, scale = given.out.shape[1:3], given.q.shape[0], given.scale
    m = n if given.k is None else given.k.shape[2]
    slopes = scale.new_empty((batch, heads, n + m if given.distance else n) if given.need_scale else 0)
    dmass = scale.new_empty((batch, heads, m) if given.need_mass and given.bias is not None else 0)
    if given.k is None or given.v is None:
        return given.q.new_empty(given.q.shape), scale.new_empty(0), scale.new_empty(0), slopes, dmass
    return *(empty_by_tokens(x) for x in (given.q, given.k, given.v)), slopes, dmass


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, scale, mass, *ctx.rest = inputs
    out, log_partition, bias, selected = output
    distance = ctx.rest[1]
    ctx.save_for_backward(q, k, v, scale, bias if distance else mass, out, log_partition, selected)
    ctx.mark_non_differentiable(bias, selected)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None, *_: Any) -> tuple[Any, ...]:
    saved, needs = ctx.saved_tensors, ctx.needs_input_grad
    dq, dk, dv, slopes, dmass = torch.ops.krause_dynamics.kernels_backward(
        *saved, grad_out, grad_log, *ctx.rest, needs[3], needs[4]
    )
    tokens = (dq, None, None) if saved[1] is None else (dq, dk, dv)
    dscale = steps.scale_gradient(slopes, saved[3]) if needs[3] else None
    return (*tokens, dscale, dmass if needs[4] else None, None, None, None, None)


_kernels.register_autograd(_differentiate, setup_context=_keep)


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


for _operator in (_kernels, _kernels_backward, _squared_norms, _centre):
    _operator.register_vmap(batched.rule(_operator))
flops.register(torch.ops.krause_dynamics.kernels, torch.ops.krause_dynamics.kernels_backward, 2, 7)

kernels = torch.ops.krause_dynamics.kernels
squared_norms = torch.ops.krause_dynamics.squared_norms
centre = torch.ops.krause_dynamics.centre
