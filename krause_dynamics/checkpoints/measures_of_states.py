"""What is measured of hidden states, all tokens and those without the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import namespace, to_numpy
from krause_dynamics.analysis import clusters, observables
from krause_dynamics.analysis import measures as distances
from krause_dynamics.analysis.observables.rank import exp_entropy
from krause_dynamics.checkpoints.layer_state import LayerState, Parts
from krause_dynamics.checkpoints.measure import Measure

SPECTRUM, LIVES = 32, 8  # singular values and lifetimes that are listed
ASSIGNED = 512  # tokens that are assigned one to one: a quarter of a second a layer, growing as their third power
JOIN = ("one", "other", "chord", "size_of_one", "size_of_other")  # of a merge tree
MERGES = 63  # of the merge tree, the last ones: 64 groups fill the width of a picture


def _answered(parts: Any, formula: Callable[[Any], Any]) -> Tensor:
    """A formula of each part, (b, 2, ...); NaN where no token is left."""
    found = [None if part is None else torch.as_tensor(formula(part)) for part in parts]
    whole = found[0]
    assert whole is not None
    return torch.stack([torch.full_like(whole, torch.nan) if part is None else part for part in found], dim=1)


def _of_parts(observable: Callable[[Any], Any]) -> Callable[[LayerState], Tensor]:
    return lambda state: _answered(state.parts, observable)


def _of_spectra(formula: Callable[[Tensor], Tensor]) -> Callable[[LayerState], Tensor]:
    return lambda state: _answered(state.spectra, formula)


def _effective_rank(values: Tensor) -> Tensor:
    rank: Tensor = exp_entropy(namespace(values=values), values)
    return rank


def _relative(values: Tensor) -> Tensor:
    """Squares over the largest; 0 of a zero matrix."""
    return (values / values[..., :1].clamp_min(torch.finfo(values.dtype).tiny)).square()


def _spectrum(values: Tensor) -> Tensor:
    first = _relative(values).sqrt()[..., :SPECTRUM]
    return torch.nn.functional.pad(first, (0, SPECTRUM - first.shape[-1]), value=torch.nan)


def _norm_ratio(state: LayerState) -> np.ndarray:
    norms = np.linalg.norm(to_numpy(state.tokens), axis=-1)
    ratio: np.ndarray = norms[..., 0] / np.median(norms, axis=-1)
    return ratio


def _massive_activation(state: LayerState) -> np.ndarray:
    sizes = np.abs(to_numpy(state.tokens)).reshape(len(state.tokens), -1)
    ratio: np.ndarray = sizes.max(-1) / np.median(sizes, axis=-1)
    return ratio


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


def _cka(before: Tensor, after: Tensor, *, shuffled: bool = False) -> Tensor:
    """Debiased; NaN of fewer than four tokens."""
    if before.shape[1] < 4:
        return torch.full((len(before),), torch.nan)
    if shuffled:
        after = after[:, torch.randperm(after.shape[1], generator=torch.Generator().manual_seed(0))]
    alike: Tensor = observables.linear_cka(before.double(), after.double())
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


def _dimension(parts: Parts) -> Tensor:
    """TwoNN of the tokens of each sequence."""
    return _answered(parts, lambda part: [observables.two_nn(points) for points in to_numpy(part.points)])


def _lives(curve: clusters.Curve) -> np.ndarray:
    """Absorption over formation of the components of at least two tokens, longest first; infinite for the last."""
    ratios = clusters.persistence(curve, members=2).ratio[:LIVES]
    return np.pad(ratios, (0, LIVES - len(ratios)), constant_values=np.nan)


def _merges(curve: clusters.Curve) -> np.ndarray:
    """The last `MERGES` joins of the tree: both groups, the chord, and how many tokens each has; NaN where fewer are.

    Groups are counted from 0 in the order of their first tokens, and those made by join i from g + i, with g groups.
    """
    rows, m = clusters.linkage(curve), len(curve.cloud.masses)
    kept = rows[-MERGES:] if m > 1 else rows
    before = len(rows) - len(kept)  # joins that are not shown: their groups are the leaves
    sizes = np.concatenate([np.ones(m), rows[:, 3]])
    first = np.arange(m + len(rows))
    for row, (one, other) in enumerate(rows[:, :2].astype(int)):
        first[m + row] = min(first[one], first[other])
    named = kept[:, :2].astype(int)
    leaves = np.sort(named[named < m + before])
    numbers = np.empty(m + len(rows), int)
    numbers[leaves[np.argsort(first[leaves])]] = np.arange(len(leaves))
    numbers[m + before :] = len(leaves) + np.arange(len(kept))
    named = np.take_along_axis(named, np.argsort(numbers[named], axis=1), axis=1)
    found = np.full((MERGES, len(JOIN)), np.nan)
    found[: len(kept)] = np.column_stack([numbers[named], kept[:, 2], sizes[named]])
    return found


def _state(name: str, long_name: str, formula: Callable[[LayerState], Any], *further: str, **rest: Any) -> Measure:
    return Measure(name, ("sequence", "layer", *further), long_name, "state", formula, **rest)


def _variants(kind: str, told: str) -> tuple[Measure, ...]:
    """Measures of directions, of tokens brought to another origin or other units."""

    def of(observable: Callable[[Any], Any]) -> Callable[[LayerState], Tensor]:
        return lambda state: _answered(getattr(state, kind), observable)

    rest = {"extra": True, "centred": True}
    return (
        _state(f"mean_cosine_{kind}", f"mean cosine, {told}", of(observables.mean_cosine), "tokens", **rest),
        _state(
            f"order_parameter_{kind}", f"order parameter, {told}", of(observables.order_parameter), "tokens", **rest
        ),
        _state(f"effective_rank_{kind}", f"effective rank, {told}", of(observables.effective_rank), "tokens", **rest),
    )


MEASURES: tuple[Measure, ...] = (
    _state(
        "order_parameter",
        "norm of the mean direction",
        _of_parts(observables.order_parameter),
        "tokens",
    ),
    _state(
        "mean_cosine",
        "mean cosine between different tokens",
        _of_parts(observables.mean_cosine),
        "tokens",
    ),
    _state(
        "residual",
        "Frobenius norm of X minus its mean row, over that of X",
        _of_parts(observables.residual),
        "tokens",
    ),
    _state(
        "effective_rank",
        "exponential of the entropy of the normalised singular values",
        _of_spectra(_effective_rank),
        "tokens",
    ),
    _state(
        "matrix_entropy",
        "entropy of the normalised squared singular values (nats)",
        _of_spectra(lambda values: _effective_rank(values.square()).log()),
        "tokens",
    ),
    _state(
        "stable_rank",
        "squared Frobenius over squared spectral norm",
        _of_spectra(lambda values: _relative(values).sum(-1)),
        "tokens",
    ),
    _state("step", "mean step of the tokens from the layer before, over their norms", _step, "tokens"),
    _state(
        "clusters",
        "connected components at a chord of at most radius",
        lambda state: state.of_trees(lambda curve: curve.count, -1),
        "tokens",
        "radius",
    ),
    _state(
        "effective_clusters",
        "1 / sum of squared shares of the clusters",
        lambda state: state.of_trees(lambda curve: curve.effective_number, np.nan).astype(np.float32),
        "tokens",
        "radius",
    ),
    _state(
        "plateau_clusters",
        "clusters on the widest plateau of the curve, in log radius",
        lambda state: state.plateaus[..., 0],
        "tokens",
    ),
    _state(
        "plateau_ratio",
        "largest over smallest radius of that plateau",
        lambda state: state.plateaus[..., 1],
        "tokens",
    ),
    _state("norm_ratio", "norm of the first token over the median norm", _norm_ratio),
    _state(
        "persistence",
        "radius of absorption over that of formation of the components of two tokens or more, longest first",
        lambda state: state.of_trees(_lives, np.nan),
        "tokens",
        "life",
        extra=True,
    ),
    _state(
        "merge_tree",
        "last joins of the merge tree of a sequence, without the first token: both groups, the chord, their sizes",
        lambda state: state.of_trees(_merges, np.nan)[:, 1],
        "merge",
        "join",
        extra=True,
    ),
    _state(
        "spectrum",
        "singular values over the largest",
        _of_spectra(_spectrum),
        "tokens",
        "singular_value",
        extra=True,
    ),
    _state(
        "participation_ratio",
        "(sum s^2)^2 / sum s^4 of the tokens less their own mean",
        _of_parts(observables.participation_ratio),
        "tokens",
        extra=True,
    ),
    _state(
        "massive_activation",
        "largest entry in size over the median entry in size",
        _massive_activation,
        extra=True,
    ),
    _state("cka", "debiased linear CKA with the layer before", _between(_cka), "tokens", extra=True),
    _state(
        "cka_null",
        "the same with the tokens of this layer in another order: what no relation gives",
        _between(partial(_cka, shuffled=True)),
        "tokens",
        extra=True,
    ),
    _state(
        "procrustes",
        "residual of the best rotation, shift and scale from the layer before",
        _between(lambda before, after: observables.procrustes_residual(before.double(), after.double())),
        "tokens",
        extra=True,
    ),
    _state(
        "transport",
        "sliced W2 from the layer before, times sqrt(d), over the root mean square norm there",
        _between(_transport),
        "tokens",
        extra=True,
    ),
    _state(
        "transport_exact",
        f"W2 from the layer before, over the root mean square norm there (up to {ASSIGNED} tokens)",
        _between(_transport_exact),
        "tokens",
        extra=True,
    ),
    _state(
        "intrinsic_dimension",
        "dimension of the tokens by TwoNN",
        lambda state: _dimension(state.parts),
        "tokens",
        extra=True,
    ),
    *_variants("centred", "less the mean token of the corpus"),
    *_variants("standardised", "less the mean token of the corpus, each dimension over its spread there"),
)
