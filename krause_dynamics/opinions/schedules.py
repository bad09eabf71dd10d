"""Who speaks when: an update schedule is part of a run, not another model. N draws are time 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from krause_dynamics._value import Value


class Schedule(Value):
    """Order of updates within one unit of time."""


@dataclass(frozen=True, eq=False)
class Synchronous(Schedule):
    """All at once: the rule of Hegselmann & Krause (2002). One step is time 1."""


@dataclass(frozen=True, eq=False)
class Sequential(Schedule):
    """One agent at a time moves to the mean of those it hears now (Fortunato cond-mat/0408648 draws them at random).

    Attributes:
        order: ``"random"``: every draw takes any agent; ``"permutation"``: each agent once per unit of time, shuffled;
            ``"cyclic"``: 0, 1, ..., n - 1.
    """

    order: Literal["random", "permutation", "cyclic"] = "random"

    def __post_init__(self) -> None:
        if self.order not in ("random", "permutation", "cyclic"):
            raise ValueError(f"order must be 'random', 'permutation' or 'cyclic', got {self.order!r}")


@dataclass(frozen=True, eq=False)
class Deffuant(Schedule):
    """Random pairs meet: within the radius each moves the part ``mu`` of the way (Deffuant et al. 2000, eq. 1-2).

    On a network the pair is a random edge. With a radius per agent, or one-way edges, only who listens moves.

    Attributes:
        mu: Convergence parameter in (0, 1/2]; 1/2 meets in the middle.
    """

    mu: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.mu <= 0.5:
            raise ValueError(f"mu must lie in (0, 1/2], got {self.mu!r}")
