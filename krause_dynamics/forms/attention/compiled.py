"""Small softmax and Gaussian flows compiled: one drift in a few microseconds, and many steps in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._array import Array, is_torch
from krause_dynamics.interaction import Aggregate, DotProduct, Gaussian, Interaction, Prepared, Request
from krause_dynamics.interaction.reach import Reach

if TYPE_CHECKING:
    from krause_dynamics.dynamics.flow import Flow
    from krause_dynamics.integrators import Integrator


def supports(interaction: Interaction, request: Request) -> str | None:
    """For numpy float64: dot products or Gaussians with one number as parameter, index windows, sources = queries."""
    if is_torch(request.queries) or request.queries.dtype != np.float64:
        return "it is compiled for numpy float64"
    if request.queries is not request.sources or request.values is not request.sources:
        return "it needs queries, sources and values to be the same positions"
    if request.log_mass is not None and np.isneginf(request.log_mass).any():
        return "it knows no padding (log_mass = -inf)"
    return _unsupported_rule(interaction)


def pays(interaction: Interaction, request: Request) -> bool:
    """Never by itself: compiling takes seconds at first use; ask with ``impl="compiled"`` for long runs of few."""
    return False


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """`reference.aggregate` within rounding, row by row, O(n) memory."""
    from krause_dynamics.forms.attention import attention_kernels as kernels

    x = request.queries
    n, d = x.shape[-2:]
    flat = x.reshape(-1, n, d)
    masses = np.broadcast_to(np.zeros(n) if request.log_mass is None else request.log_mass, x.shape[:-1])
    mean, log_partition = np.empty_like(flat), np.empty(flat.shape[:2])
    column, buffer, out = np.empty(n), np.empty(n), np.empty((d, n))
    for run, log_mass in enumerate(masses.reshape(-1, n)):
        positions = np.ascontiguousarray(flat[run].T)
        kernels.hear(positions, _rule(interaction, n), log_mass.copy(), out, log_partition[run], column, buffer)
        mean[run] = out.T
    return Aggregate(mean.reshape(x.shape), log_partition.reshape(x.shape[:-1]))


def advance(flow: Flow, integrator: Integrator, dt: float) -> Callable[[Array, int], Array] | None:
    """``(x, steps) -> x`` for Euler, RK4 or a post-norm layer; ``None`` where the dynamics holds more than a rule."""
    dynamics = flow.dynamics
    name, space = type(integrator).__name__, type(flow.space).__name__  # both live above this module
    extras = (dynamics.query, dynamics.key, dynamics.value, dynamics.external, dynamics.fixed, dynamics.read)
    plain = space in ("Euclidean", "Sphere", "Circle") and all(part is None for part in extras)
    known = name in ("Euler", "RK4") or (name == "LayerStep" and integrator.skip)  # type: ignore[attr-defined]
    if not (plain and known and isinstance(dynamics.rule, Interaction)):
        return None
    from krause_dynamics.forms.attention import attention_kernels as kernels

    rule = dynamics.rule
    form = (rule.normalised, dynamics.is_relative, space != "Euclidean", name != "LayerStep")
    method = kernels.RK4 if name == "RK4" else kernels.EULER

    def steps_from(x: Array, steps: int) -> Array:
        n, d = x.shape[-2:]
        result = np.ascontiguousarray(x.reshape(-1, n, d).mT)
        for positions, log_mass in zip(result, _masses(flow, x), strict=True):
            kernels.advance(positions, _rule(rule, n), form, log_mass, float(dt), steps, method)
        return np.ascontiguousarray(result.mT).reshape(x.shape)

    return steps_from


def _masses(flow: Flow, x: Array) -> Array:
    """Log-masses (runs, n) of a state (*batch, n, d)."""
    n = x.shape[-2]
    given = np.full(n, -np.log(n)) if flow.log_mass is None else flow.log_mass
    return np.array(np.broadcast_to(given, x.shape[:-1]).reshape(-1, n))


def _rule(interaction: Interaction, n: int) -> tuple[float, bool, int, int]:
    """(a, is Gaussian, low, high) with ``low <= i - j <= high``."""
    reach = interaction.neighbourhood.reach
    assert isinstance(reach, Reach)
    low, high = reach.offsets
    inner = float(interaction.score.coefficients().inner)  # type: ignore[union-attr]
    return inner, isinstance(interaction.score, Gaussian), int(max(low, -n)), int(min(high, n))


def _unsupported_rule(interaction: Interaction) -> str | None:
    if not isinstance(interaction.score, DotProduct | Gaussian) or interaction.pair_bias is not None:
        return "it computes dot products and Gaussians without a pair bias"
    if getattr(interaction.score.coefficients().inner, "ndim", 0):
        return "it takes one number as beta or sigma"
    reach = interaction.neighbourhood.reach
    if isinstance(reach, str) or not reach.is_band:
        return "it knows no neighbourhoods but everyone, causal and windows"
    return None
