"""What is measured of the hidden states of one layer, all tokens and those without the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import namespace, to_numpy
from krause_dynamics.analysis import clusters, observables
from krause_dynamics.analysis.observables.rank import exp_entropy
from krause_dynamics.checkpoints.layer_state import ROUNDING, LayerState, Parts
from krause_dynamics.checkpoints.measure import Measure, of_state

SPECTRUM = 32  # singular values that are listed


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
    return _over(norms[..., 0], np.median(norms, axis=-1))


def _massive_activation(state: LayerState) -> np.ndarray:
    sizes = np.abs(to_numpy(state.tokens)).reshape(len(state.tokens), -1)
    return _over(sizes.max(-1), np.median(sizes, axis=-1))


def _over(values: np.ndarray, median: np.ndarray) -> np.ndarray:
    """NaN where the median is 0, as `observables.norm_ratio`: tokens that start at 0 (YOLOS) are no fault."""
    return np.divide(values, median, out=np.full_like(values, np.nan), where=median > 0)


def _dimension(parts: Parts) -> Tensor:
    """TwoNN of the tokens of each sequence; those that differ by rounding are one."""
    return _answered(parts, lambda part: [observables.two_nn(_different(points)) for points in to_numpy(part.points)])


def _different(points: np.ndarray) -> np.ndarray:
    """One of each group of points (T, d) that are closer than the rounding of their size."""
    size = float(np.sqrt(np.mean(np.sum(points.astype(float) ** 2, -1))))
    if size == 0.0:
        return points[:1]
    groups = clusters.labels(points, ROUNDING * size)
    return points[np.unique(groups, return_index=True)[1]]


def _variants(kind: str, told: str) -> tuple[Measure, ...]:
    """Measures of directions, of tokens brought to another origin or other units."""

    def of(observable: Callable[[Any], Any]) -> Callable[[LayerState], Tensor]:
        return lambda state: _answered(getattr(state, kind), observable)

    rest = {"extra": True, "centred": True}
    return (
        of_state(f"mean_cosine_{kind}", f"mean cosine, {told}", of(observables.mean_cosine), "tokens", **rest),
        of_state(
            f"order_parameter_{kind}", f"order parameter, {told}", of(observables.order_parameter), "tokens", **rest
        ),
        of_state(f"effective_rank_{kind}", f"effective rank, {told}", of(observables.effective_rank), "tokens", **rest),
    )


MEASURES: tuple[Measure, ...] = (
    of_state(
        "order_parameter",
        "norm of the mean direction",
        _of_parts(observables.order_parameter),
        "tokens",
    ),
    of_state(
        "mean_cosine",
        "mean cosine between different tokens",
        _of_parts(observables.mean_cosine),
        "tokens",
    ),
    of_state(
        "residual",
        "Frobenius norm of X minus its mean row, over that of X",
        _of_parts(observables.residual),
        "tokens",
    ),
    of_state(
        "effective_rank",
        "exponential of the entropy of the normalised singular values",
        _of_spectra(_effective_rank),
        "tokens",
    ),
    of_state(
        "matrix_entropy",
        "entropy of the normalised squared singular values (nats)",
        _of_spectra(lambda values: _effective_rank(values.square()).log()),
        "tokens",
    ),
    of_state(
        "stable_rank",
        "squared Frobenius over squared spectral norm",
        _of_spectra(lambda values: _relative(values).sum(-1)),
        "tokens",
    ),
    of_state("norm_ratio", "norm of the first token over the median norm", _norm_ratio),
    of_state(
        "spectrum",
        "singular values over the largest",
        _of_spectra(_spectrum),
        "tokens",
        "singular_value",
        extra=True,
    ),
    of_state(
        "participation_ratio",
        "(sum s^2)^2 / sum s^4 of the tokens less their own mean",
        _of_parts(observables.participation_ratio),
        "tokens",
        extra=True,
    ),
    of_state(
        "massive_activation",
        "largest entry in size over the median entry in size",
        _massive_activation,
        extra=True,
    ),
    of_state(
        "intrinsic_dimension",
        "dimension of the tokens by TwoNN",
        lambda state: _dimension(state.parts),
        "tokens",
        extra=True,
    ),
    *_variants("centred", "less the mean token of the corpus"),
    *_variants("standardised", "less the mean token of the corpus, each dimension over its spread there"),
)
