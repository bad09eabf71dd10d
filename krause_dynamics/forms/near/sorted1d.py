"""Bounded confidence on a line: sources sorted once, each neighbourhood a window, each mean a difference of prefix
sums.

O((n + m) log m) for any values, masses and radii; the mean agrees with exact summation to about one rounding. A run
of many steps keeps its sorted state in `krause_dynamics.forms.near.line.SortedLine`, where a step costs O(n).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from krause_dynamics.forms.near.ball import effective_radius, is_worth, own_sources, unsupported
from krause_dynamics.interaction.neighbourhoods import Others, Within
from krause_dynamics.interaction.request import Aggregate, Prepared, Request
from krause_dynamics.interaction.rules import Interaction
from krause_dynamics.interaction.steps import ManySteps, Steps

WORTH, WORTH_ONCE = 1 << 11, 1_000_000  # pairs, in a loop and in a single call


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None``, or the reason: float64 numpy opinions in one dimension, `Flat`, one `Within`, `Others` at most beside
    it.
    """
    if request.queries.shape[-1] != 1:
        return f"it needs one dimension, got {request.queries.shape[-1]}"
    if not interaction.score.is_flat:
        return f"it needs the Flat score, got {type(interaction.score).__name__}"
    return unsupported(interaction, request)


def pays(interaction: Interaction, request: Request) -> bool:
    """Where sorting is faster than all pairs; for a single call, where it wins back the loading of compiled code too.

    Sorted positions win from some fifty opinions (``benchmarks/choice.py``). Loading costs about half a second, once
    a process: a loop makes it good, a single call only where all pairs take as long.
    """
    return request.queries.shape[-1] == 1 and is_worth(request, WORTH, WORTH_ONCE)


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """Mean and log Z as `krause_dynamics.interaction.reference.aggregate` defines them; see `supports`."""
    from krause_dynamics.forms.near.sorted_means import means

    return partial(_aggregate, interaction, means)


def _aggregate(interaction: Interaction, means: Any, request: Request) -> Aggregate:
    n, m = request.queries.shape[-2], request.sources.shape[-2]
    log_mass = None if request.log_mass is None else request.log_mass[..., None]
    stacks = [request.queries, request.sources, request.values] + ([] if log_mass is None else [log_mass])
    (within,) = interaction.find(Within)
    radius = effective_radius(within)
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in stacks), radius.shape[:-1])
    mean = np.empty((*batch, n, request.values.shape[-1]))
    log_partition = np.empty((*batch, n))
    radius = np.broadcast_to(radius, (*batch, n if radius.ndim and radius.shape[-1] > 1 else 1))
    arrays = [np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in stacks]
    own = own_sources(request) if interaction.find(Others) else np.full(n, -1)
    for index in np.ndindex(*batch):
        queries, sources, values = (x[index] for x in arrays[:3])
        logs = np.zeros(m) if log_mass is None else arrays[3][index][:, 0]
        listeners = queries[:, 0]
        spoken = listeners if request.queries is request.sources else sources[:, 0]
        mean[index], log_partition[index] = means(listeners, spoken, values, logs, radius[index], own)
    return Aggregate(mean, log_partition)


def many_steps(interaction: Interaction, steps: Steps) -> ManySteps | None:
    """``(x, count) -> x`` for Euler steps of length 1 towards the mean, the classical model; else ``None``."""
    classical = steps.scheme.method == "euler" and steps.dt == 1.0 and steps.relative and not steps.sphere
    (within,) = interaction.find(Within)
    padded = steps.log_mass is not None and bool((steps.log_mass == -np.inf).any())
    alone = len(interaction.parts) == 1 and np.ndim(within.radius) == 0
    if not (classical and alone and interaction.normalised) or padded:
        return None
    from krause_dynamics.forms.near.line import SortedLine

    radius, logs = float(effective_radius(within)), steps.log_mass
    masses = 1.0 if logs is None else np.exp(logs - logs.max(axis=-1, keepdims=True))

    def advance(x: np.ndarray, count: int) -> np.ndarray:
        result, weights = np.empty_like(x), np.broadcast_to(masses, x.shape[:-1])
        for index in np.ndindex(*x.shape[:-2]):
            line = SortedLine(x[index][:, 0], radius, 0.0, masses=weights[index])
            line.advance(count)
            result[index] = line.positions[:, None]
        return result

    return advance
