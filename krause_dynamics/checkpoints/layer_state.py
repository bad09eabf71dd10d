"""Hidden states of one layer, and what several measures ask of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import to_numpy
from krause_dynamics.analysis import clusters
from krause_dynamics.analysis.observables._state import Weighted, weighted
from krause_dynamics.analysis.observables.rank import of_gram

TOKENS = ("all", "without_first")
ROUNDING = 1e-5  # of a layer: what float32 leaves of equal tokens, over their size
Parts = tuple[Weighted | None, ...]


@dataclass(frozen=True)
class _WithoutFirst(Weighted):
    """Tokens but the first, whose directions are those of all: computed and held once."""

    whole: Weighted

    @cached_property
    def directions(self) -> Tensor:
        """Of the tokens, (b, T - 1, d)."""
        found: Tensor = self.whole.directions[:, 1:]
        return found

    @cached_property
    def doubled_directions(self) -> Tensor:
        """In float64."""
        found: Tensor = self.whole.doubled_directions[:, 1:]
        return found


def in_parts(tokens: Tensor) -> Parts:
    """All tokens (b, T, d), and those without the first."""
    whole = weighted(tokens)
    if tokens.shape[1] == 1:
        return whole, None
    points, present = whole.points[:, 1:], whole.present[:, 1:]
    return whole, _WithoutFirst(whole.xp, points, torch.ones_like(points[..., 0]) / points.shape[1], present, whole)


def are_apart(tokens: Tensor) -> Tensor:
    """Whether tokens (b, T, d) in float32 differ by more than its rounding, (b,)."""
    exact = tokens.double()
    away = (exact - exact.mean(1, keepdim=True)).norm(dim=(1, 2))
    return away > ROUNDING * exact.norm(dim=(1, 2))


class LayerState:
    """Hidden states of one layer, and what several measures ask of them, computed once.

    Attributes:
        tokens: (b, T, d) in float32.
        previous: The same of the layer before; None at the embedding.
        radii: Chords at which clusters are counted.
        moments: Mean (d,) and standard deviation (d,) of the tokens of the corpus in this layer; None: not known.
    """

    def __init__(
        self,
        tokens: Tensor,
        previous: Tensor | None,
        radii: np.ndarray,
        moments: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.tokens = tokens
        self.previous = previous
        self.radii = radii
        self.moments = moments

    @cached_property
    def parts(self) -> Parts:
        """All tokens, and those without the first, which most often is the attention sink; ``None``: none is left.

        Checked once for all observables.
        """
        return in_parts(self.tokens)

    @cached_property
    def spectra(self) -> tuple[Tensor | None, ...]:
        """Singular values of both parts, largest first, from one matrix of inner products in float64."""
        rest = to_numpy(self.tokens[:, 1:]).astype(np.float64)
        first = to_numpy(self.tokens[:, :1]).astype(np.float64)
        length, width = self.tokens.shape[1:]
        if length == 1:
            return torch.linalg.vector_norm(self.tokens, dim=-1), None
        if length <= width:
            whole = to_numpy(self.tokens).astype(np.float64)
            grams = whole @ whole.swapaxes(-1, -2)
            others = grams[:, 1:, 1:]
        else:
            others = rest.swapaxes(-1, -2) @ rest
            grams = others + first.swapaxes(-1, -2) * first
        return tuple(torch.from_numpy(of_gram(gram).astype(np.float32)) for gram in (grams, others))

    @cached_property
    def centred(self) -> Parts:
        """The parts, less the mean token of the corpus."""
        assert self.moments is not None
        return in_parts(self.tokens - self.moments[0].to(self.tokens))

    @cached_property
    def standardised(self) -> Parts:
        """The same with every dimension in units of its own spread over the corpus."""
        assert self.moments is not None
        mean, spread = (moment.to(self.tokens) for moment in self.moments)
        return in_parts((self.tokens - mean) / spread.clamp_min(torch.finfo(spread.dtype).tiny))

    @cached_property
    def trees(self) -> list[list[clusters.Curve]]:
        """Cluster curves of each sequence, of both parts as far as a token is left."""
        found = []
        for points in to_numpy(self.tokens):
            curve = clusters.curve(points, self.radii, metric="chord")
            found.append([curve, curve.without(0)] if len(points) > 1 else [curve])
        return found

    @cached_property
    def plateaus(self) -> np.ndarray:
        """Clusters on the widest plateau of each curve, and its largest over its smallest radius: (b, parts, 2)."""
        return self.of_trees(_plateau, np.nan)

    def of_trees(self, formula: Callable[[clusters.Curve], Any], missing: Any) -> np.ndarray:
        """An answer for each sequence and part, (b, parts, ...); ``missing`` where no token is left."""
        rows = [[formula(curve) for curve in curves] for curves in self.trees]
        nothing = np.full_like(rows[0][0], missing)
        return np.array([row + [nothing] * (len(TOKENS) - len(row)) for row in rows])


def _plateau(curve: clusters.Curve) -> list[float]:
    choice = clusters.choose_radius(curve) if len(curve.cloud.masses) > 1 else None
    return [np.nan, np.nan] if choice is None else [choice.count, choice.ratio]
