"""What is measured of the tokens' way from the layer before: steps, likeness of the two clouds, transport."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import to_numpy
from krause_dynamics.analysis import measures as distances
from krause_dynamics.analysis import observables
from krause_dynamics.checkpoints.layer_state import LayerState, are_apart
from krause_dynamics.checkpoints.measure import Measure, of_state

ASSIGNED = 512  # tokens that are assigned one to one: a quarter of a second a layer, growing as their third power


def _between(formula: Callable[[Tensor, Tensor], Any]) -> Callable[[LayerState], Tensor]:
    """A formula of a layer and the one before, (b, 2); NaN at the embedding and where no token is left."""

    def answer(state: LayerState) -> Tensor:
        found = torch.full((len(state.tokens), 2), torch.nan)
        if state.previous is not None:
            for part in range(min(2, state.tokens.shape[1])):
                before, after = state.previous[:, part:], state.tokens[:, part:]
                found[:, part] = torch.as_tensor(formula(before, after)).to(found)
        return found

    return answer


def _step(state: LayerState) -> Tensor:
    """`observables.mean_step` of both parts from one pass over the tokens."""
    found = torch.full((len(state.tokens), 2), torch.nan)
    if state.previous is not None:
        step, norm = (state.tokens - state.previous).norm(dim=-1), state.previous.norm(dim=-1)
        relative = torch.where(step > 0, step / norm, 0.0)
        found[:, 0] = relative.mean(-1)
        found[:, 1] = relative[:, 1:].mean(-1)  # NaN where no token is left
    return found


def _of_shapes(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A formula of two clouds without their means, (b,); NaN where those are rounding, of equal tokens."""

    def answer(before: Tensor, after: Tensor) -> Tensor:
        found = formula(before.double(), after.double())
        return found.masked_fill(~(are_apart(before) & are_apart(after)).to(found.device), torch.nan)

    return answer


def _cka(before: Tensor, after: Tensor, *, shuffled: bool = False) -> Tensor:
    """Debiased; NaN of fewer than four tokens."""
    if before.shape[1] < 4:
        return torch.full((len(before),), torch.nan)
    if shuffled:
        after = after[:, torch.randperm(after.shape[1], generator=torch.Generator().manual_seed(0))]
    alike: Tensor = observables.linear_cka(before, after)
    return alike


def _transport(before: Tensor, after: Tensor) -> list[float]:
    """Sliced W2 of the clouds, times sqrt(d): for a cloud that moves as one the length of the step; over the size."""
    found = []
    for x, y in zip(to_numpy(before), to_numpy(after), strict=True):
        size = np.sqrt(np.mean(np.sum(x.astype(float) ** 2, -1))) or np.nan
        found.append(distances.sliced(x, y) * np.sqrt(x.shape[-1]) / size)
    return found


def _transport_exact(before: Tensor, after: Tensor) -> list[float]:
    """W2 of the clouds, tokens of equal mass assigned one to one, over the size; NaN of more tokens than `ASSIGNED`."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    found = []
    for x, y in zip(to_numpy(before.double()), to_numpy(after.double()), strict=True):
        if len(x) > ASSIGNED:
            return [np.nan] * len(before)
        size = np.sqrt(np.mean(np.sum(x**2, -1))) or np.nan
        costs = cdist(x, y, "sqeuclidean")
        found.append(np.sqrt(costs[linear_sum_assignment(costs)].mean()) / size)
    return found


MEASURES: tuple[Measure, ...] = (
    of_state("step", "mean step of the tokens from the layer before, over their norms", _step, "tokens"),
    of_state("cka", "debiased linear CKA with the layer before", _between(_of_shapes(_cka)), "tokens", extra=True),
    of_state(
        "cka_null",
        "the same with the tokens of this layer in another order: what no relation gives",
        _between(_of_shapes(partial(_cka, shuffled=True))),
        "tokens",
        extra=True,
    ),
    of_state(
        "procrustes",
        "residual of the best rotation, shift and scale from the layer before",
        _between(_of_shapes(observables.procrustes_residual)),
        "tokens",
        extra=True,
    ),
    of_state(
        "transport",
        "sliced W2 from the layer before, times sqrt(d), over the root mean square norm there",
        _between(_transport),
        "tokens",
        extra=True,
    ),
    of_state(
        "transport_exact",
        f"W2 from the layer before, over the root mean square norm there (up to {ASSIGNED} tokens)",
        _between(_transport_exact),
        "tokens",
        extra=True,
    ),
)
