"""One forward and one backward pass of the Triton kernels, as eager calls take them.

An operator of torch costs its callers some hundred microseconds of bookkeeping in Python, more than a short sequence
takes to compute. Where nobody needs the operator these functions are called instead; the host's share of them is
recorded and repeated (`triton.replay`), so that what they are given beside tensors is hashable.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from krause_dynamics.forms.attention import listed
from krause_dynamics.forms.attention.call import Call, parts
from krause_dynamics.interaction.reach import Reach


@lru_cache(maxsize=1)
def launch() -> Any:
    """The border of the kernels; importing it needs Triton."""
    return importlib.import_module("krause_dynamics.forms.attention.triton.launch")


@lru_cache(maxsize=1)
def terms() -> Any:
    """Terms of one token."""
    return importlib.import_module("krause_dynamics.forms.attention.triton.terms")


@lru_cache(maxsize=1)
def _recorded() -> Any:
    return importlib.import_module("krause_dynamics.forms.attention.triton.replay").recorded


def forward(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    scale: Tensor | None,
    mass: Tensor | None,
    table: Tensor | None,
    reach: Reach,
    distance: bool,
    offset: int,
    kv_heads: int,
    number: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Output, log-partition without the query's term, key bias (b, h, m), selected set.

    Args:
        q: (b, h, n, d); or queries, keys and values as one tensor (b, n, h + 2 h_kv, d), where there is no k.
        k: (b, h_kv, m, d), or ``None``.
        v: As k.
        scale: (b or 1, h or 1) float32, or ``None`` for ``number``.
        mass: (b, h, m) float32, or ``None``.
        table: Bits of the random keys of every row, `listed.bits`, or ``None``.
        reach: Index rules and rank.
        distance: Whether the key bias -a/2 |k|^2 joins the masses.
        offset: Position of the first query among the keys.
        kv_heads: h_kv.
        number: The coefficient a where it is no tensor.
    """
    q, k, v = parts(q, k, v, kv_heads)
    a = number if scale is None else scale
    bias = terms().key_bias(k, a, mass, q.shape[1]) if distance else mass
    out, log_partition, selected = launch().forward(
        q, k, v, scale=a, key_bias=bias, reach=reach, query_offset=offset, listed=table
    )  # fmt: skip
    return out, log_partition, bias, selected


def backward(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    reach: Reach,
    distance: bool,
    offset: int,
    kv_heads: int,
    number: float = 1.0,
    need_scale: bool = True,
    need_mass: bool = True,
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k and v as given, and of the masses (b, h, m); and what `scale_gradient` sums."""
    joint, a = k is None, number if scale is None else scale
    q, k, v = parts(q, k, v, kv_heads)
    result: tuple[Tensor | None, ...] = launch().backward(
        torch.zeros_like(out) if grad_out is None else grad_out, q, k, v, out, log_partition, selected, scale=a,
        key_bias=bias, reach=reach, query_offset=offset, grad_log_partition=grad_log, need_scale=need_scale,
        need_key_bias=need_mass, distance=distance, joint=joint,
    )  # fmt: skip
    return result


def scale_gradient(slopes: Tensor, scale: Tensor) -> Tensor:
    """Gradient of a scale (b or 1, h or 1) from the shares of queries and keys (b, h, tokens), in one sum."""
    shared = [axis for axis in (0, 1) if scale.shape[axis] == 1]
    return slopes.sum([*shared, 2], keepdim=True)[..., 0]


def alone(call: Call) -> bool:
    """Whether nobody looks on (compiler, tracer, flop counter, tensor subclass), so that no operator is needed."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or call.is_transformed:
        return False
    return all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in call.tensors)


def _given(call: Call) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Tensors of a call and the rest, as the passes take them."""
    number = 1.0 if isinstance(call.scale, Tensor) else float(call.scale)
    return (*call.tokens, *call.tensors[3:5]), (call.reach, call.distance, call.offset, call.k.shape[1], number)


def attend(call: Call, *, tracked: bool) -> tuple[Tensor, Tensor]:
    """Output and log-partition without the query's term; masses are (b, h, m)."""
    tensors, rest = _given(call)
    if tracked:
        result: tuple[Tensor, Tensor] = _Attend.apply(*tensors, rest)
        return result
    q, k, v, scale, mass = tensors
    out, log_partition, *_ = forward_recorded(q, k, v, scale, mass, rest)
    return out, log_partition


def decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor | None,
    mass: Tensor | None,
    reach: Reach,
    distance: bool,
    offset: int,
    kv_heads: int,
    number: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Output and log-partition without the query's term of one query, which hears all keys given."""
    a = number if scale is None else scale
    bias = terms().key_bias(k, a, mass, q.shape[1]) if distance else mass
    result: tuple[Tensor, Tensor] = launch().decode(
        q, k, v, scale=a, key_bias=bias, top_k=reach.top_k, keep_ties=reach.keep_ties
    )
    return result


def attend_once(call: Call) -> tuple[Tensor, Tensor]:
    """As `attend` for one query and the keys that it hears, few enough for one program; not differentiable."""
    out, log_partition = _recorded()(decode, *_given(call._replace(joint=None)))
    return out, log_partition


def forward_recorded(
    q: Tensor, k: Tensor | None, v: Tensor | None, scale: Tensor | None, mass: Tensor | None, rest: tuple[Any, ...]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """`forward`, its launches repeated from a record."""
    tensors = (q, k, v, scale, mass, _listed(q, k, *rest[:3]) if rest[0].random else None)
    result: tuple[Tensor, Tensor, Tensor | None, Tensor] = _recorded()(forward, tensors, rest)
    return result


def _listed(q: Tensor, k: Tensor | None, reach: Reach, _: bool, offset: int) -> Tensor:
    """Random keys of every row, where k or, without one, all three are given as one tensor."""
    n, m = (q.shape[1], q.shape[1]) if k is None else (q.shape[2], k.shape[2])
    return listed.bits(reach.random, offset, n, m, q.device)


def backward_recorded(
    saved: tuple[Tensor | None, ...], grad_out: Tensor | None, grad_log: Tensor | None, rest: tuple[Any, ...]
) -> tuple[Tensor | None, ...]:
    """`backward`, its launches repeated from a record.

    Gradients of sums are one number seen many times; a copy made here does not keep the rest from being repeated.
    """
    if grad_out is not None and grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    tensors = (*saved, grad_out, None if grad_log is None else grad_log.contiguous())
    result: tuple[Tensor | None, ...] = _recorded()(backward, tensors, rest)
    return result


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: Any, mass: Any, rest: Any) -> tuple[Tensor, Tensor]:
        out, log_partition, bias, selected = forward_recorded(q, k, v, scale, mass, rest)
        ctx.rest = rest
        ctx.save_for_backward(q, k, v, scale, bias, out, log_partition, selected)
        ctx.set_materialize_grads(False)
        return out, log_partition

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        saved = ctx.saved_tensors
        dq, dk, dv, dmass, slopes = backward_recorded(saved, grad_out, grad_log, (*ctx.rest, *needs[3:5]))
        dscale = None if slopes is None else scale_gradient(slopes, saved[3])
        return dq, dk, dv, dscale, dmass, None
