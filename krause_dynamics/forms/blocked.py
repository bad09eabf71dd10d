"""Blocks of pairs instead of all pairs: O(block) memory, both array libraries, and two matrix products where possible.

Quadratic scores separate: ``exp(a<x,y> + b|x|^2 + c|y|^2) = exp(b|x|^2) exp(a<x,y>) exp(c|y|^2)``. While all exponents
stay moderate no row maximum is needed, so a tile is one product, one exponential in place and one product with the
values (a column of ones gives Z); where queries are the sources the tile serves its mirror image too. Everything else
(steep scores, thresholds, ranks, biases, gradients) takes the reference's definition, a block of rows at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._array import Array, is_torch, like, namespace
from krause_dynamics.interaction import Aggregate, Gaussian, Interaction, Prepared, Request, reference
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.interaction.scores import Coefficients

BLOCK_PAIRS = 1 << 18  # pairs held at once on a CPU: 2 MB in float64, so that a block stays in the cache between passes
DEVICE_PAIRS = 1 << 26  # on a GPU, where blocks must be large enough to fill it
TILE = 256  # rows and columns of a symmetric tile: 0.5 MB in float64; 384 and 512 are equally fast
DEVICE_TILE = 8192
STEEPEST = {4: 40.0, 8: 300.0}  # largest exponent taken without a row maximum, by itemsize: rounding grows with it
SMALLEST = {4: 1e-25, 8: 1e-250}  # a row sum below has lost terms to underflow and is computed with a row maximum


class Separated(NamedTuple):
    """``Z_i = exp(rows_i) sum_j exp(<queries_i, sources_j>) weights_j``, and the same sums of ``weights_j v_j``."""

    queries: Array  # (..., n, d), scaled by a
    sources: Array  # (..., m, d)
    weighted: Array  # (..., m, d_v + 1): weights_j (v_j, 1)
    rows: Array | float  # (..., n): b |x_i|^2 and the largest log-mass
    symmetric: bool


def supports(interaction: Interaction, request: Request) -> str | None:
    """Every rule, except parameters of one value per query, which would have to be cut along with the rows."""
    if _varies_by_query(interaction, request):
        return "a parameter has one value per query; the reference handles that"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """Where the score separates, and else from the size at which all pairs no longer fit a cache."""
    pairs = request.queries.shape[-2] * request.sources.shape[-2]
    return pairs > 4 * BLOCK_PAIRS or _is_separable(interaction, request, interaction.score.coefficients())


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate` within rounding; memory O(block) and, without gradients, never all pairs at once."""
    coefficients = interaction.score.coefficients()
    form = None
    if coefficients is not None and _is_separable(interaction, request, coefficients):
        form = _separate(interaction, request, coefficients)
    if form is None:
        return _by_rows(interaction, request)
    low, high = _reach(interaction).offsets
    everyone = low == -np.inf and high == np.inf
    sums = _symmetric(form) if everyone and form.symmetric else _banded(form, low, high)
    total = sums[..., -1]
    if not total.min() > SMALLEST[total.dtype.itemsize]:
        return _by_rows(interaction, request)
    return Aggregate(sums[..., :-1] / total[..., None], request.xp.log(total) + form.rows)


# --- separable scores


def _is_separable(interaction: Interaction, request: Request, coefficients: Coefficients | None) -> bool:
    """A quadratic score with one parameter per run or head, index windows at most, and no gradient asked for."""
    reach = interaction.neighbourhood.reach
    if coefficients is None or interaction.pair_bias is not None or isinstance(reach, str):
        return False
    return (
        (reach == Reach() or (reach.is_band and request.positions_are_ranks))
        and request.queries.dtype.itemsize in STEEPEST
        and all(getattr(c, "ndim", 0) == 0 or c.shape[-1] == 1 for c in coefficients)
        and not _needs_gradient(interaction, request)
    )


def _reach(interaction: Interaction) -> Reach:
    reach = interaction.neighbourhood.reach
    assert isinstance(reach, Reach)
    return reach


def _needs_gradient(interaction: Interaction, request: Request) -> bool:
    """Whether torch records the arguments: then nothing may be done in place."""
    if not is_torch(request.queries):
        return False
    arguments = (request.queries, request.sources, request.values, request.log_mass, *vars(interaction.score).values())
    return any(getattr(x, "requires_grad", False) for x in arguments)


def _separate(interaction: Interaction, request: Request, coefficients: Coefficients) -> Separated | None:
    """The separated form, or ``None`` where an exponent might exceed `STEEPEST` (or is NaN)."""
    inner, query, source = (_factor(c, request.queries) for c in coefficients)
    x, y, masses = request.queries, reference.present(request, request.sources), request.log_mass
    same = x is y or (x is request.sources and masses is None)
    if isinstance(interaction.score, Gaussian):
        centre = y.mean(-2)[..., None, :]  # translation-invariant: centring keeps the digits of the expansion
        y = y - centre
        x = y if same else x - centre
    x2 = _squares(x)
    y2 = x2 if x is y else _squares(y)
    widest = float(y2.max())
    bound = _largest(inner) * (widest if x is y else (widest * float(x2.max())) ** 0.5) + _largest(source) * widest
    if not bound <= STEEPEST[x.dtype.itemsize]:
        return None
    radial = isinstance(interaction.score, Gaussian)
    rows, logs = (query * x2, source * y2) if radial else (0.0, None)
    if masses is not None:
        top = masses.max(-1, keepdims=True) if not is_torch(masses) else masses.amax(-1, keepdim=True)
        if not float(top.min()) > reference.NEVER:
            return None
        rows, logs = rows + top, masses - top if logs is None else logs + (masses - top)
    scale = inner if isinstance(inner, float) else inner[..., None]
    return Separated(x * scale, y, _weighted(request, logs), rows, x is y)


