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

from krause_dynamics._array import Array, is_torch, like
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request, reference
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.interaction.scores import Coefficients

BLOCK_PAIRS = 1 << 18  # pairs held at once on a CPU: 2 MB in float64, so that a block stays in the cache between passes
DEVICE_PAIRS = 1 << 26  # on a GPU, where blocks must be large enough to fill it
TILE = 256  # rows and columns of a symmetric tile: 0.5 MB in float64; 384 and 512 are equally fast
DEVICE_TILE = 8192
STEEPEST = {4: 40.0, 8: 300.0}  # largest exponent taken without a row maximum, by itemsize: rounding grows with it
EVERYONE = Reach()
SMALLEST = {4: 1e-25, 8: 1e-250}  # a row sum below has lost terms to underflow and is computed with a row maximum


class Separated(NamedTuple):
    """``Z_i = exp(rows_i) sum_j exp(<queries_i, sources_j>) weights_j``, and the same sums of ``weights_j v_j``."""

    xp: Any
    queries: Array  # (..., n, d), scaled by a
    sources: Array  # (..., m, d)
    weighted: Array  # (..., m, d_v + 1): weights_j (v_j, 1)
    rows: Array | float  # (..., n): b |x_i|^2 and the largest log-mass
    symmetric: bool


def supports(interaction: Interaction, request: Request) -> str | None:
    """Every rule, except parameters of one value per query, which would have to be cut along with the rows."""
    if interaction.varies_by_query(request.queries.shape[-2]):
        return "a parameter has one value per query; the reference handles that"
    return None


