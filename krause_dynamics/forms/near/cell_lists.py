"""Bounded confidence on any torch device: sources sorted into cells of the radius, each query meets 3^d cells.

Cells are numbered with the last coordinate fastest, so the three cells in a row of neighbours are one stretch of the
sorted sources: 3^(d-1) stretches a query, found by bisection, whatever box the data span. Pairs are decided on direct
differences, as in the reference, and summed in a fixed order: a run repeats bit for bit.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request, Within

CPU_PAIRS, DEVICE_PAIRS = 1 << 18, 1 << 26  # looked at together; more would leave a CPU's cache, or a GPU's memory
WORTH, DEVICE_WORTH = 1 << 19, 1 << 24  # pairs in all from which sorting pays
STEEPEST = 60.0  # largest exponent of a Gaussian at the radius: beyond, single-precision sums could vanish
MOST_CELLS = 1 << 62
may_refuse = True  # padding is known only when it has been taken out


def supports(interaction: Interaction, request: Request) -> str | None:
    """Torch float32 or float64 without gradients, one run, at most 3 dimensions, one `Within` of one radius."""
    q = request.queries
    if not isinstance(q, Tensor) or q.dtype not in (torch.float32, torch.float64):
        return "it takes torch tensors of float32 or float64"
    if (
        any(x is not None and x.ndim > k for x, k in zip(_arrays(request), (2, 2, 2, 1), strict=True))
        or q.shape[-1] > 3
    ):
        return "it takes one run of at most 3 dimensions, without leading axes"
    if (
        len(interaction.parts) != 1
        or not isinstance(interaction.parts[0], Within)
        or np.ndim(interaction.parts[0].radius)
    ):
        return "it computes one Within of one radius"
    if (
        interaction.score.coefficients() is None
        or not interaction.score.of_distance
        or interaction.pair_bias is not None
    ):
        return "it computes flat and Gaussian scores without a pair bias"
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in _arrays(request)):
        return "it passes no gradients"
    return _too_steep(interaction) or _too_wide(interaction, request)


def _too_steep(interaction: Interaction) -> str | None:
    if any(np.ndim(p) or getattr(p, "requires_grad", False) for p in interaction.score.parameters):
        return "it takes one number as sigma"
    exponent = float(interaction.find(Within)[0].radius) ** 2 * _inner(interaction) / 2
    return None if exponent <= STEEPEST else f"the Gaussian falls to e^-{exponent:.0f} at the radius; it goes to e^-60"


def _too_wide(interaction: Interaction, request: Request) -> str | None:
    """Cells are numbered by one whole number; of padding and NaN `_stretches` is asked, when they are taken out."""
    radius = float(interaction.find(Within)[0].radius)
    y = request.sources.detach()
    widths = (y.amax(0) - y.amin(0)).tolist()
    if np.prod([width / radius + 4 for width in widths]) > MOST_CELLS:
        return "the radius is too small for the extent of the data: cells cannot be numbered"
    return None


def _inner(interaction: Interaction) -> float:
    """1/sigma^2, or 0 for flat scores."""
    coefficients = interaction.score.coefficients()
    assert coefficients is not None  # `supports` asked
    return float(coefficients.inner)


def pays(interaction: Interaction, request: Request) -> bool:
    """From five hundred particles on a CPU, where ``benchmarks/choice.py`` sees it win, some thousand on a GPU."""
    q = request.queries
    worth = WORTH if isinstance(q, Tensor) and q.device.type == "cpu" else DEVICE_WORTH
    return isinstance(q, Tensor) and q.shape[-2] * request.sources.shape[-2] >= worth


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate` within rounding; memory O(n) and one block of pairs."""
    x, y, v, log_mass = _arrays(request)
    if log_mass is not None:
        there = log_mass > -float("inf")
        y, v, log_mass = y[there], v[there], log_mass[there]
    (within,) = interaction.find(Within)
    radius = float(within.radius)
    if len(y) == 0:
        return Aggregate(x.new_zeros((len(x), v.shape[-1])), x.new_full((len(x),), -float("inf")))
    keys, first, last = _stretches(x, y, radius)
    order = torch.argsort(keys, stable=True)
    masses = y.new_ones(len(y)) if log_mass is None else log_mass.exp()
    sources = torch.cat([y, masses[:, None] * torch.cat([v, torch.ones_like(v[:, :1])], -1)], -1)[order]
    sums = _sums(x, sources, first, last, within, interaction)
    total = sums[:, -1:]
    mean = torch.where(total > 0, sums[:, :-1] / torch.where(total > 0, total, torch.ones_like(total)), 0.0)
    return Aggregate(mean, total[:, 0].log())