def _weighted(request: Request, logs: Array | None) -> Array:
    """``exp(logs_j) (v_j, 1)``: (..., m, d_v + 1)."""
    values = reference.present(request, request.values)
    weights = None if logs is None else request.xp.exp(logs)
    leading = values.shape[:-1] if weights is None else np.broadcast_shapes(values.shape[:-1], weights.shape)
    result = _empty(values, (*leading, values.shape[-1] + 1))
    result[..., :-1] = values if weights is None else weights[..., None] * values
    result[..., -1] = 1.0 if weights is None else weights
    return result


def _empty(x: Array, shape: tuple[int, ...]) -> Array:
    return x.new_empty(shape) if is_torch(x) else np.empty(shape, x.dtype)


def _factor(parameter: Any, queries: Array) -> Any:
    """A parameter, a number or (..., 1), as a factor of (..., n)."""
    return like(parameter, queries) if getattr(parameter, "ndim", 0) else float(parameter)


def _largest(factor: Any) -> float:
    return abs(factor) if isinstance(factor, float) else float(abs(factor).max())


def _squares(x: Array) -> Array:
    return (x * x).sum(-1)


def _affinities(x: Array, y: Array) -> Array:
    """``exp(<x_i, y_j>)``, the exponential in place."""
    products = x @ y.mT
    return products.exp_() if is_torch(products) else np.exp(products, out=products)


# --- sums over tiles


def _symmetric(form: Separated) -> Array:
    """Sums of ``exp(<x_i, y_j>) weighted_j`` over all j; each tile above the diagonal also serves its mirror image."""
    x, y, v, n = form.queries, form.sources, form.weighted, form.queries.shape[-2]
    size = DEVICE_TILE if _on_device(x) else TILE
    if n <= size:
        return _affinities(x, y) @ v
    sums = 0 * v
    for i in range(0, n, size):
        rows = slice(i, i + size)
        for j in range(i, n, size):
            columns = slice(j, j + size)
            tile = _affinities(x[..., rows, :], y[..., columns, :])
            sums[..., rows, :] += tile @ v[..., columns, :]
            if j > i:
                sums[..., columns, :] += tile.mT @ v[..., rows, :]
    return sums


def _banded(form: Separated, low: float, high: float) -> Array:
    """The same sums over ``low <= i - j <= high``, a block of rows at a time, only the columns in reach computed."""
    x, y, v = form.queries, form.sources, form.weighted
    n, m = x.shape[-2], y.shape[-2]
    block = _block_rows(x, min(m, high - low + TILE))
    parts = []
    for i in range(0, n, block):
        end = min(i + block, n)
        first, last = int(max(0, i - high)), int(min(m, end - low))
        tile = _affinities(x[..., i:end, :], y[..., first:last, :])
        if last - first > 1 and (low > -np.inf or high < np.inf):
            tile *= _inside(x, i, end, first, last, low, high)
        parts.append(tile @ v[..., first:last, :])
    return parts[0] if len(parts) == 1 else namespace(parts=parts[0]).concat(parts, axis=-2)


def _inside(x: Array, i: int, end: int, first: int, last: int, low: float, high: float) -> Array:
    offset = np.arange(i, end)[:, None] - np.arange(first, last)
    return like((offset >= low) & (offset <= high), x)


def _block_rows(x: Array, width: float) -> int:
    return max(1, int((DEVICE_PAIRS if _on_device(x) else BLOCK_PAIRS) // max(width, 1)))


def _on_device(x: Array) -> bool:
    return is_torch(x) and x.device.type != "cpu"


# --- every rule, by rows


def _by_rows(interaction: Interaction, request: Request) -> Aggregate:
    """The reference, a block of queries at a time."""
    if _varies_by_query(interaction, request):
        return reference.aggregate(interaction, request)
    n, block = request.queries.shape[-2], _block_rows(request.queries, request.sources.shape[-2])
    if block >= n:
        return reference.aggregate(interaction, request)
    parts = [reference.aggregate(interaction, request.rows(i, min(i + block, n))) for i in range(0, n, block)]
    means, logs = zip(*parts, strict=True)
    return Aggregate(request.xp.concat(means, axis=-2), request.xp.concat(logs, axis=-1))


def _varies_by_query(interaction: Interaction, request: Request) -> bool:
    n = request.queries.shape[-2]
    parameters = list(vars(interaction.score).values()) + [getattr(p, "radius", None) for p in interaction.parts]
    return any(getattr(p, "ndim", 0) > 0 and p.shape[-1] == n and n > 1 for p in parameters)