def pays(interaction: Interaction, request: Request) -> bool:
    """Where the score separates, and else from the size at which all pairs no longer fit a cache."""
    pairs = request.queries.shape[-2] * request.sources.shape[-2]
    if interaction.score.is_flat and _is_uniform(interaction):
        return True
    return pairs > 4 * BLOCK_PAIRS or (_separates(interaction, request) and not _needs_gradient(interaction, request))


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`reference.aggregate` within rounding; memory O(block) and, without gradients, never all pairs at once."""
    if interaction.score.is_flat and _is_uniform(interaction):
        return uniform
    if _separates(interaction, request):
        return Separable(interaction, request)
    return partial(by_rows, interaction)


# --- one mean for all


def _is_uniform(interaction: Interaction) -> bool:
    """Whether all hear the same of a flat score: every source, each alike but for its mass."""
    return interaction.neighbourhood.reach == EVERYONE and interaction.pair_bias is None


def uniform(request: Request) -> Aggregate:
    """The mean of the values in O(m), for everybody."""
    xp, single = request.xp, reference.accumulating(request)
    values = reference.present(single, single.values)
    masses = single.log_mass
    if masses is None:
        masses = xp.zeros_like(single.sources[..., 0])
    shares, shift, some = reference.exponentials(xp, masses)
    total = xp.sum(shares, axis=-1)
    total = xp.where(some, total, xp.ones_like(total))
    mean = xp.sum(shares[..., None] * values, axis=-2) / total[..., None]
    log_partition = xp.where(some, xp.log(total) + shift, xp.full_like(total, reference.NEVER))
    own = xp.zeros_like(single.queries[..., 0])  # everybody's row, and the batch of the queries
    mean = mean[..., None, :] + own[..., None]
    return Aggregate(xp.astype(mean, request.queries.dtype, copy=False), log_partition[..., None] + own)


# --- separable scores


def _separates(interaction: Interaction, request: Request) -> bool:
    """A quadratic score with one parameter per run or head, and index windows at most."""
    reach, coefficients = interaction.neighbourhood.reach, interaction.score.coefficients()
    if coefficients is None or interaction.pair_bias is not None or isinstance(reach, str) or not reach.is_band:
        return False
    return (reach == EVERYONE or request.positions_are_ranks) and request.queries.dtype.itemsize in STEEPEST


def _needs_gradient(interaction: Interaction, request: Request) -> bool:
    """Whether torch records the arguments: then nothing may be done in place."""
    if not is_torch(request.queries):
        return False
    arguments = (request.queries, request.sources, request.values, request.log_mass, *interaction.score.parameters)
    return any(getattr(x, "requires_grad", False) for x in arguments)


class Separable:
    """A rule whose score separates, prepared: plain numbers are read once, tensors at every call."""

    def __init__(self, interaction: Interaction, request: Request) -> None:
        self.interaction, self.torch = interaction, is_torch(request.queries)
        reach, coefficients = interaction.neighbourhood.reach, interaction.score.coefficients()
        assert isinstance(reach, Reach)
        assert coefficients is not None
        self.everyone, (self.low, self.high) = reach == EVERYONE, reach.offsets
        self.numbers = _plain(coefficients)
        self.product, self.tile = coefficients.is_product, DEVICE_TILE if _on_device(request.queries) else TILE

    def __call__(self, request: Request) -> Aggregate:
        """Sums over tiles where all exponents stay moderate, else the definition by rows."""
        form = None
        if not (self.torch and _needs_gradient(self.interaction, request)):
            form = self._separate(request)
        if form is None:
            return by_rows(self.interaction, request)
        symmetric = self.everyone and form.symmetric
        sums = _symmetric(form, self.tile) if symmetric else _banded(form, self.low, self.high)
        total = sums[..., -1]
        if not total.min() > SMALLEST[total.dtype.itemsize]:
            return by_rows(self.interaction, request)
        return Aggregate(sums[..., :-1] / total[..., None], request.xp.log(total) + form.rows)

    def _separate(self, request: Request) -> Separated | None:
        """The separated form, or ``None`` where an exponent might exceed `STEEPEST` (or is NaN)."""
        xp, x, y, v, masses = request.xp, request.queries, request.sources, request.values, request.log_mass
        if masses is not None:
            y, v = reference.stand_ins(request, y), reference.present(request, v)
        inner, query, source = self.numbers or self._factors(x)
        if self.interaction.score.of_distance:
            centre = y.mean(-2)[..., None, :]  # translation-invariant: centring keeps the digits of the expansion
            shifted = y - centre
            x, y = (shifted, shifted) if x is y else (x - centre, shifted)
        x2 = (x * x).sum(-1)
        y2 = x2 if x is y else (y * y).sum(-1)
        widest = float(y2.max())
        bound = _largest(inner) * (widest if x is y else (widest * float(x2.max())) ** 0.5) + _largest(source) * widest
        if not bound <= STEEPEST[x.dtype.itemsize]:
            return None
        rows, logs = (0.0, None) if self.product else (query * x2, source * y2)
        if masses is not None:
            top = xp.max(masses, axis=-1, keepdims=True)
            if not float(top.min()) > reference.NEVER:
                return None
            rows, logs = rows + top, masses - top if logs is None else logs + (masses - top)
        scale = inner if isinstance(inner, float) else inner[..., None]
        return Separated(xp, x * scale, y, _weighted(xp, v, logs), rows, x is y)

    def _factors(self, x: Array) -> list[Any]:
        """The coefficients as they are now, each a number or an array (..., 1) that multiplies (..., n)."""
        coefficients: Any = self.interaction.score.coefficients()
        return [like(c, x) if getattr(c, "ndim", 0) else float(c) for c in coefficients]


def _plain(coefficients: Coefficients) -> tuple[float, float, float] | None:
    """The coefficients where they are plain numbers, which never change."""
    inner, query, source = coefficients
    if hasattr(inner, "ndim") or hasattr(query, "ndim") or hasattr(source, "ndim"):
        return None
    return float(inner), float(query), float(source)


def _weighted(xp: Any, values: Array, logs: Array | None) -> Array:
    """``exp(logs_j) (v_j, 1)``: (..., m, d_v + 1)."""
    if logs is None:
        return xp.concat([values, xp.ones_like(values[..., :1])], axis=-1)
    weights = xp.exp(logs)[..., None]
    weighted = weights * values
    return xp.concat([weighted, xp.broadcast_to(weights, (*weighted.shape[:-1], 1))], axis=-1)


def _largest(factor: Any) -> float:
    return abs(factor) if isinstance(factor, float) else float(abs(factor).max())


def _affinities(xp: Any, x: Array, y: Array) -> Array:
    """``exp(<x_i, y_j>)``, the exponential in place."""
    products = x @ y.mT
    return xp.exp(products, out=products)


# --- sums over tiles


def _symmetric(form: Separated, size: int) -> Array:
    """Sums of ``exp(<x_i, y_j>) weighted_j`` over all j; each tile above the diagonal also serves its mirror image."""
    x, y, v, n = form.queries, form.sources, form.weighted, form.queries.shape[-2]
    if n <= size:
        return _affinities(form.xp, x, y) @ v
    sums = form.xp.zeros_like(v)
    for i in range(0, n, size):
        rows = slice(i, i + size)
        for j in range(i, n, size):
            columns = slice(j, j + size)
            tile = _affinities(form.xp, x[..., rows, :], y[..., columns, :])
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
        tile = _affinities(form.xp, x[..., i:end, :], y[..., first:last, :])
        if end - i > 1 and (low > -np.inf or high < np.inf):  # of one row, these columns are the window
            tile *= _inside(x, i, end, first, last, low, high)
        parts.append(tile @ v[..., first:last, :])
    return parts[0] if len(parts) == 1 else form.xp.concat(parts, axis=-2)


def _inside(x: Array, i: int, end: int, first: int, last: int, low: float, high: float) -> Array:
    offset = np.arange(i, end)[:, None] - np.arange(first, last)
    return like((offset >= low) & (offset <= high), x)


def _block_rows(x: Array, width: float) -> int:
    return max(1, int((DEVICE_PAIRS if _on_device(x) else BLOCK_PAIRS) // max(width, 1)))


def _on_device(x: Array) -> bool:
    return is_torch(x) and x.device.type != "cpu"


# --- every rule, by rows


def by_rows(interaction: Interaction, request: Request) -> Aggregate:
    """The reference, a block of queries at a time."""
    n, block = request.queries.shape[-2], _block_rows(request.queries, request.sources.shape[-2])
    if block >= n:
        return reference.aggregate(interaction, request)
    parts = [reference.aggregate(interaction, request.rows(i, min(i + block, n))) for i in range(0, n, block)]
    means, logs = zip(*parts, strict=True)
    return Aggregate(request.xp.concat(means, axis=-2), request.xp.concat(logs, axis=-1))
