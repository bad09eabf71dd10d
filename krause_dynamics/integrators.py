"""One step each: what a solver does with the drift. Every file states order and source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from krause_dynamics._array import Array
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.interaction._value import Value


class Integrator(Value, ABC):
    """A one-step method.

    Attributes:
        order: Order of the global error in dt for smooth rules.
    """

    order: ClassVar[int]

    @abstractmethod
    def step(
        self, dynamics: Dynamics, t: float, x: Array, dt: float, *, log_mass: Array | None = None, impl: str = "auto"
    ) -> Array:
        """Positions at ``t + dt`` from positions ``x`` (*batch, n, d) at ``t``."""


@dataclass(frozen=True, eq=False)
class Euler(Integrator):
    """``x + dt f``, retracted. Order 1. With dt = 1 and bounded confidence it is the Hegselmann-Krause step."""

    order: ClassVar[int] = 1

    def step(
        self, dynamics: Dynamics, t: float, x: Array, dt: float, *, log_mass: Array | None = None, impl: str = "auto"
    ) -> Array:
        return dynamics.space.retract(x + dt * dynamics.drift(t, x, log_mass, impl=impl))


@dataclass(frozen=True, eq=False)
class RK4(Integrator):
    """The classical Runge-Kutta method (Kutta 1901), stages in the ambient space and retracted. Order 4.

    On the sphere the projected field is extended off it by retracting each stage, which keeps the order.
    """

    order: ClassVar[int] = 4

    def step(
        self, dynamics: Dynamics, t: float, x: Array, dt: float, *, log_mass: Array | None = None, impl: str = "auto"
    ) -> Array:
        retract = dynamics.space.retract

        def slope(time: float, position: Array) -> Array:
            return dynamics.drift(time, position, log_mass, impl=impl)

        first = slope(t, x)
        second = slope(t + dt / 2, retract(x + dt / 2 * first))
        third = slope(t + dt / 2, retract(x + dt / 2 * second))
        fourth = slope(t + dt, retract(x + dt * third))
        return retract(x + dt / 6 * (first + 2 * second + 2 * third + fourth))


@dataclass(frozen=True, eq=False)
class LayerStep(Integrator):
    """A Transformer layer: ``x + dt A(x)``, then the retraction (post-norm); the attention is *not* projected first.

    On the sphere it differs from a projected Euler step at order dt^2, visibly at dt = 1 (one layer). Order 1.

    Attributes:
        skip: Keep the residual connection; without it the state is replaced by what is heard (pure attention),
            and those who hear nobody are lost at 0 in flat spaces: let everyone hear itself).
    """

    skip: bool = True
    order: ClassVar[int] = 1

    def step(
        self, dynamics: Dynamics, t: float, x: Array, dt: float, *, log_mass: Array | None = None, impl: str = "auto"
    ) -> Array:
        if self.skip:
            return dynamics.space.retract(x + dt * dynamics.drift(t, x, log_mass, impl=impl, project=False))
        heard = dynamics.attention(t, x, log_mass, impl=impl)
        return dynamics.space.retract(x + dynamics.hold(x, heard - x))
