"""Attention as torch operators, so that torch.compile, flop counters, DDP and checkpointing see one step.

Two pairs: `banded` for every device, `kernels` for the Triton kernels. Both take the tensors of a `Call` and its
numbers; shapes of results follow from shapes of arguments alone, so that a new length needs no recompilation. An
operator returns tensors of its own: an empty one stands for "no such thing".

The kernels stay opaque to the compiler (no `torch.library.triton_op`): it would compile them with multiplications and
additions fused, which moves scores by a rounding and so ranks, and it would specialise on every length. Instead a call
repeats recorded launches, and a CUDA graph around the step leaves nothing of the host's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from krause_dynamics.forms.attention import batched, engine
from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.call import Call, selection_bytes
from krause_dynamics.interaction.reach import Reach


@torch.library.custom_op("krause_dynamics::banded", mutates_args=())
def _banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    log_mass: Tensor | None,
    pair_bias: Tensor | None,
    segments: Tensor | None,
    seed: Tensor | None,
    numbers: Sequence[int],
    distance: bool,
    ranked: bool,
    offset: int,
    dropout: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    reach, drawn = Reach.from_numbers(numbers), 0 if seed is None else int(seed)
    call = Call(q, k, v, scale, distance, reach, log_mass, pair_bias, segments, offset, dropout, drawn, ranked=ranked)
    return engine.forward(call, save=save)


@_banded.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, log_mass: Any, pair_bias: Any, segments: Any, seed: Any,
    numbers: Sequence[int], distance: bool, ranked: bool, offset: int, dropout: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, heads, n, _), reach = q.shape, Reach.from_numbers(numbers)
    shape: tuple[Any, ...] = (0,)
    if q.device.type == "cpu":
        wide, wide_bytes, row_bytes = selection_bytes(reach, n, k.shape[2], offset)
        shape = batch * heads, wide * wide_bytes + (n - wide) * row_bytes if save and reach.top_k else 0
    return (
        q.new_empty(batch, heads, n, v.shape[3]),
        scale.new_empty(batch, heads, n),
        torch.empty(shape, dtype=torch.uint8, device=q.device),
    )


@torch.library.custom_op("krause_dynamics::banded_backward", mutates_args=())
def _banded_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    log_mass: Tensor | None,
    pair_bias: Tensor | None,
    segments: Tensor | None,
    seed: Tensor | None,
    log_partition: Tensor,
    selection: Tensor,
    grad_out: Tensor,
    grad_log: Tensor,
    numbers: Sequence[int],
    distance: bool,
    ranked: bool,
    offset: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    reach, drawn = Reach.from_numbers(numbers), 0 if seed is None else int(seed)
    call = Call(q, k, v, scale, distance, reach, log_mass, pair_bias, segments, offset, dropout, drawn, ranked=ranked)
    grads = engine.backward(call, log_partition, selection, grad_out, grad_log)
    mass, pair = (
        scale.new_empty(0) if given is None or grad is None else grad.sum_to_size(given.shape).to(given.dtype)
        for given, grad in ((log_mass, grads.log_mass), (pair_bias, grads.pair_bias))
    )
    return grads.q, grads.k, grads.v, grads.scale, mass, pair


@_banded_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, log_mass: Any, pair_bias: Any, segments: Any, seed: Any,
    log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor, numbers: Sequence[int],
    distance: bool, ranked: bool, offset: int, dropout: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    optional = (scale.new_empty(0) if x is None else x.new_empty(x.shape) for x in (log_mass, pair_bias))
    return (*(x.new_empty(x.shape) for x in (q, k, v, scale)), *optional)


def _keep_banded(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    tensors, ctx.rest = inputs[:8], inputs[8:13]
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(output[2])


def _differentiate_banded(ctx: Any, grad_out: Tensor, grad_log: Tensor, _: Any) -> tuple[Any, ...]:
    *tensors, log_partition, selection = ctx.saved_tensors
    transformed = torch._C._functorch.maybe_current_level() is not None
    grads = (_BandedBackward.apply if transformed else torch.ops.krause_dynamics.banded_backward)(
        *tensors, log_partition, selection, grad_out.contiguous(), grad_log.contiguous(), *ctx.rest
    )
    optional = [None if x is None else g for x, g in zip(tensors[4:6], grads[4:], strict=True)]
    return (*grads[:4], *optional, *(None,) * 8)


_banded.register_autograd(_differentiate_banded, setup_context=_keep_banded)


class _BandedBackward(torch.autograd.Function):
    """The gradient's operator, likewise; `Call.beyond_operators` sends second derivatives elsewhere."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.krause_dynamics.banded_backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("a gradient of banded attention has no further gradient; use impl='reference'")