def _arrays(request: Request) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return request.queries, request.sources, request.values, request.log_mass


def _stretches(x: Tensor, y: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cell of each source (m,), and for each query its stretches of sorted sources: first and end, (3^(d-1), n)."""
    low, high = y.amin(0), y.amax(0)
    extent = float((high - low).max())
    # A little wider than the radius, so that rounding never puts a pair at the radius two cells apart.
    side = radius * (1 + 1e-6) + 8 * torch.finfo(x.dtype).eps * extent
    limits = [int(float(width) / side) + 1 for width in high - low]
    if np.prod([float(limit + 3) for limit in limits]) > MOST_CELLS:
        raise UnsupportedImplementation("the radius is too small for the extent of the data: cells cannot be numbered")
    cells_y, cells_x = ((torch.floor((z - low) / side)).long() for z in (y, x))
    # Queries outside the box of the sources may be clamped: one cell beyond it they already meet nobody else.
    bounds = torch.tensor(limits, device=x.device)
    cells_x = torch.minimum(torch.maximum(cells_x, torch.full_like(bounds, -2)), bounds + 2)
    strides = torch.tensor(
        [int(np.prod([s + 6 for s in limits[a + 1 :]])) for a in range(len(limits))], device=x.device
    )
    keys = ((cells_y + 3) * strides).sum(-1)
    centre = ((cells_x + 3) * strides).sum(-1)
    rows = [
        torch.tensor((*offset, 0), device=x.device) for offset in itertools.product((-1, 0, 1), repeat=x.shape[-1] - 1)
    ]
    middle = torch.stack([centre + (row * strides).sum() for row in rows])
    ordered = keys.sort().values
    return keys, torch.searchsorted(ordered, middle - 1), torch.searchsorted(ordered, middle + 1, right=True)


def _sums(x: Tensor, sources: Tensor, first: Tensor, last: Tensor, within: Within, interaction: Interaction) -> Tensor:
    """``sum_j m_j exp(s_ij) (v_j, 1)`` over admitted j, (n, d_v + 1), queries with much company first."""
    lengths = (last - first).cpu().numpy()
    company = lengths.sum(0)
    busiest = np.argsort(-company, kind="stable")
    block = CPU_PAIRS if x.device.type == "cpu" else DEVICE_PAIRS
    result, d = x.new_zeros((len(x), sources.shape[-1] - x.shape[-1])), x.shape[-1]
    start = 0
    while start < len(busiest) and company[busiest[start]] > 0:
        rows = busiest[start : start + max(1, block // int(company[busiest[start]]))]
        chosen = torch.from_numpy(rows).to(x.device)
        parts = []
        for stretch in range(len(lengths)):
            longest = int(lengths[stretch, rows].max())
            if longest:
                begin, end = first[stretch, chosen, None], last[stretch, chosen, None]
                index = begin + torch.arange(longest, device=x.device)
                parts.append(_meet(x[chosen], sources, index, index < end, d, within, interaction))
        result[chosen] = torch.stack(parts).sum(0)
        start += len(rows)
    return result


def _meet(
    x: Tensor, sources: Tensor, index: Tensor, valid: Tensor, d: int, within: Within, interaction: Interaction
) -> Tensor:
    """Sums of rows x (k, d) over the candidates ``index`` (k, l) that are valid and near."""
    near = sources[index.clamp(max=len(sources) - 1)]
    squared = torch.zeros_like(near[..., 0])
    for axis in range(d):
        difference = x[:, None, axis] - near[..., axis]
        squared = squared + difference * difference
    radius = x.new_tensor(float(within.radius))
    distance, limit = (difference.abs(), radius) if d == 1 else (squared, radius**2)
    admitted = valid & (distance <= limit if within.closed else distance < limit)
    weights = admitted.to(x.dtype)
    if not interaction.score.is_flat:
        weights = weights * torch.exp(squared * (-0.5 * _inner(interaction)))
    return torch.einsum("kl,klv->kv", weights, near[..., d:])
