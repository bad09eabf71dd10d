"""One forward and one backward pass of the Triton kernels, as eager calls take them.

An operator of torch costs its callers some hundred microseconds of bookkeeping in Python, more than a short sequence
takes to compute. Where nobody needs the operator these functions are called instead; the host's share of them is
recorded and repeated (`triton.replay`).
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from krause_dynamics.forms.attention.lowering import UNBOUNDED


class Options(NamedTuple):
    """What a pass needs to know beside its tensors.

    Attributes:
        distance: Whether the key bias -a/2 |k|^2 joins the masses.
        numbers: The fields of a `Rule`, the grid's last.
        offset: Position of the first query among the keys.
        number: The coefficient a where it is no tensor.
    """

    distance: bool
    numbers: tuple[int, ...]
    offset: int
    number: float = 1.0


@lru_cache(maxsize=1)
def launch() -> Any:
    """The border of the kernels; importing it needs Triton."""
    return importlib.import_module("krause_dynamics.forms.attention.triton.launch")


@lru_cache(maxsize=1)
def terms() -> Any:
    """Terms of one token."""
    return importlib.import_module("krause_dynamics.forms.attention.triton.terms")


@lru_cache(maxsize=1)
def _planned() -> Any:
    return importlib.import_module("krause_dynamics.forms.attention.triton.replay").planned


@lru_cache(maxsize=256)
def launch_arguments(left: int, right: int, top_k: int, keep_ties: int, *grid: int) -> dict[str, Any]:
    """Keyword arguments of the launch functions for the fields of a `Rule`."""
    return {
        "left": None if grid or left == UNBOUNDED else left,
        "right": None if grid or right == UNBOUNDED else right,
        "top_k": top_k or None,
        "ties": "keep" if keep_ties else "index",
        "grid": (*grid[:3], "manhattan" if grid[3] else "chebyshev") if grid else None,
        "prefix": grid[4] if grid else 0,
    }


def forward(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor | None, mass: Tensor | None, options: Options
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Output, log-partition without the query's term, key bias (b, h, m), selected set.

    Args:
        q: (b, h, n, d).
        k: (b, h_kv, m, d).
        v: As k.
        scale: (b, h) float32, or ``None`` for ``options.number``.
        mass: (b, h, m) float32, or ``None``.
        options: The rest.
    """
    a = options.number if scale is None else scale
    bias = terms().key_bias(k, a, mass, q.shape[1]) if options.distance else mass
    out, log_partition, selected = launch().forward(
        q, k, v, scale=a, key_bias=bias, query_offset=options.offset, **launch_arguments(*options.numbers)
    )
    return out, log_partition, bias, selected


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    log_partition: Tensor,
    selected: Tensor,
    grad_out: Tensor | None,
    grad_log: Tensor | None,
    options: Options,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of q, k, v and the masses (b, h, m); and what sums over tokens to the gradient of the scale."""
    a = options.number if scale is None else scale
    dq, dk, dv, dbias, rows = launch().backward(
        torch.zeros_like(out) if grad_out is None else grad_out, q, k, v, out, log_partition, selected, scale=a,
        key_bias=bias, query_offset=options.offset, grad_log_partition=grad_log, need_scale=need_scale,
        **launch_arguments(*options.numbers),
    )  # fmt: skip
    parts = terms().add_key_gradient(dk, dbias, k, a, need_scale=need_scale) if options.distance else None
    return dq, dk, dv, dbias, rows, parts


def scale_gradient(rows: Tensor, parts: Tensor | None) -> Tensor:
    """(b, h) from the shares of queries and of keys."""
    return rows.sum(-1) if parts is None else rows.sum(-1) + parts.sum(-1)


def alone(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether nobody looks on (compiler, tracer, flop counter, tensor subclass), so that no operator is needed."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in tensors)


def attend(tensors: tuple[Tensor | None, ...], options: Options, *, tracked: bool) -> tuple[Tensor, Tensor]:
    """Output and log-partition without the query's term of (q, k, v, scale, mass), differentiable where tracked."""
    if tracked:
        result: tuple[Tensor, Tensor] = _Attend.apply(*tensors, options)
        return result
    out, log_partition, *_ = _planned()(forward, tensors, (options,))
    return out, log_partition


def decode(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor | None, mass: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Output and log-partition without the query's term of one query, which hears all keys given."""
    a = options.number if scale is None else scale
    bias = terms().key_bias(k, a, mass, q.shape[1]) if options.distance else mass
    chosen = launch_arguments(*options.numbers)
    result: tuple[Tensor, Tensor] = launch().decode(
        q, k, v, scale=a, key_bias=bias, top_k=chosen["top_k"], ties=chosen["ties"]
    )
    return result


def attend_once(tensors: tuple[Tensor | None, ...], options: Options) -> tuple[Tensor, Tensor]:
    """As `attend` for one query and the keys that it hears, few enough for one program; not differentiable."""
    out, log_partition = _planned()(decode, tensors, (options,))
    return out, log_partition


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: Any, mass: Any, options: Any
    ) -> tuple[Tensor, Tensor]:
        out, log_partition, bias, selected = _planned()(forward, (q, k, v, scale, mass), (options,))
        ctx.options = options
        ctx.save_for_backward(q, k, v, scale, bias, out, log_partition, selected)
        ctx.set_materialize_grads(False)
        return out, log_partition

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_log: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        # Gradients of sums are one number seen many times; a copy made here does not keep the rest from being repeated.
        if grad_out is not None and grad_out.stride(-1) != 1:
            grad_out = grad_out.contiguous()
        tensors = (*ctx.saved_tensors, grad_out, None if grad_log is None else grad_log.contiguous())
        dq, dk, dv, dmass, rows, parts = _planned()(backward, tensors, (ctx.options, needs[3]))
        return dq, dk, dv, scale_gradient(rows, parts) if needs[3] else None, dmass if needs[4] else None, None
