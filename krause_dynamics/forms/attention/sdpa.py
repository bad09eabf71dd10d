"""torch's fused attention kernels as a guest: dot products and Gaussians heard from everyone, or causally.

``exp(a<x,y> + c|y|^2 + log m)`` is dot-product attention with a bias per key. The kernels take no bias at full speed,
so it travels in further columns of the head dimension, where the query is 1; columns of zeros pad the rest to the
multiple of 8 that the kernels ask for. In half types the bias is split over three columns, which hold 24 bits of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.interaction import Aggregate, Causal, Everyone, Interaction, Prepared, Request, reference

LARGEST_DIMENSION = 256  # of the flash kernels
NOTHING = -3.0e4  # stands for log m = -inf: finite, because inf - inf spoils split products, and below every real score
ALIGNMENT = 8


def supports(interaction: Interaction, request: Request) -> str | None:
    """Torch tensors of 32 or 16 bits without gradients; quadratic scores; everyone, or causal (a query per source)."""
    q, v = request.queries, request.values
    if not isinstance(q, Tensor) or q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return "it takes torch tensors of float32, float16 or bfloat16"
    if interaction.score.coefficients() is None or interaction.pair_bias is not None:
        return "it computes quadratic scores without a pair bias"
    n, parameters = q.shape[-2], vars(interaction.score).values()
    if _is_radial(interaction) and any(getattr(p, "ndim", 0) and p.shape[-1] == n > 1 for p in parameters):
        return "a distance has one bias per source, but a parameter has one value per query"
    if not all(isinstance(part, Everyone | Causal) for part in interaction.parts):
        return "it knows no neighbourhoods but everyone and causal"
    if _is_causal(interaction) and not (request.positions_are_ranks and q.shape[-2] == request.sources.shape[-2]):
        return "causal needs one query per source, in order"
    if max(q.shape[-1] + 3, v.shape[-1]) > LARGEST_DIMENSION:
        return f"dimensions beyond {LARGEST_DIMENSION - 3} exceed the kernels"
    arguments = (q, request.sources, v, request.log_mass, *parameters)
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
        return "its log-partition carries no gradient"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """On a GPU, from the size at which a launch is worth it."""
    q = request.queries
    return isinstance(q, Tensor) and q.device.type == "cuda" and q.shape[-2] * request.sources.shape[-2] >= 1 << 16


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate` within the rounding of the dtype, O(n + m) memory."""
    inner, query, source = (_factor(c, request.queries) for c in interaction.score.coefficients() or ())
    x, y = request.queries.float(), reference.stand_ins(request, request.sources).float()
    radial = _is_radial(interaction)
    if interaction.score.of_distance:
        centre = y.mean(-2, keepdim=True)  # translation-invariant: centring keeps the digits of the expansion
        x, y = x - centre, y - centre
    bias = source * (y * y).sum(-1) if radial else None
    if request.log_mass is not None:
        masses = request.log_mass.float().clamp(min=NOTHING)
        bias = masses if bias is None else bias + masses
    values = reference.present(request, request.values)
    if isinstance(inner, float) and abs(inner) >= torch.finfo(torch.float32).tiny:
        # The kernel scales in float32 after the product, by a positive number: it takes the maximum of a row before.
        scale, scaled = abs(inner), x if inner > 0 else -x
    else:
        scale, scaled = 1.0, x * (inner if isinstance(inner, float) else inner[..., None])
    bias = None if bias is None else bias / scale
    mean, log_partition = _attend(scaled, y, values, bias, scale, request.queries.dtype, _is_causal(interaction))
    if request.log_mass is not None:
        some = log_partition > NOTHING / 2
        mean = torch.where(some[..., None], mean, torch.zeros_like(mean))
        log_partition = torch.where(some, log_partition, torch.full_like(log_partition, -float("inf")))
    return Aggregate(mean, log_partition + query * (x * x).sum(-1) if radial else log_partition)


def _is_radial(interaction: Interaction) -> bool:
    """Whether the score looks at the length of the sources, which joins it as a bias."""
    coefficients = interaction.score.coefficients()
    return coefficients is not None and not (isinstance(coefficients.source, float) and coefficients.source == 0.0)


def _attend(
    x: Tensor, y: Tensor, v: Tensor, bias: Tensor | None, scale: float, dtype: torch.dtype, causal: bool
) -> tuple[Tensor, Tensor]:
    """Softmax attention of scores scale (<x, y> + bias): mean and log-sum-exp."""
    columns = y.new_empty((*y.shape[:-1], 0), dtype=dtype) if bias is None else _split(bias, dtype)
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2], v.shape[:-2], columns.shape[:-2])
    width = -(-max(x.shape[-1] + columns.shape[-1], v.shape[-1]) // ALIGNMENT) * ALIGNMENT
    queries = torch.cat([x.to(dtype), x.new_ones((*x.shape[:-1], columns.shape[-1]), dtype=dtype)], -1)
    y, columns = _common(y.to(dtype), columns)
    keys = torch.cat([y, columns], -1)
    q, k, w = (_four(part, batch, width) for part in (queries, keys, v))
    mean, log_partition = kernel(q, k, w, scale, causal)
    n = x.shape[-2]
    return mean[:, 0, :, : v.shape[-1]].reshape(*batch, n, v.shape[-1]), log_partition[:, 0, :n].reshape(*batch, n)


def kernel(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of the kernel made for this device and dtype."""
    ops = torch.ops.aten
    if q.device.type == "cpu":
        result = ops._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    elif q.dtype == torch.float32:
        result = ops._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    else:
        result = ops._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    return result[0], result[1]


def cudnn_kernel(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """The same by the kernel of cuDNN, which takes fewer heads of keys than of queries."""
    result = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal, False, scale=scale)
    return result[0], result[1].view(q.shape[:3])  # the log-partition is (b, h, n, 1)


def _split(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., m) as one column of float32, or as three of a half type whose sum it is: (..., m, 1 or 3)."""
    if dtype == torch.float32:
        return bias[..., None]
    parts, rest = [], bias
    for _ in range(3):
        parts.append(rest.to(dtype))
        rest = rest - parts[-1].float()
    return torch.stack(parts, -1)


def _common(y: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    batch = torch.broadcast_shapes(y.shape[:-2], columns.shape[:-2])
    return y.expand(*batch, *y.shape[-2:]), columns.expand(*batch, *columns.shape[-2:])


def _four(x: Tensor, batch: Any, width: int) -> Tensor:
    """(*batch, n, d) -> (runs, 1, n, width), padded with zeros."""
    padded = torch.nn.functional.pad(x, (0, width - x.shape[-1]))
    return padded.expand(*batch, *padded.shape[-2:]).reshape(-1, 1, *padded.shape[-2:])


def _factor(parameter: Any, queries: Tensor) -> Any:
    if hasattr(parameter, "ndim"):
        return torch.as_tensor(parameter, dtype=torch.float32, device=queries.device)
    return float(parameter)


def _is_causal(interaction: Interaction) -> bool:
    return any(isinstance(part, Causal) for part in interaction.parts)
