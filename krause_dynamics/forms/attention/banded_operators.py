"""Banded attention as operators of torch, for every device: compiler, flop counters, DDP, checkpointing see one step.

Shapes of results follow from shapes of arguments alone, so that a new length needs no recompilation. An operator
returns tensors of its own: an empty one stands for "no such thing".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention import batched, engine, flops
from krause_dynamics.forms.attention.call import Call, empty_by_tokens, selection_bytes
from krause_dynamics.forms.attention.packed import Packed, schema
from krause_dynamics.interaction.reach import Reach


@torch.library.custom_op("krause_dynamics::banded", mutates_args=(), schema=schema(Packed, 3, save=bool))
def _banded(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *packed, save = arguments
    return engine.forward(Packed(*packed).call(), save=save)


@_banded.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *packed, save = arguments
    given = Packed(*packed)
    (q, k, v), reach = given.parts(), Reach.from_numbers(given.numbers)
    batch, heads, n, _ = q.shape
    shape: tuple[Any, ...] = (0,)
    if q.device.type == "cpu":
        wide, wide_bytes, row_bytes = selection_bytes(reach, n, k.shape[2], given.offset)
        shape = batch * heads, wide * wide_bytes + (n - wide) * row_bytes if save and reach.top_k else 0
    return (
        empty_by_tokens(q, v.shape[3]),
        given.scale.new_empty(batch, heads, n),
        torch.empty(shape, dtype=torch.uint8, device=q.device),
    )


@torch.library.custom_op(
    "krause_dynamics::banded_backward",
    mutates_args=(),
    schema=schema(Packed, 6, log_partition=Tensor, selection=Tensor, grad_out=Tensor, grad_log=Tensor),
)
def _banded_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    *packed, log_partition, selection, grad_out, grad_log = arguments
    given = Packed(*packed)
    grads = engine.backward(given.call(), log_partition, selection, grad_out, grad_log)
    mass, pair = (
        given.scale.new_empty(0) if x is None or grad is None else grad.sum_to_size(x.shape).to(x.dtype)
        for x, grad in ((given.log_mass, grads.log_mass), (given.pair_bias, grads.pair_bias))
    )
    k, v = (given.scale.new_empty(0) if x is None else x for x in (grads.k, grads.v))
    return grads.q, k, v, grads.scale, mass, pair


@_banded_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    q, k, v, scale, mass, pair = arguments[:6]
    nothing = scale.new_empty(0)
    optional = (nothing.new_empty(0) if x is None else x.new_empty(x.shape) for x in (mass, pair))
    if k is None:
        tokens = q.new_empty(q.shape), nothing.new_empty(0), nothing
    else:
        tokens = empty_by_tokens(q), empty_by_tokens(k), empty_by_tokens(v)
    return (*tokens, scale.new_empty(scale.shape), *optional)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    tensors, ctx.rest = inputs[:9], inputs[9:-1]
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(output[2])


def _differentiate(ctx: Any, grad_out: Tensor, grad_log: Tensor, _: Any) -> tuple[Any, ...]:
    *tensors, log_partition, selection = ctx.saved_tensors
    transformed = torch._C._functorch.maybe_current_level() is not None
    grads = (_BandedBackward.apply if transformed else torch.ops.krause_dynamics.banded_backward)(
        *tensors, *ctx.rest, log_partition, selection, grad_out, grad_log
    )
    optional = [None if x is None else g for x, g in zip(tensors[4:6], grads[4:], strict=True)]
    tokens = grads[:3] if tensors[1] is not None else (grads[0], None, None)
    return (*tokens, grads[3], *optional, *(None,) * 10)


_banded.register_autograd(_differentiate, setup_context=_keep)
for _operator in (_banded, _banded_backward):
    _operator.register_vmap(batched.rule(_operator, shared=(6, 7)))  # cumulative lengths, and the seed of dropout
_NUMBERS = Packed._fields.index("numbers") - 3  # place of the reach behind queries, keys and values
flops.register(torch.ops.krause_dynamics.banded, torch.ops.krause_dynamics.banded_backward, _NUMBERS, _NUMBERS)


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

    setup_context = staticmethod(_keep)
    backward = staticmethod(_differentiate)


def banded(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) of a call; dropout draws its seed from torch's generator."""
    q, pair, mass = call.q, call.pair_bias, call.log_mass
    if pair is not None:
        pair = pair.expand(*q.shape[:3], call.k.shape[2])
    if mass is not None:
        mass = mass.expand(q.shape[0], mass.shape[1], call.k.shape[2])
    beside = None if call.beside is None else call.beside.expand(q.shape[0], -1, -1)
    seed = torch.randint(1 << 31, (1,), device="cpu") if call.dropout > 0 else None
    packed = Packed.of(call._replace(pair_bias=pair, log_mass=mass, beside=beside), seed)
    transformed = call.is_transformed
    save = call.is_tracked or transformed
    if q.shape[2] == 1 and not save and not torch.compiler.is_compiling():
        # One-token decoding: the operator's bookkeeping would cost more than the work.
        return engine.forward(packed.call(), save=False)[:2]
    operator = _Banded.apply if transformed else torch.ops.krause_dynamics.banded
    out, log_partition, _ = operator(*packed, save)
    return out, log_partition
