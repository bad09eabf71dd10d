"""Bounded confidence and truncated scores in any dimension: only near sources are looked at, the ball is decided
exactly.

Cells or a k-d tree, whichever suits the data (`search`); no box, no number of cells to give. `Flat` means come from
integer sums, which no order of summation can change; other scores come from the lists of admitted pairs and the score
itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from krause_dynamics.forms.near.ball import Ball, is_worth, own_sources, unsupported
from krause_dynamics.interaction import Aggregate, Interaction, Others, Prepared, Request, Within

NEAR_SHARE = 0.1  # of the box around all: lists of pairs cost about ten times a dense pair
WORTH, WORTH_ONCE = 1 << 15, 4_000_000  # pairs, in a loop and in a single call


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None``, or the reason: float64 numpy points, one `Within`, `Others` at most beside it, scalar score
    parameters.
    """
    if interaction.score_arrays:
        return "it needs scalar score parameters"
    return unsupported(interaction, request)


def pays(interaction: Interaction, request: Request) -> bool:
    """Where all pairs are many, and with a score to evaluate, few of them near.

    A loop wins back the loading of compiled code (half a second, once a process) from some hundred points, a single
    call only where all pairs take as long; measured by ``benchmarks/choice.py``.
    """
    if not is_worth(request, WORTH, WORTH_ONCE) or not interaction.find(Within):
        return False
    if interaction.score.is_flat:
        return True
    extent = np.ptp(request.sources, axis=-2)
    share = np.prod(np.minimum(2 * interaction.reach / np.where(extent > 0, extent, np.inf), 1.0), axis=-1)
    return bool(np.mean(share) < NEAR_SHARE)


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """Mean and log Z as `krause_dynamics.interaction.reference.aggregate` defines them; see `supports`."""
    from krause_dynamics.forms.near import near_means

    return partial(_aggregate, interaction, near_means)


def _aggregate(interaction: Interaction, near_means: Any, request: Request) -> Aggregate:
    within, dimension = interaction.find(Within)[0], request.queries.shape[-1]
    log_mass = None if request.log_mass is None else request.log_mass[..., None]
    stacks = [request.queries, request.sources, request.values] + ([] if log_mass is None else [log_mass])
    radius = np.asarray(within.radius, dtype=np.float64)
    n, dv = request.queries.shape[-2], request.values.shape[-1]
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in stacks), radius.shape[:-1])
    radius = np.broadcast_to(radius, (*batch, n if radius.ndim and radius.shape[-1] > 1 else 1))
    arrays = [np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in stacks]
    own = own_sources(request) if interaction.find(Others) else np.full(n, -1)
    mean, log_partition = np.empty((*batch, n, dv)), np.empty((*batch, n))
    for index in np.ndindex(*batch):
        queries, sources, values = (np.ascontiguousarray(x[index]) for x in arrays[:3])
        sources = queries if request.queries is request.sources else sources
        values = sources if request.values is request.sources else values
        logs = np.zeros(sources.shape[0]) if log_mass is None else arrays[3][index][:, 0]
        entry = near_means.Entry(queries, sources, values, logs, Ball.of(within, radius[index], dimension), own)
        mean[index], log_partition[index] = near_means.means(interaction.score, request.xp, entry)
    return Aggregate(mean, log_partition)
