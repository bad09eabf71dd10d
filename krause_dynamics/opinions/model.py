"""What a bounded-confidence run is made of: who hears whom, and what else moves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from krause_dynamics._value import name_of
from krause_dynamics.interaction import Edges, Flat, Graph, Interaction, Within
from krause_dynamics.opinions.arguments import External, stubborn, weights_of
from krause_dynamics.opinions.disturbances import Noise, TruthSeeking
from krause_dynamics.opinions.schedules import Deffuant, Schedule, Sequential, Synchronous


@dataclass(frozen=True)
class Model:
    """Who hears whom, and what else moves them; `Model.of` builds it from the arguments of a run.

    Attributes:
        rule: The interaction.
        masses: (n,) weights, or ``None`` for equal ones.
        fixed: (n,) stubborn agents, or ``None``.
        external: A drift per step, or `TruthSeeking`.
        noise: What disturbs the opinions after each unit of time.
        schedule: Who moves when.
    """

    rule: Interaction
    masses: np.ndarray | None
    fixed: np.ndarray | None
    external: External | TruthSeeking | None
    noise: Noise | None = None
    schedule: Schedule = field(default_factory=Synchronous)

    @classmethod
    def of(
        cls,
        n: int,
        rule: Interaction,
        weights: ArrayLike | None,
        fixed: ArrayLike | None,
        external: External | TruthSeeking | None,
        noise: Noise | None = None,
        schedule: Schedule | None = None,
    ) -> Model:
        """A model of n agents from the arguments of `hegselmann_krause` and `hegselmann_krause_flow`.

        Raises:
            TypeError: ``noise`` or ``schedule`` of another type.
            ValueError: Shapes that do not fit n agents, or values out of range.
        """
        if noise is not None and not isinstance(noise, Noise):
            raise TypeError(f"noise must be kd.StepNoise(std) or kd.RandomRelocation(probability), got {noise!r}")
        schedule = Synchronous() if schedule is None else schedule
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be kd.Synchronous(), kd.Sequential() or kd.Deffuant(), got {schedule!r}")
        return cls(rule, weights_of(weights, n), stubborn(fixed, n), external, noise, schedule)

    @property
    def within(self) -> Within:
        """The ball."""
        return self.rule.find(Within)[0]  # type: ignore[no-any-return]

    @property
    def edges(self) -> Edges | None:
        """The links of the network, where there is one."""
        graphs = self.rule.find(Graph)
        return graphs[0].adjacency if graphs else None

    @property
    def has_network(self) -> bool:
        """Whether only linked agents are heard."""
        return bool(self.rule.find(Graph))

    @property
    def log_mass(self) -> np.ndarray | None:
        """Log of the weights' shares, ``None`` for equal ones."""
        return None if self.masses is None else np.log(self.masses / self.masses.sum())

    @property
    def is_classical(self) -> bool:
        """The plain synchronous rule, own opinion counted: what the compiled plans run."""
        plain = isinstance(self.rule.score, Flat) and self.rule.normalised and len(self.rule.parts) == 1
        alone = self.fixed is None and self.external is None and self.noise is None
        return plain and alone and np.ndim(self.within.radius) == 0 and isinstance(self.schedule, Synchronous)

    @property
    def is_deterministic(self) -> bool:
        """Whether a state that does not move stays for ever."""
        timeless = self.external is None or isinstance(self.external, TruthSeeking)
        return self.noise is None and timeless

    @property
    def needs_rng(self) -> bool:
        """Whether anything is drawn."""
        drawn = isinstance(self.schedule, Deffuant)
        drawn |= isinstance(self.schedule, Sequential) and self.schedule.order != "cyclic"
        return drawn or self.noise is not None

    def describe(self) -> dict[str, Any]:
        """JSON-ready; the network by its size only."""
        parts = [part.to_dict() for part in self.rule.parts if not isinstance(part, Graph)]
        edges = self.edges
        graph: dict[str, Any] | None = None if edges is None else {"nodes": edges.nodes, "links": len(edges.heard)}
        if graph is not None and self.rule.pair_bias is not None:
            graph["weighted"] = True
        external = self.external.to_dict() if isinstance(self.external, TruthSeeking) else None
        if external is None and self.external is not None:
            external = {"type": "callable", "name": name_of(self.external)}
        return {
            "score": self.rule.score.to_dict(),
            "neighbourhood": parts,
            "graph": graph,
            "normalised": self.rule.normalised,
            "fixed": None if self.fixed is None else np.flatnonzero(self.fixed).tolist(),
            "external": external,
            "noise": None if self.noise is None else self.noise.to_dict(),
            "schedule": self.schedule.to_dict(),
        }
