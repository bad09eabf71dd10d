"""Attention on a GPU together with the sums over its weights, from the log-partition that the fused kernels return.

Output and log-partition are those of the fast kernels; two more kernels compute the scores once again, tile by tile,
and sum the weights. Nothing of size n m is ever written.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

from krause_dynamics.forms.attention import kernels, sdpa
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction.reach import UNBOUNDED


class DeviceSums(NamedTuple):
    """Attention of a call and sums over its weights a_ij, in float32.

    Attributes:
        mean: (b, h, n, d_v) in the dtype of the values.
        log_partition: log Z_i, (b, h, n).
        received: Mass of every key by group of consecutive queries, (b, h, groups, m).
        entropy: In nats, (b, h, n).
        own: a_ii, (b, h, n).
        away: sum_j a_ij |i - j|, (b, h, n).
        bins: Weight by distance, summed over rows: 0, [1, 2), [2, 4), ..., (b, h, 32).
    """

    mean: Tensor
    log_partition: Tensor
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
    reach = call.reach
    if reach.left == UNBOUNDED and reach.right in (0, UNBOUNDED) and call.q.dtype in (torch.float16, torch.bfloat16):
        group = call.q.shape[1] // call.k.shape[1]
        k, v = (x.repeat_interleave(group, 1) for x in (call.k, call.v))
        return sdpa.kernel(call.q, k, v, float(call.scale), reach.right == 0)
    return kernels.attend(call)


def attend(call: Call, groups: int) -> DeviceSums:
    """Output and sums of a call that is served here; no gradients."""
    sums = importlib.import_module("krause_dynamics.forms.attention.triton.sums").sums  # triton: on first use
    with torch.no_grad():
        mean, log_partition = mean_and_log_partition(call)
        found = sums(call.q, call.k, log_partition, float(call.scale), call.reach.left, call.reach.right, groups)
        return DeviceSums(mean, log_partition, *found)
