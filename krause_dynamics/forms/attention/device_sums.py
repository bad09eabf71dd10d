"""Attention on a GPU together with the sums over its weights, from the log-partition that the fused kernels return.

Output and log-partition are those of the fast kernels; further kernels compute scores once again, tile by tile, and sum
the weights: all of them (`of_all`), or a few rows and columns (`rows`, `columns`). Nothing of size n m is ever written,
and nothing is read by the host, so that it may run ahead of the GPU.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from krause_dynamics.forms.attention import kernels, sdpa
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction.reach import UNBOUNDED


class DeviceSums(NamedTuple):
    """Sums over the weights a_ij of a call, in float32.

    Attributes:
        received: Mass of every key by group of consecutive queries, (b, h, groups, m).
        entropy: In nats, (b, h, n).
        own: a_ii, (b, h, n).
        away: sum_j a_ij |i - j|, (b, h, n).
        bins: Weight by distance, summed over rows: 0, [1, 2), [2, 4), ..., (b, h, 32).
    """

    received: Tensor
    entropy: Tensor
    own: Tensor
    away: Tensor
    bins: Tensor


def serves(call: Call) -> str | None:
    """``None`` if a call is summed here, else the reason."""
    plain = call.segments is None and call.log_mass is None and call.pair_bias is None
    if call.distance or not call.reach.is_band or not plain or call.dropout or call.offset:
        return "sums on a GPU are those of dot products heard from everyone or in a window"
    if isinstance(call.scale, Tensor) or call.scale <= 0 or call.q.shape[2] != call.k.shape[2]:
        return "sums on a GPU are those of one positive scale, and of queries that are the keys"
    return kernels.serves(call)


def mean_and_log_partition(call: Call) -> tuple[Tensor, Tensor]:
    """Output and log-partition by the fastest kernel: torch's own where it knows the mask, else ours."""
    q, k, v, reach = call.q, call.k, call.v, call.reach
    if reach.left != UNBOUNDED or reach.right not in (0, UNBOUNDED) or q.dtype not in (torch.float16, torch.bfloat16):
        return kernels.attend(call)
    causal, scale = reach.right == 0, float(call.scale)
    if _torch_takes_cudnn(q, k, v, causal, scale):
        return sdpa.cudnn_kernel(q, k, v, scale, causal)
    group = q.shape[1] // k.shape[1]
    k, v = (x if group == 1 else x.repeat_interleave(group, 1) for x in (k, v))
    return sdpa.kernel(q, k, v, scale, causal)


def _torch_takes_cudnn(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> bool:
    """Whether the plain attention of torch would run cuDNN's kernel, which on these devices then is the fastest."""
    grouped = q.shape[1] != k.shape[1]
    choice = torch._fused_sdp_choice(q, k, v, None, 0.0, causal, scale=scale, enable_gqa=grouped)
    return choice == SDPBackend.CUDNN_ATTENTION.value


def of_all(call: Call, log_partition: Tensor, groups: int) -> DeviceSums:
    """Sums over all weights of a call that is served here."""
    return DeviceSums(*_kernels("sums").sums(call.q, call.k, log_partition, *_rule(call), groups))


def rows(call: Call, log_partition: Tensor, chosen: Tensor) -> Tensor:
    """Weights of the queries ``chosen`` (S,), (b, h, S, n) in float32."""
    found: Tensor = _kernels("few").rows(call.q, call.k, log_partition, chosen, *_rule(call))
    return found


def columns(call: Call, log_partition: Tensor, chosen: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mass of the keys ``chosen`` (b, h, C) by group of queries (b, h, groups, C); and own weights (b, h, n)."""
    found: tuple[Tensor, Tensor] = _kernels("few").columns(call.q, call.k, log_partition, chosen, *_rule(call), groups)
    return found


def largest(values: Tensor, number: int) -> Tensor:
    """Places of the largest entries of rows (..., m) of float32, none negative, the largest first: (..., number)."""
    found: Tensor = _kernels("along_rows").largest(values, number)
    return found


def describe(weights: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rows of float32 weights (..., m): places of the largest entries (..., number), -1 beyond those above 0; how
    many entries are above 0; the standard deviation of their logarithms; the sum of all squares.
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _kernels("along_rows").describe(weights, number)
    return found


def describes(weights: Tensor) -> bool:
    """Whether `describe` serves this tensor."""
    there = weights.device.type == "cuda" and weights.dtype == torch.float32
    return there and kernels.machine_refusal(weights.device.index, weights.dtype) is None


def _rule(call: Call) -> tuple[float, int, int]:
    return float(call.scale), call.reach.left, call.reach.right


def _kernels(name: str) -> Any:
    """A module of kernels; triton is loaded on first use."""
    return importlib.import_module(f"krause_dynamics.forms.attention.triton.{name}")
