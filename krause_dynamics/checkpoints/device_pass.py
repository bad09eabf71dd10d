"""One attention call of a trained model on a GPU: the fused kernels, and sums over the weights of all or a few keys.

Nothing here is read by the host: what it launches queues up behind the model's own kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_call import QUARTERS
from krause_dynamics.checkpoints.attention_statistics import DISTANCES, WeightSums
from krause_dynamics.checkpoints.sampled_rows import sampled_rows
from krause_dynamics.forms.attention import device_sums
from krause_dynamics.forms.attention.call import Call

FIRST_KEYS = 4  # that the sink tier looks at, and as many others
serves, mean_and_log_partition = device_sums.serves, device_sums.mean_and_log_partition


def all_keys(call: Call, log_partition: Tensor) -> WeightSums:
    """All sums over the weights."""
    length = call.q.shape[2]
    found = device_sums.of_all(call, log_partition, QUARTERS)
    near, far = found.bins[..., : len(DISTANCES) - 1], found.bins[..., len(DISTANCES) - 1 :]
    bins = torch.cat([near, far.sum(-1, keepdim=True)], -1) / length
    sampled, nothing = _sampled(call, log_partition), torch.zeros_like(found.own[..., 0])
    away = found.away.mean(-1, dtype=torch.float64).float()  # of thousands of tokens: float32 would lose digits
    return WeightSums(found.received, found.entropy, found.own, bins, away, sampled, nothing)


def some_keys(call: Call, log_partition: Tensor) -> WeightSums:
    """The columns of a few keys alone: the first, and those that the sampled rows hear most."""
    b, h, n, _ = call.q.shape
    sampled = _sampled(call, log_partition)
    heard = sampled.mean(-2)
    heard[..., :FIRST_KEYS] = torch.inf
    columns = device_sums.largest(heard, min(n, 2 * FIRST_KEYS))
    mass, own = device_sums.columns(call, log_partition, columns, QUARTERS)
    received = mass.new_full((b, h, QUARTERS, n), torch.nan)
    received.scatter_(-1, columns[:, :, None].expand_as(mass), mass)
    unknown = own.new_full((b, h), torch.nan)
    rows, bins = unknown[..., None].expand(b, h, n), unknown[..., None].expand(b, h, len(DISTANCES))
    return WeightSums(received, rows, own, bins, unknown, sampled, torch.zeros_like(unknown))


def _sampled(call: Call, log_partition: Tensor) -> Tensor:
    """Weights of the sampled rows, (b, h, S, T)."""
    return device_sums.rows(call, log_partition, sampled_rows(call.q.shape[2], call.q.device))
