"""A plain layer on a GPU as one step of autograd: projections, attention and the way back.

Short sequences wait for the host, whose time goes with the number of operations and of autograd's nodes: a layer by its
parts has some twenty of these, here one. It computes what the parts compute: weights and biases are cast and joined by
one copy, products and kernels are the same, gradients of biases are summed in their own dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from krause_dynamics.aggregate import calls
from krause_dynamics.forms.attention import kernel_steps
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.attention import WATCHERS
from krause_dynamics.nn.parts import LogSigma, is_untouched
from krause_dynamics.nn.projections import is_plain

HALF = (torch.bfloat16, torch.float16)  # float32 tokens are moved before a distance is taken


class _Rule(NamedTuple):
    """What a step needs beside tensors: hashable, as recorded calls ask."""

    reach: Reach
    distance: bool
    heads: int
    kv_heads: int
    dtype: torch.dtype

    @property
    def rest(self) -> tuple[Any, ...]:
        """As `kernel_steps.forward` takes it."""
        return self.reach, self.distance, 0, self.kv_heads, 1.0


def attend(layer: Any, x: Tensor, *besides: Any) -> Tensor | None:
    """Tokens (b, n, dim) of tokens without padding, biases or a cache; ``None`` where the parts must be called.

    Args:
        layer: A `KrauseAttention`; its parts are called where one of them is not plain (peft, hooks, rotary positions,
            a sink, norms), where somebody looks on (compiler, transforms, recordings), or where another form than the
            kernels would answer.
        x: Tokens (b, n, dim).
        *besides: What else a pass is given or asked for, each ``None`` where it is not.
    """
    if any(value is not None for value in besides):
        return None
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or WATCHERS or forward_ad._current_level >= 0:
        return None
    given = layer.rotary, layer.key_norm, layer.sink
    if given != (None, None, None) or layer.project_scale != 1.0 or (layer.dropout and layer.training):
        return None
    linears = layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj
    if not all(is_plain(part) for part in linears):
        return None
    if type(layer.log_sigma) is not LogSigma or not is_untouched(layer.log_sigma):
        return None
    # From where modules keep them: asking a module by name takes longer than half of these checks.
    weights, biases = ([part._parameters[name] for part in linears] for name in ("weight", "bias"))
    log_sigma = layer.log_sigma.weight
    kind = x.device.type
    cast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if cast else x.dtype
    if not kernel_steps.unwatched() or not _fit(x, log_sigma, weights, biases, dtype, cast):
        return None
    rule = _Rule(layer._reach, layer.score == "gaussian", layer.heads, layer.kv_heads, dtype)
    if not _served(rule, layer.impl, x.shape, x.device):
        return None
    result: Tensor = _Step.apply(x, log_sigma, *weights, *biases, rule)
    return result


def _fit(
    x: Tensor,
    log_sigma: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    dtype: torch.dtype,
    cast: bool,
) -> bool:
    """Whether all are plain tensors whose dtypes products would take, and a bias stands beside all weights or none."""
    kind, missing = weights[0].dtype, biases[0] is None
    if dtype not in HALF or type(x) is not Tensor or type(log_sigma) not in (Tensor, torch.nn.Parameter):
        return False
    if torch.float64 in (kind, x.dtype) or not (cast or kind == x.dtype):
        return False
    return all(w.dtype == kind for w in weights) and all((b is None) == missing for b in biases)


@lru_cache(maxsize=256)
def _served(rule: _Rule, impl: str, shape: torch.Size, device: torch.device) -> bool:
    """Whether the kernels answer such tokens in one pass; checked as any call is, and once for a shape.

    Raises:
        ValueError: A grid that has not so many tokens, or another shape that does not fit.
    """
    batch, n, dim = shape
    if 0 in shape or rule.reach.exempt or rule.reach.first:
        return False
    like = torch.empty(1, dtype=rule.dtype, device=device)
    q, k = (like.expand(batch, heads, n, dim // rule.heads) for heads in (rule.heads, rule.kv_heads))
    with torch.autocast(device.type, enabled=False):
        call = call_of(q, k, k, rule.reach, score="gaussian" if rule.distance else "dot")
    return calls.choose(call, impl).impl == "triton"


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_sigma: Tensor, *rest: Any) -> Tensor:
        *parameters, rule = rest
        (batch, n, dim), dtype = x.shape, rule.dtype
        joined, back, joined_bias, back_bias = _joined(parameters[:4], parameters[4:], dtype)
        tokens = x.reshape(-1, dim).to(dtype)
        joint = _product(tokens, joined, joined_bias).view(batch, n, -1, dim // rule.heads)
        scale = (log_sigma * -2.0).exp_().float().view(1, -1)
        out, log_partition, bias, selected = kernel_steps.forward_recorded(joint, None, None, scale, None, rule.rest)
        ctx.rule, ctx.kinds = rule, (x.dtype, log_sigma.dtype, parameters[0].dtype, [len(w) for w in parameters[:3]])
        ctx.save_for_backward(tokens, joined, back, joint, scale, bias, out, log_partition, selected)
        return _product(out.transpose(1, 2).reshape(-1, dim), back, back_bias).view(batch, n, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, joined, back, joint, scale, bias, out, log_partition, selected = ctx.saved_tensors
        needs, (kind, log_kind, weight_kind, sizes), dim = ctx.needs_input_grad, ctx.kinds, tokens.shape[1]
        grad = grad.reshape(-1, dim)
        heard = out.transpose(1, 2)
        saved = joint, None, None, scale, bias, out, log_partition, selected
        djoint, _, _, _, slopes = kernel_steps.backward_recorded(
            saved, (grad @ back).view(heard.shape).transpose(1, 2), None, (*ctx.rule.rest, needs[1], False)
        )
        assert djoint is not None
        djoint = djoint.view(-1, len(joined))
        dx = (djoint @ joined).view(*joint.shape[:2], dim).to(kind) if needs[0] else None
        dlog = None if slopes is None else (kernel_steps.scale_gradient(slopes, scale) * scale).mul_(-2.0).view(-1)
        dlog = None if dlog is None else dlog.to(log_kind)
        dweights: Sequence[Tensor | None] = (None,) * 4
        if any(needs[2:6]):
            products = [djoint.t() @ tokens, grad.t() @ heard.reshape(-1, dim)]
            if weight_kind != joint.dtype:
                cast = [torch.empty_like(p, dtype=weight_kind) for p in products]
                torch._foreach_copy_(cast, products)
                products = cast
            dweights = *products[0].split(sizes), products[1]
        dbiases: Sequence[Tensor | None] = (None,) * 4
        if any(needs[6:10]):
            dbiases = *djoint.sum(0, dtype=weight_kind).split(sizes), grad.sum(0, dtype=weight_kind)
        return dx, dlog, *dweights, *dbiases, None


def _joined(
    weights: list[Tensor], biases: list[Tensor | None], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Weights of q, k and v as one matrix, that of the way back, and their biases, cast by one copy."""
    sizes, like, given = [len(w) for w in weights], weights[0], [b for b in biases if b is not None]
    whole = torch.empty((sum(sizes), like.shape[1]), dtype=dtype, device=like.device)
    to = list(whole.split(sizes))
    if not given:
        torch._foreach_copy_(to, weights)
        return whole[: -sizes[3]], to[3], None, None
    flat = torch.empty(sum(sizes), dtype=dtype, device=like.device)
    torch._foreach_copy_([*to, *flat.split(sizes)], [*weights, *given])
    return whole[: -sizes[3]], to[3], flat[: -sizes[3]], flat[-sizes[3] :]


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As a linear layer computes it."""
    return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
