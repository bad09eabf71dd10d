"""An interaction: score x neighbourhood x normalisation, as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from krause_dynamics._arguments import FLAG, Is, reads
from krause_dynamics._array import may_look, to_numpy
from krause_dynamics._value import Value
from krause_dynamics.interaction.neighbourhoods import Everyone, Neighbourhood, TopK, Within
from krause_dynamics.interaction.scores import DotProduct, Flat, Gaussian, Score


@dataclass(frozen=True, eq=False)
class Interaction(Value):
    """Who listens to whom and how much; it means nothing until it meets sources y_j with masses m_j:

    ``Z_i = sum_{j in N(i)} m_j exp s(x_i, y_j)``, ``A_i = (1/Z_i) sum_{j in N(i)} m_j exp s(x_i, y_j) v_j``.

    Attributes:
        score: Log-affinity of a pair.
        neighbourhood: Who is admitted; join several with ``&``.
        normalised: ``True``: row-stochastic, the drift is A; ``False``: per capita, the drift is Z A with masses 1/n.
        pair_bias: Optional log-weights of index pairs, broadcastable to (*batch, N, N), numbers or -inf, added to the
            score (graph weights, relative positions). It takes part in the ranking of `TopK`.
    """

    score: Score
    neighbourhood: Neighbourhood = field(default_factory=Everyone)
    normalised: bool = True
    pair_bias: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.score, Score):
            raise TypeError(f"score must be a Score such as kd.Gaussian(sigma=1.0), got {self.score!r}")
        if not isinstance(self.neighbourhood, Neighbourhood):
            raise TypeError(f"neighbourhood must be one such as kd.Within(0.5), got {self.neighbourhood!r}")
        FLAG.read("normalised", self.normalised)
        if self.pair_bias is not None:
            _check_bias(self.pair_bias)

    @property
    def is_exchangeable(self) -> bool:
        """Whether the rule is a function of the measure alone (no indices, no ranks): what a mean field needs."""
        radii_alike = all(np.ndim(to_numpy(part.radius)) == 0 for part in self.find(Within))
        return self.neighbourhood.is_exchangeable and self.pair_bias is None and radii_alike

    @cached_property
    def parts(self) -> tuple[Neighbourhood, ...]:
        """Elementary neighbourhoods, `TopK` last."""
        return self.neighbourhood.parts

    def find(self, kind: type[Any]) -> tuple[Any, ...]:
        """The elementary neighbourhoods of one type."""
        return tuple([part for part in self.parts if isinstance(part, kind)])

    @cached_property
    def top_k(self) -> TopK | None:
        """The ranking, where there is one."""
        return next(iter(self.find(TopK)), None)

    @property
    def reach(self) -> float:
        """Distance beyond which nobody counts: the radius, or 8.7 sigma where the affinity is below 4e-17; else inf."""
        return min([self.score.reach, *(float(np.max(to_numpy(part.radius))) for part in self.find(Within))])

    @property
    def length(self) -> float:
        """The shortest length over which the affinity changes, unit: position; inf where it does not or is unknown."""
        return min([self.score.length, *(float(np.min(to_numpy(part.radius))) for part in self.find(Within))])

    @cached_property
    def score_arrays(self) -> dict[str, Any]:
        """Parameters of the score that differ between listeners, heads or runs, by name."""
        return {name: value for name, value in vars(self.score).items() if getattr(value, "shape", ())}

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The same with the radius."""
        radii = [part.radius for part in self.find(Within) if getattr(part.radius, "shape", ())]
        return self.score_arrays | ({"radius": radii[0]} if radii else {})

    def varies_by_query(self, n: int) -> bool:
        """Whether a parameter has one value for each of ``n`` listeners."""
        if not self.arrays or n == 1:
            return False
        return any(value.shape[-1] == n for value in self.arrays.values())

    @cached_property
    def hears_itself(self) -> bool:
        """Whether every row admits somebody for sure where queries are the sources: its own source."""
        return self.pair_bias is None and self.score.hears_itself and self.neighbourhood.hears_itself


def _check_bias(bias: Any) -> None:
    if not hasattr(bias, "dtype") or not getattr(bias, "shape", ()) or "bool" in str(bias.dtype):
        raise TypeError(
            f"pair_bias must be an array of log-weights of pairs (..., n, m), got {bias!r}; a mask of booleans is "
            "np.where(mask, 0.0, -np.inf)"
        )
    if may_look(bias) and not bool((bias < float("inf")).all()):
        raise ValueError("pair_bias must hold numbers or -inf (a pair that does not hear), got NaN or +infinity")


def check_rule(rule: Any) -> None:
    """A rule is an `Interaction`.

    Raises:
        TypeError: It is something else; the message says what to pass.
    """
    if not isinstance(rule, Interaction):
        way = "pass its .rule" if hasattr(rule, "rule") else "build one with kd.softmax, kd.krause or kd.Interaction"
        raise TypeError(f"the rule must be an Interaction such as kd.krause(1.0), got {rule!r}; {way}")


@reads(normalised=FLAG)
def softmax(
    beta: Any = 1.0, neighbourhood: Neighbourhood | None = None, *, normalised: bool = True, pair_bias: Any = None
) -> Interaction:
    """Softmax attention, ``s = beta <x, y>`` (SA of 2312.10794; ``normalised=False`` is its USA).

    Args:
        beta: Inverse temperature; a number, or an array broadcasting against (*batch, n).
        neighbourhood: Who is admitted; everyone by default, as in encoders (`Causal` for decoders).
        normalised: Row-stochastic, or per capita.
        pair_bias: Log-weights of index pairs.

    Raises:
        ValueError: beta is NaN or infinite.
    """
    return Interaction(DotProduct(beta), Everyone() if neighbourhood is None else neighbourhood, normalised, pair_bias)


@reads(normalised=FLAG)
def krause(
    sigma: Any = 1.0, neighbourhood: Neighbourhood | None = None, *, normalised: bool = True, pair_bias: Any = None
) -> Interaction:
    """Krause attention, ``s = -|x - y|^2 / (2 sigma^2)`` on a neighbourhood (2602.11534, eq. for s_ij).

    Args:
        sigma: Bandwidth in units of position; a number, or an array broadcasting against (*batch, n).
        neighbourhood: Who is admitted; for several persistent clusters it must truncate (`Within`, `TopK`, `Window`):
            the dense Gaussian rule merges all in the end.
        normalised: Row-stochastic (the paper's), or per capita.
        pair_bias: Log-weights of index pairs.

    Raises:
        ValueError: sigma is not positive.
    """
    return Interaction(Gaussian(sigma), Everyone() if neighbourhood is None else neighbourhood, normalised, pair_bias)


@reads(normalised=FLAG)
def bounded_confidence(
    radius: Any, neighbourhood: Neighbourhood | None = None, *, closed: bool = True, normalised: bool = True
) -> Interaction:
    """Hegselmann-Krause: the plain mean of all within a radius (Hegselmann & Krause 2002; Krause 2000).

    Args:
        radius: Confidence bound in units of position; an array (n,) gives each particle its own.
        neighbourhood: Further restrictions, such as `Others` (the own opinion not counted) or a `Graph`.
        closed: ``<=`` (the original rule) or ``<``.
        normalised: Row-stochastic, or per capita.

    Raises:
        ValueError: radius is not positive.
    """
    within = Within(radius, closed=closed)
    return Interaction(Flat(), within & neighbourhood if neighbourhood is not None else within, normalised)


RULE = Is(Interaction, "kd.softmax(beta=1.0)")  # how every function outside reads its argument ``rule``
