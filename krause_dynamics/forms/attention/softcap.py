"""Soft-capped scores, which some trained models use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from krause_dynamics._array import Array
from krause_dynamics.interaction import Score


@dataclass(frozen=True, eq=False)
class SoftCapped(Score):
    """``cap tanh(s / cap)``: a score whose size never exceeds the cap (Gemma 2, arXiv:2408.00118).

    Attributes:
        score: The score s.
        cap: Largest size, positive.
    """

    score: Score
    cap: float

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ValueError(f"cap must be positive, got {self.cap!r}; leave the score as it is where there is none")

    def coefficients(self) -> None:
        return None

    def __call__(self, xp: Any, queries: Array, sources: Array) -> Array:
        return self.cap * xp.tanh(self.score(xp, queries, sources) / self.cap)
