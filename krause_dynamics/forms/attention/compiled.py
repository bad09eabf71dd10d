"""Small softmax and Gaussian flows compiled: one drift in a few microseconds, and many steps in one call."""

from __future__ import annotations

import numpy as np

from krause_dynamics._array import Array, is_torch
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.interaction.steps import ManySteps, Steps


def supports(interaction: Interaction, request: Request) -> str | None:
    """For numpy float64: dot products or Gaussians with one number as parameter, index windows, sources = queries."""
    if is_torch(request.queries) or request.queries.dtype != np.float64:
        return "it is compiled for numpy float64"
    if request.queries is not request.sources or request.values is not request.sources:
        return "it needs queries, sources and values to be the same positions"
    if request.log_mass is not None and np.isneginf(request.log_mass).any():
        return "it knows no padding (log_mass = -inf)"
    if not request.positions_are_ranks and interaction.neighbourhood.reach != Reach():
        return "it counts places from 0 and takes no query_index or source_index"
    return _unsupported_rule(interaction)


def pays(interaction: Interaction, request: Request) -> bool:
    """Never by itself: compiling takes seconds at first use; ask with ``impl="compiled"`` for long runs of few."""
    return False


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`reference.aggregate` within rounding, row by row, O(n) memory."""
    from krause_dynamics.forms.attention import attention_kernels as kernels

    def aggregate(request: Request) -> Aggregate:
        x = request.queries
        n, d = x.shape[-2:]
        flat, rule = x.reshape(-1, n, d), _numbers(interaction, n)
        masses = np.broadcast_to(np.zeros(n) if request.log_mass is None else request.log_mass, x.shape[:-1])
        mean, log_partition = np.empty_like(flat), np.empty(flat.shape[:2])
        column, buffer, out = np.empty(n), np.empty(n), np.empty((d, n))
        for run, log_mass in enumerate(masses.reshape(-1, n)):
            positions = np.ascontiguousarray(flat[run].T)
            kernels.hear(positions, rule, log_mass.copy(), out, log_partition[run], column, buffer)
            mean[run] = out.T
        return Aggregate(mean.reshape(x.shape), log_partition.reshape(x.shape[:-1]))

    return aggregate


def many_steps(interaction: Interaction, steps: Steps) -> ManySteps:
    """``(x, count) -> x`` for each scheme there is."""
    from krause_dynamics.forms.attention import attention_kernels as kernels

    form = (interaction.normalised, steps.relative, steps.sphere, steps.scheme.projected)
    method = kernels.METHODS[steps.scheme.method]

    def advance(x: Array, count: int) -> Array:
        n, d = x.shape[-2:]
        result, rule = np.ascontiguousarray(x.reshape(-1, n, d).mT), _numbers(interaction, n)
        given = np.full(n, -np.log(n)) if steps.log_mass is None else steps.log_mass
        masses = np.array(np.broadcast_to(given, x.shape[:-1]).reshape(-1, n))
        for positions, log_mass in zip(result, masses, strict=True):
            kernels.advance(positions, rule, form, log_mass, steps.dt, count, method)
        return np.ascontiguousarray(result.mT).reshape(x.shape)

    return advance


def _numbers(interaction: Interaction, n: int) -> tuple[float, bool, int, int]:
    """(a, depends on the distance alone, low, high) with ``low <= i - j <= high``."""
    reach, coefficients = interaction.neighbourhood.reach, interaction.score.coefficients()
    assert isinstance(reach, Reach)
    assert coefficients is not None
    low, high = reach.offsets
    return float(coefficients.inner), interaction.score.of_distance, int(max(low, -n)), int(min(high, n))


def _unsupported_rule(interaction: Interaction) -> str | None:
    score, reach = interaction.score, interaction.neighbourhood.reach
    form = score.coefficients()
    if form is None or not (score.of_distance or form.is_product) or interaction.pair_bias is not None:
        return "it computes dot products and Gaussians without a pair bias"
    if not form.are_numbers:
        return "it takes one number as beta or sigma"
    if isinstance(reach, str) or not reach.is_band:
        return "it knows no neighbourhoods but everyone, causal and windows"
    return None