class _Banded(torch.autograd.Function):
    """The operator for gradients of `torch.func`, which take no operator that differentiates itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.krause_dynamics.banded(*arguments)

    setup_context = staticmethod(_keep_banded)
    backward = staticmethod(_differentiate_banded)


def banded(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) of a call; dropout draws its seed from torch's generator."""
    q, scale, pair, mass = call.q, call.coefficients(), call.pair_bias, call.log_mass
    if pair is not None:
        pair = pair.expand(*q.shape[:3], call.k.shape[2])
    if mass is not None:
        mass = mass.expand(q.shape[0], mass.shape[1], call.k.shape[2])
    seed = torch.randint(1 << 31, (1,), device="cpu") if call.dropout > 0 else None
    transformed = call.is_transformed
    save = call.is_tracked or transformed
    if q.shape[2] == 1 and not save and not torch.compiler.is_compiling():
        # One-token decoding: the operator's bookkeeping would cost more than the work.
        drawn = 0 if seed is None else int(seed)
        return engine.forward(call._replace(scale=scale, pair_bias=pair, log_mass=mass, seed=drawn), save=False)[:2]
    operator = _Banded.apply if transformed else torch.ops.krause_dynamics.banded
    out, log_partition, _ = operator(
        q, call.k, call.v, scale, mass, pair, call.segments, seed, call.reach.numbers, call.distance, call.ranked,
        call.offset, call.dropout, save,
    )  # fmt: skip
    return out, log_partition


