"""What else moves an opinion: noise after each step, and attraction to a truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import PARAMETER, POSITIVE_PARAMETER, Real
from krause_dynamics._array import Array, like
from krause_dynamics._value import Value

ANY = Real(-np.inf, np.inf, "[]")  # an end may be infinite


class Noise(Value, ABC):
    """Acts on all opinions after each unit of time."""

    @abstractmethod
    def disturb(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Disturbed copy of the opinions (n, d)."""


@dataclass(frozen=True, eq=False)
class StepNoise(Noise):
    """Every opinion is shifted by independent noise, then cut to ``[low, high]`` where these are given.

    Attributes:
        std: Standard deviation per coordinate and step, positive; in units of position.
        law: ``"normal"``, or ``"uniform"`` on an interval of that standard deviation.
        low: Smallest opinion.
        high: Largest opinion.
    """

    std: float
    law: str = "normal"
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("std", self.std)
        if self.law not in ("normal", "uniform"):
            raise ValueError(f"law must be 'normal' or 'uniform', got {self.law!r}")
        low, high = (ANY.read(name, getattr(self, name)) for name in ("low", "high"))
        if not low < high:
            raise ValueError(f"low must be less than high, got {low!r} and {high!r}")

    def disturb(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.law == "normal":
            shift = rng.normal(scale=self.std, size=x.shape)
        else:
            shift = self.std * np.sqrt(3.0) * rng.uniform(-1.0, 1.0, size=x.shape)
        return np.clip(x + shift, self.low, self.high)


@dataclass(frozen=True, eq=False)
class RandomRelocation(Noise):
    """Every opinion is, with a small probability per step, replaced by a uniform one (Pineda, Toral &
    Hernandez-Garcia 2009: free will).

    Attributes:
        probability: Per agent and unit of time, in (0, 1].
        low: Lower end of the interval of new opinions, the same in each coordinate.
        high: Upper end.
    """

    probability: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        Real(0.0, 1.0, "(]").read("probability", self.probability)
        low, high = (Real().read(name, getattr(self, name)) for name in ("low", "high"))
        if not low < high:
            raise ValueError(f"low must be less than high, got {low!r} and {high!r}")

    def disturb(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = np.flatnonzero(rng.random(x.shape[0]) < self.probability)
        x = x.copy()
        x[chosen] = rng.uniform(self.low, self.high, size=(chosen.size, x.shape[1]))
        return x


@dataclass(frozen=True, eq=False)
class TruthSeeking(Value):
    """Part of every step goes towards a truth: ``x_i <- (1 - a_i) mean_i + a_i truth`` (Hegselmann & Krause 2006, eq.
    2).

    In continuous time it is the drift ``a_i (truth - x_i)`` beside the opinions of others (call it with ``(t, x)``).

    Attributes:
        truth: A number or (d,).
        strength: a, in [0, 1]: a number, or one per agent (n,); 0 for those who do not seek.
    """

    truth: Any
    strength: Any

    def __post_init__(self) -> None:
        PARAMETER.read("truth", self.truth)
        PARAMETER.read("strength", self.strength)
        if (np.asarray(self.strength) < 0).any() or (np.asarray(self.strength) > 1).any():
            raise ValueError(f"strength must lie in [0, 1], got {self.strength!r}")

    def mix(self, heard: np.ndarray) -> np.ndarray:
        """One discrete step from what everybody heard, (n, d)."""
        strength = self._column(heard)
        return (1.0 - strength) * heard + strength * np.asarray(self.truth, dtype=heard.dtype)

    def __call__(self, t: float, x: Array) -> Array:
        """The drift in continuous time, (..., n, d)."""
        return self._column(x) * (like(self.truth, x) - x)

    def _column(self, x: Array) -> Array:
        strength = like(self.strength, x)
        if strength.ndim and tuple(strength.shape) != (x.shape[-2],):
            raise ValueError(f"strength must be a number or (n,) = ({x.shape[-2]},), got {tuple(strength.shape)}")
        return strength[:, None] if strength.ndim else strength
