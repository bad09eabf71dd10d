"""What the arguments of `krause_attention` must be; messages name argument, expectation, value and the way out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._array import may_look
from krause_dynamics.forms.attention.call import DTYPES
from krause_dynamics.interaction.reach import Reach


def check_tokens(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Queries, keys and values fit one another.

    Raises:
        TypeError: Not floating torch tensors of one dtype on one device.
        ValueError: Shapes that do not fit.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}; kd.aggregate takes numpy arrays")
        if x.ndim != 4:
            raise ValueError(f"{name} must have shape (batch, heads, tokens, dim), got {tuple(x.shape)}")
        if x.dtype != q.dtype or x.device != q.device:
            raise TypeError(
                f"q and {name} must share dtype and device, got {q.dtype} on {q.device} and {x.dtype} on {x.device}; "
                f"convert with {name}.to(q)"
            )
    if q.dtype not in DTYPES:
        raise TypeError(f"q, k, v must be float64, float32, bfloat16 or float16, got {q.dtype}; convert them")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "q (b, h, n, d), k (b, h_kv, m, d) and v (b, h_kv, m, d_v) do not fit, got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; batch, d and the number of keys must agree"
        )
    if q.shape[1] < 1 or k.shape[1] < 1 or q.shape[3] < 1:
        raise ValueError(f"heads and dim must be at least 1, got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(
            f"key heads must divide the heads of the queries, got {k.shape[1]} and {q.shape[1]}; repeat the keys"
        )


def check_grid(reach: Reach, n: int, m: int, query_offset: int | None) -> None:
    """A grid holds every token once.

    Raises:
        ValueError: It does not.
    """
    height, width, _, _, prefix = reach.grid
    if m != height * width + prefix or n != m or query_offset:
        raise ValueError(
            f"a Grid of {height} x {width} with prefix={prefix} has {height * width + prefix} tokens, got {n} queries "
            f"and {m} keys with query_offset={query_offset}; pass the grid of this input, whole pictures only"
        )


def check_numbers(dropout: Any, query_offset: Any) -> None:
    """Dropout is a probability and the offset a whole number.

    Raises:
        TypeError, ValueError: They are not.
    """
    if not isinstance(dropout, int | float) or not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    if query_offset is not None and (
        isinstance(query_offset, bool) or not isinstance(query_offset, int | torch.SymInt)
    ):
        raise TypeError(
            f"query_offset must be a whole number, the position of the first query among the keys, got {query_offset!r}"
        )


def check_bias(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Log-weights broadcast to `shape`.

    Raises:
        TypeError: Not a floating tensor.
        ValueError: They do not.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name} holds log-weights and must be a floating tensor, got {kind}; a boolean mask: key_valid, or "
            "torch.where(mask, 0.0, -torch.inf)"
        )
    fits = x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(reversed(x.shape), reversed(shape), strict=False))
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(shape)}, got {tuple(x.shape)}")


def check_valid(key_valid: Any, batch: int, m: int) -> None:
    """Padding is marked per batch element and key.

    Raises:
        TypeError: Not a boolean tensor.
        ValueError: Another shape.
    """
    if not isinstance(key_valid, Tensor) or key_valid.dtype != torch.bool:
        kind = key_valid.dtype if isinstance(key_valid, Tensor) else type(key_valid).__name__
        raise TypeError(f"key_valid must be a boolean tensor, got {kind}; an additive mask is key_bias or pair_bias")
    if tuple(key_valid.shape) not in ((batch, m), (1, m)):
        raise ValueError(
            f"key_valid must have shape (batch, m) = {(batch, m)}, got {tuple(key_valid.shape)}; a mask of pairs is "
            "pair_bias"
        )


def check_segments(cumulative: Any, n: int, m: int, query_offset: int | None) -> None:
    """Packed lengths rise from 0 to the number of tokens; on a GPU their values are not looked at.

    Raises:
        TypeError: Not one-dimensional whole numbers.
        ValueError: Queries that are not the keys, or other ends.
    """
    if not isinstance(cumulative, Tensor) or cumulative.dtype not in (torch.int32, torch.int64) or cumulative.ndim != 1:
        kind = (
            f"{cumulative.dtype} {tuple(cumulative.shape)}"
            if isinstance(cumulative, Tensor)
            else type(cumulative).__name__
        )
        raise TypeError(f"Segments must be a tensor of one-dimensional integers (int32 or int64), got {kind}")
    if n != m or query_offset:
        raise ValueError(
            f"Segments pack queries and keys alike, got {n} queries, {m} keys, query_offset={query_offset}; use one "
            "call per sequence to decode"
        )
    if may_look(cumulative):
        ends = cumulative.tolist()
        if len(ends) < 2 or (ends[0], ends[-1]) != (0, n) or bool((cumulative.diff() < 0).any()):
            raise ValueError(f"Segments must rise from 0 to {n} tokens, got {ends}")


def check_sink(sink: Any, heads: int) -> None:
    """A sink has one logit a head.

    Raises:
        TypeError: Not a floating tensor.
        ValueError: Another shape.
    """
    if not isinstance(sink, Tensor) or not sink.is_floating_point():
        kind = sink.dtype if isinstance(sink, Tensor) else type(sink).__name__
        raise TypeError(f"sink must be a floating tensor of one logit a head, got {kind}")
    if tuple(sink.shape) != (heads,):
        raise ValueError(f"sink must have shape (heads,) = ({heads},), got {tuple(sink.shape)}")


def check_coefficient(name: str, value: Any, positive: bool) -> None:
    """Check sigma > 0, or a finite (and for a Gaussian positive) scale.

    On a device or while compiling the values of a tensor are not looked at.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: The value.
    """
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a number or a floating tensor, got {value.dtype}; convert it")
        if not may_look(value):
            return
        entries = value.detach().flatten().tolist()  # a few: in Python sooner checked than by three tensor operations
        right = all(x > 0 for x in entries) if positive else all(math.isfinite(x) for x in entries)
    elif isinstance(value, int | float | torch.SymFloat | torch.SymInt):
        # False for NaN; an infinite sigma hears all alike, an infinite scale is 0 * inf.
        right = value > 0 if positive else math.isfinite(value)
        right = right and (name == "sigma" or value != math.inf)
    else:
        raise TypeError(f"{name} must be a number or a floating tensor, got {type(value).__name__}")
    if not right:
        what = "positive" if positive else "finite"
        raise ValueError(f"{name} must be {what}, got {value}; learn its logarithm to keep it so")