@torch.library.custom_op("krause_dynamics::kernels", mutates_args=())
def _kernels(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    scale: Tensor,
    log_mass: Tensor | None,
    numbers: Sequence[int],
    distance: bool,
    offset: int,
    kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rest = (Reach.from_numbers(numbers), distance, offset, kv_heads)
    out, log_partition, bias, selected = steps.forward_recorded(q, k, v, scale, log_mass, rest)
    return out, log_partition, bias if distance and bias is not None else scale.new_empty(0), selected


@_kernels.register_fake
def _(
    q: Tensor, k: Tensor | None, v: Tensor | None, scale: Tensor, log_mass: Tensor | None, numbers: Sequence[int],
    distance: bool, offset: int, kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    q, k, _ = steps.parts(q, k, v, kv_heads)
    selected = steps.launch().selected_shape(q.shape, k.shape, reach=Reach.from_numbers(numbers))
    return (
        _token_major(q),
        q.new_empty(q.shape[:3], dtype=torch.float32),
        scale.new_empty((*q.shape[:2], k.shape[2]) if distance else 0),
        q.new_empty(selected, dtype=torch.int32),
    )


def _token_major(x: Tensor) -> Tensor:
    """As the kernels allocate what has tokens."""
    batch, heads, n, d = x.shape
    return x.new_empty(batch, n, heads, d).transpose(1, 2)


@torch.library.custom_op("krause_dynamics::kernels_backward", mutates_args=())
def _kernels_backward(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    numbers: Sequence[int],
    distance: bool,
    offset: int,
    kv_heads: int,
    need_scale: bool,
    need_mass: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rest = (Reach.from_numbers(numbers), distance, offset, kv_heads, 1.0, need_scale, need_mass)
    saved = (q, k, v, scale, bias, out, log_partition, selected)
    nothing = scale.new_empty(0)
    found = steps.backward_recorded(saved, grad_out, grad_log, rest)
    dq, dk, dv, dmass, slopes = (nothing.new_empty(0) if x is None else x for x in found)
    return dq, dk, dv, slopes, dmass


@_kernels_backward.register_fake
def _(
    q: Tensor, k: Any, v: Any, scale: Tensor, bias: Any, out: Any, log: Any, selected: Any, grad_out: Any,
    grad_log: Any, numbers: Any, distance: bool, offset: int, kv_heads: int, need_scale: bool, need_mass: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    heads, n = out.shape[1:3]
    m = n if k is None else k.shape[2]
    slopes = scale.new_empty((q.shape[0], heads, n + m if distance else n) if need_scale else 0)
    dmass = scale.new_empty((q.shape[0], heads, m) if need_mass and bias is not None else 0)
    if k is None:
        return q.new_empty(q.shape), scale.new_empty(0), scale.new_empty(0), slopes, dmass
    return _token_major(q), _token_major(k), _token_major(v), slopes, dmass


def _keep_kernels(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, scale, mass, *ctx.rest = inputs
    out, log_partition, bias, selected = output
    distance = ctx.rest[1]
    ctx.save_for_backward(q, k, v, scale, bias if distance else mass, out, log_partition, selected)
    ctx.mark_non_differentiable(bias, selected)
    ctx.set_materialize_grads(False)


def _differentiate_kernels(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None, *_: Any) -> tuple[Any, ...]:
    saved, needs = ctx.saved_tensors, ctx.needs_input_grad
    dq, dk, dv, slopes, dmass = torch.ops.krause_dynamics.kernels_backward(
        *saved, grad_out, grad_log, *ctx.rest, needs[3], needs[4]
    )
    tokens = (dq, None, None) if saved[1] is None else (dq, dk, dv)
    dscale = steps.scale_gradient(slopes, saved[3]) if needs[3] else None
    return (*tokens, dscale, dmass if needs[4] else None, None, None, None, None)


_kernels.register_autograd(_differentiate_kernels, setup_context=_keep_kernels)


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


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    """Multiply-adds (counted as two) of one product with q and one with v over the pairs that index rules admit."""
    batch, heads, n, dim = q
    return int(2 * batch * heads * n * Reach.from_numbers(numbers).row_length(k[2]) * (dim + v[3]))


def _register_flops(forward: Any, backward: Any, place: int, place_backward: int) -> None:
    """Flops of an operator and its gradient, whose numbers stand at these places after q, k and v.

    A gradient takes the scores again, and the four products of dq, dk, dv and dL/dp: two and a half forward passes.
    """

    def count(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
        return _pair_flops(*_shapes(q, k, v, rest[place + 3 :]), rest[place])

    def count_backward(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
        return 5 * _pair_flops(*_shapes(q, k, v, rest[place_backward + 3 :]), rest[place_backward]) // 2

    register_flop_formula(forward)(count)
    register_flop_formula(backward)(count_backward)


for _operator, _shared in (
    (_banded, (6, 7)),  # cumulative lengths, and the seed of dropout
    (_banded_backward, (6, 7)),
    (_kernels, ()),
    (_kernels_backward, ()),
    (_squared_norms, ()),
    (_centre, ()),
):
    _operator.register_vmap(batched.rule(_operator, _shared))


def _shapes(q: Any, k: Any, v: Any, rest: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Shapes of queries, keys and values, which may be parts of one tensor; `rest` begins with the heads of keys."""
    if k is not None:
        return q, k, v
    batch, n, heads, d = q
    each = (batch, rest[0], n, d)
    return (batch, heads - 2 * rest[0], n, d), each, each


_register_flops(torch.ops.krause_dynamics.banded, torch.ops.krause_dynamics.banded_backward, 5, 9)
_register_flops(torch.ops.krause_dynamics.kernels, torch.ops.krause_dynamics.kernels_backward, 2, 7)

kernels = torch.ops.krause_dynamics.kernels
squared_norms = torch.ops.krause_dynamics.squared_norms
centre = torch.ops.krause_dynamics.centre
