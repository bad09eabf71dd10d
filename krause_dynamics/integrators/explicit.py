"""Explicit methods of fixed step: Euler and the classical Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from krause_dynamics._array import Array
from krause_dynamics.dynamics import Drift
from krause_dynamics.integrators.base import Integrator, Random
from krause_dynamics.interaction.steps import Scheme


@dataclass(frozen=True, eq=False)
class Euler(Integrator):
    """``x + dt f``, retracted. Order 1. With dt = 1 and bounded confidence it is the Hegselmann-Krause step."""

    order: ClassVar[int] = 1
    stability: ClassVar[float] = 2.0

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        return drift.space.retract(x + dt * drift(t, x))

    def scheme(self) -> Scheme | None:
        return Scheme("euler") if type(self) is Euler else None  # a subclass may step otherwise


@dataclass(frozen=True, eq=False)
class RK4(Integrator):
    """The classical Runge-Kutta method (Kutta 1901), stages in the ambient space and retracted. Order 4.

    On the sphere the field is extended off it by retracting each stage: the extension keeps every sphere invariant, so
    the order is that of the method in the ambient space. Across the jump of `Within` every method here has order 1:
    observed slopes 0.7 to 1.4, for Euler as for Runge-Kutta (``benchmarks/integrators.py``).
    """

    order: ClassVar[int] = 4
    stability: ClassVar[float] = 2.785

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        retract = drift.space.retract
        first = drift(t, x)
        second = drift(t + dt / 2, retract(x + dt / 2 * first))
        third = drift(t + dt / 2, retract(x + dt / 2 * second))
        fourth = drift(t + dt, retract(x + dt * third))
        return retract(x + dt / 6 * (first + 2 * second + 2 * third + fourth))

    def scheme(self) -> Scheme | None:
        return Scheme("rk4") if type(self) is RK4 else None  # a subclass may step otherwise
