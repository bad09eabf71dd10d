"""Banded attention as torch operators, so that torch.compile, flop counters, DDP and checkpointing see one step.

Shapes of results follow from shapes of arguments alone: a new length needs no recompilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from krause_dynamics.forms.attention import banded as implementation
from krause_dynamics.forms.attention.banded import Call, Options
from krause_dynamics.forms.attention.lowering import Lowered, Rule


def _options(numbers: Sequence[int], distance: bool, offset: int, dropout: float, seed: Tensor | None) -> Options:
    left, right, top_k, keep_ties, *grid = numbers
    rule = Rule(left, right, tuple(grid), top_k, bool(keep_ties))
    return Options(rule, distance, offset, dropout, 0 if seed is None else int(seed))


def _numbers(rule: Rule) -> list[int]:
    return [rule.left, rule.right, rule.top_k, int(rule.keep_ties), *rule.grid]


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
    offset: int,
    dropout: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(q, k, v, scale, log_mass, pair_bias, segments)
    return implementation.forward(call, _options(numbers, distance, offset, dropout, seed), save=save)


@_banded.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, log_mass: Any, pair_bias: Any, segments: Any, seed: Any,
    numbers: Sequence[int], distance: bool, offset: int, dropout: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, heads, n, _), m = q.shape, k.shape[2]
    left, right, top_k, keep_ties, *grid = numbers
    shape: tuple[Any, ...] = (0,)
    if q.device.type == "cpu":
        width: Any = 0
        if save and top_k:
            rule = Rule(left, right, tuple(grid), top_k, bool(keep_ties))
            wide, wide_bytes, row_bytes = implementation.selection_bytes(rule, n, m, offset)
            width = wide * wide_bytes + (n - wide) * row_bytes
        shape = (batch * heads, width)
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
    offset: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    call = Call(q, k, v, scale, log_mass, pair_bias, segments)
    options = _options(numbers, distance, offset, dropout, seed)
    grads = implementation.backward(call, options, log_partition, selection, grad_out, grad_log)
    # An operator returns tensors: an empty one stands for "no such argument".
    mass, pair = (
        scale.new_empty(0) if given is None or grad is None else grad.sum_to_size(given.shape).to(given.dtype)
        for given, grad in ((log_mass, grads.log_mass), (pair_bias, grads.pair_bias))
    )
    return grads.q, grads.k, grads.v, grads.scale, mass, pair


@_banded_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, log_mass: Any, pair_bias: Any, segments: Any, seed: Any,
    log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor, numbers: Sequence[int],
    distance: bool, offset: int, dropout: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    optional = (scale.new_empty(0) if x is None else x.new_empty(x.shape) for x in (log_mass, pair_bias))
    return (*(x.new_empty(x.shape) for x in (q, k, v, scale)), *optional)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    tensors, ctx.rest = inputs[:8], inputs[8:12]
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, grad_out: Tensor, grad_log: Tensor, _: Any) -> tuple[Any, ...]:
    *tensors, log_partition, selection = ctx.saved_tensors
    grads = torch.ops.krause_dynamics.banded_backward(
        *tensors, log_partition, selection, grad_out.contiguous(), grad_log.contiguous(), *ctx.rest
    )
    optional = [None if x is None else g for x, g in zip(tensors[4:6], grads[4:], strict=True)]
    return (*grads[:4], *optional, *(None,) * 7)


_banded.register_autograd(_gradient, setup_context=_setup)


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    """Multiply-adds (counted as two) of one product with q and one with v over the pairs that index rules admit."""
    left, right, top_k, keep_ties, *grid = numbers
    batch, heads, n, dim = q
    length = Rule(left, right, tuple(grid), top_k, bool(keep_ties)).row_length(k[2])
    return int(2 * batch * heads * n * length * (dim + v[3]))


@register_flop_formula(torch.ops.krause_dynamics.banded)
def _forward_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    return _pair_flops(q, k, v, rest[5])


@register_flop_formula(torch.ops.krause_dynamics.banded_backward)
def _backward_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    # Scores again, and the four products of dq, dk, dv and dL/dp: two and a half times the forward pass.
    return 5 * _pair_flops(q, k, v, rest[9]) // 2


def banded(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered, *, seed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) of a lowered call.

    Args:
        q: Queries (b, h, n, d).
        k: Keys (b, h_kv, m, d).
        v: Values (b, h_kv, m, d_v).
        lowered: The rule, see `Lowered`.
        seed: Whole number of dropout, a tensor of one element; drawn from torch's generator when missing.
    """
    scale = lowered.coefficients(q)
    pair = None if lowered.pair_bias is None else lowered.pair_bias.expand(*q.shape[:3], k.shape[2])
    mass = lowered.log_mass
    if mass is not None:
        mass = mass.expand(q.shape[0], mass.shape[1], k.shape[2])
    if lowered.dropout > 0 and seed is None:
        seed = torch.randint(1 << 31, (1,), device="cpu")
    tensors = (q, k, v, scale, mass, pair, lowered.segments)
    if q.shape[2] == 1 and not torch.compiler.is_compiling() and not _tracked(tensors):
        # One-token decoding: the operator's bookkeeping would cost more than the work.
        options = Options(lowered.rule, lowered.distance, lowered.query_offset, lowered.dropout, int(seed or 0))
        return implementation.forward(Call(*tensors), options, save=False)[:2]
    out, log_partition, _ = torch.ops.krause_dynamics.banded(
        *tensors, seed, _numbers(lowered.rule), lowered.distance, lowered.query_offset, lowered.dropout,
        _tracked(tensors),
    )  # fmt: skip
    return out, log_partition


def _tracked(tensors: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
