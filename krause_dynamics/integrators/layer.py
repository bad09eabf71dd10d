"""A Transformer layer as a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from krause_dynamics._array import Array
from krause_dynamics.dynamics import Drift
from krause_dynamics.integrators.base import Integrator, Random
from krause_dynamics.interaction.steps import Scheme


@dataclass(frozen=True, eq=False)
class LayerStep(Integrator):
    """A Transformer layer: ``x + dt A(x)``, then the retraction (post-norm); the attention is *not* projected first.

    On the sphere it differs from a projected Euler step at order dt^2, visibly at dt = 1 (one layer). Order 1. dt is
    the residual step tau. Pre-norm is a property of the dynamics:
    ``Dynamics(rule, read=kd.Sphere().retract, relative=False)``.

    Attributes:
        skip: Keep the residual connection; without it the state is replaced by what is heard (pure attention, of which
            ``external`` and ``response`` are no part),
            and those who hear nobody are lost at 0 in flat spaces: let everyone hear itself.
    """

    skip: bool = True
    order: ClassVar[int] = 1
    stability: ClassVar[float] = 2.0

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        if self.skip:
            return drift.space.retract(x + dt * drift(t, x, project=False))
        return drift.space.retract(x + drift.hold(x, drift.attention(t, x) - x))

    def scheme(self) -> Scheme | None:
        return Scheme("euler", projected=False) if type(self) is LayerStep and self.skip else None
