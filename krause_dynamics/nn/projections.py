"""Queries, keys and values of tokens and the way back: four linear layers, three of them in one product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from krause_dynamics._arguments import FLAG, Whole
from krause_dynamics.forms.attention.call import split_heads
from krause_dynamics.nn.parts import Rotary, is_untouched

SIZE = Whole(1, 1 << 20)  # of a layer: a square matrix of that side is 4 TB


class Projections(nn.Module):
    """Tokens (batch, n, dim) to heads (batch, heads, n, head_dim) and back; arguments as in `KrauseAttention`."""

    def __init__(
        self, dim: int, heads: int, kv_heads: int, bias: bool, rotary: float | None, project_scale: float
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("heads", heads), ("kv_heads", kv_heads)):
            SIZE.read(name, size)
        FLAG.read("bias", bias)
        if dim % heads or heads % kv_heads:
            raise ValueError(f"heads must divide dim and kv_heads must divide heads, got {dim=}, {heads=}, {kv_heads=}")
        if not 0.0 < project_scale < math.inf:
            raise ValueError(f"project_scale must be positive, got {project_scale!r}")
        self.dim, self.heads, self.kv_heads, self.head_dim = dim, heads, kv_heads, dim // heads
        self.project_scale = project_scale
        self.q_proj = nn.Linear(dim, dim, bias)
        self.k_proj = nn.Linear(dim, kv_heads * self.head_dim, bias)
        self.v_proj = nn.Linear(dim, kv_heads * self.head_dim, bias)
        self.out_proj = nn.Linear(dim, dim, bias)
        self.rotary = None if rotary is None else Rotary(self.head_dim, rotary)

    def projected(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries (b, h, n, d), keys and values (b, h_kv, n, d) of tokens x (b, n, dim), rotated where asked.

        Beside them the tensor (b, n, h + 2 h_kv, d) of which the three are parts, or ``None``.
        """
        layers = (self.q_proj, self.k_proj, self.v_proj)
        joint = projected_together(x, layers)
        if joint is None:
            q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for layer in layers)
        else:
            joint = joint.unflatten(-1, (-1, self.head_dim))
            q, k, v = split_heads(joint, self.kv_heads)
        if self.rotary is not None:
            positions = torch.arange(x.shape[1], device=x.device) if positions is None else positions
            q, k, joint = self.rotary(q, positions), self.rotary(k, positions), None
        if self.project_scale != 1.0:
            q, k, joint = q * self.project_scale, k * self.project_scale, None
        return q, k, v, joint

    def project_back(self, out: Tensor) -> Tensor:
        """Tokens (b, n, dim) of heads (b, h, n, d)."""
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return result


def projected_together(x: Tensor, layers: Sequence[Any]) -> Tensor | None:
    """Outputs of linear layers that meet the same tokens, side by side in the last axis, in one product; or ``None``.

    Of nine products of a training step three are left, and tokens are cast once. Without gradients the layers are
    called one by one: a step of generation reads each weight once, and joining the weights would double that. So are
    layers that are no longer plain: replaced (peft, quantisation), parametrised, sharded, or looked at by hooks.
    """
    if not torch.is_grad_enabled() or not all(_is_plain(layer) for layer in layers):
        return None
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    kinds = {(weight.dtype, bias is None) for weight, bias in zip(weights, biases, strict=True)}
    if len(kinds) > 1:
        return None
    joined = _Joined.apply if _on_the_host(x, weights[0]) else _joined
    result: Tensor = joined(x, len(weights), *weights, *(biases if biases[0] is not None else ()))
    return result


def _joined(x: Tensor, number: int, *parts: Tensor) -> Tensor:
    """One linear map by weights (the first ``number`` of the parts) and biases, where there are any, side by side."""
    weights, biases = parts[:number], parts[number:]
    return functional.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)


class _Joined(torch.autograd.Function):
    """`_joined` whose backward pass joins the weights again: copies of all layers' weights, held until then, are memory
    (21 MB in a KViT-S) that a host may have to hand out page by page at every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, number: int, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parts[:number])
        ctx.has_bias = len(parts) > number
        return _joined(x, number, *parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        rows, none = grad.flatten(0, -2), (None,) * len(weights)
        sizes, needed = [len(weight) for weight in weights], ctx.needs_input_grad[2:]
        to_x = (rows @ torch.cat(weights)).view(x.shape) if ctx.needs_input_grad[0] else None
        to_weights = (rows.t() @ x.flatten(0, -2)).split(sizes) if any(needed[: len(weights)]) else none
        to_biases = rows.sum(0).split(sizes) if any(needed[len(weights) :]) else none
        return to_x, None, *to_weights, *(to_biases if ctx.has_bias else ())


def _on_the_host(x: Tensor, weight: Tensor) -> bool:
    """Whether an operation of our own may stand in autograd's graph: on a CPU, with nobody else looking on."""
    if x.device.type != "cpu" or x.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
        return False
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not traced and torch._C._functorch.maybe_current_level() is None and forward_ad._current_level < 0


def _is_plain(layer: Any) -> bool:
    """Whether calling a layer is one product with its weight."""
    if type(layer) is not nn.Linear or type(layer._parameters.get("weight")) not in (Tensor, nn.Parameter):
        return False
    return is_untouched(layer)
