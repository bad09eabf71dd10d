"""One attention call of a trained model on a GPU: the fused kernels, and sums over the weights of all or a few keys."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_statistics import (
    DISTANCES,
    QUARTERS,
    WeightSums,
    quarters,
    sampled_rows,
)
from krause_dynamics.forms.attention import device_sums
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.lowering import neighbourhood_of
from krause_dynamics.interaction import DotProduct, Interaction, Request, reference

FIRST_KEYS = 4  # that the sink tier looks at, and as many others
serves = device_sums.serves


def all_keys(call: Call) -> tuple[Tensor, WeightSums]:
    """Output, and all sums over the weights."""
    length = call.q.shape[2]
    found = device_sums.attend(call, QUARTERS)
    near, far = found.bins[..., : len(DISTANCES) - 1], found.bins[..., len(DISTANCES) - 1 :]
    bins = torch.cat([near, far.sum(-1, keepdim=True)], -1) / length
    sampled, nothing = _sampled(call, found.log_partition), torch.zeros_like(found.own[..., 0])
    sums = (found.received, found.entropy, found.own, bins, found.away.mean(-1), sampled, nothing)
    return found.mean, WeightSums(*sums)


def some_keys(call: Call) -> tuple[Tensor, WeightSums]:
    """Output, and the columns of a few keys alone: the first, and those that the sampled rows hear most."""
    (b, h, n, _), group = call.q.shape, call.q.shape[1] // call.k.shape[1]
    output, log_partition = device_sums.mean_and_log_partition(call)
    sampled, place = _sampled(call, log_partition), torch.arange(n, device=call.q.device)
    heard = sampled.mean(-2)
    heard[..., :FIRST_KEYS] = torch.inf
    columns = heard.topk(min(n, 2 * FIRST_KEYS), dim=-1).indices
    keys = call.k[:, :, None].expand(-1, -1, group, -1, -1)
    of_keys = columns.view(b, h // group, group, -1, 1).expand(*keys.shape[:3], -1, keys.shape[-1])
    weights = _weights(call, call.q, keys.gather(3, of_keys).flatten(1, 2), place, columns, log_partition)
    exact = log_partition.dtype
    products = call.q.to(exact).view(keys.shape) * call.k.to(exact)[:, :, None]
    own = (float(call.scale) * products.sum(-1).flatten(1, 2) - log_partition).exp()
    members = torch.nn.functional.one_hot(quarters(n, place.device), QUARTERS).to(weights.dtype)
    received = weights.new_full((b, h, QUARTERS, n), torch.nan)
    received.scatter_(-1, columns[:, :, None].expand(b, h, QUARTERS, -1), members.mT @ weights)
    unknown = own.new_full((b, h), torch.nan)
    bins = own.new_full((b, h, len(DISTANCES)), torch.nan)
    sums = (received, own.new_full((b, h, n), torch.nan), own, bins, unknown, sampled, torch.zeros_like(unknown))
    return output, WeightSums(*sums)


def _sampled(call: Call, log_partition: Tensor) -> Tensor:
    """Weights of the sampled rows, (b, h, S, T), in float32 or better."""
    (b, h, n, _), kv = call.q.shape, call.k.shape[1]
    rows = sampled_rows(n).to(call.q.device)
    queries = call.q[:, :, rows].reshape(b, kv, -1, call.q.shape[-1])  # of all heads that share their keys
    logs, place = log_partition[:, :, rows].view(b, kv, -1), torch.arange(n, device=rows.device)
    return _weights(call, queries, call.k, rows.repeat(h // kv), place, logs).view(b, h, -1, n)


def _weights(call: Call, queries: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, log_partition: Tensor) -> Tensor:
    """exp(log a_ij - log Z_i) of some queries and some keys at these places, by the package's one definition."""
    rule = Interaction(DotProduct(float(call.scale)), neighbourhood_of(call.reach))
    exact = torch.promote_types(queries.dtype, torch.float32)
    request = Request.of(queries.to(exact), keys.to(exact), query_index=rows, source_index=columns)
    logs = reference.log_weights(rule, request)
    return torch.where(logs > -torch.inf, (logs - log_partition[..., None]).exp(), 0.0)
