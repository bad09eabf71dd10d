"""What an integrator is: one step of a flow, and how a run takes such steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from krause_dynamics._array import Array
from krause_dynamics._value import Value
from krause_dynamics.dynamics import Drift
from krause_dynamics.interaction.steps import Scheme
from krause_dynamics.runs.loop import Stepper

Random = Any  # numpy.random.Generator, torch.Generator, or None for methods without noise


class Integrator(Value, ABC):
    """A one-step method.

    Attributes:
        order: Order of the global error in dt for smooth rules (strong order for noise).
        stability: Largest dt times decay rate for which a decaying mode decays (its reach on the negative real axis).
        noisy: Whether the method handles ``Dynamics.noise``.
    """

    order: ClassVar[int]
    stability: ClassVar[float] = float("inf")
    noisy: ClassVar[bool] = False

    @abstractmethod
    def step(self, flow: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        """Positions at ``t + dt`` from positions ``x`` (*batch, n, d) at ``t``.

        Args:
            flow: The velocity field, made by `Dynamics.bind`.
            t: Time.
            x: Positions.
            dt: Step.
            rng: Randomness, for methods that need it.
        """

    def scheme(self) -> Scheme | None:
        """The same in words that a form understands, which may then make many steps in one call; else ``None``."""
        return None

    def start(self, flow: Drift, dt: float, rng: Random) -> Stepper:
        """The method at work on the grid of multiples of ``dt``."""
        return FixedSteps(self, flow, dt, rng)


class FixedSteps(Stepper):
    """Steps to the next multiple of dt, shortened where a limit comes first; times never accumulate rounding."""

    def __init__(self, integrator: Integrator, flow: Drift, dt: float, rng: Random) -> None:
        self._integrator, self._flow, self._dt, self._rng = integrator, flow, dt, rng
        self._tiny = 1e-9 * dt
        self.passed = 0  # multiples of dt behind us

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        on_grid = abs(t - self.passed * self._dt) <= self._tiny
        grid = (self.passed + 1) * self._dt
        reached = grid <= limit + self._tiny
        t_next = grid if grid < limit - self._tiny else limit
        x = self._integrator.step(self._flow, t, x, self._dt if on_grid and reached else t_next - t, self._rng)
        self.passed += reached
        self.taken += 1
        return t_next, x

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken, "passed": self.passed}


CHUNK = 1000  # steps in one call at most, so that progress, checkpoints and Ctrl-C are never far


class ManySteps(FixedSteps):
    """Whole steps by the thousand through a compiled ``(x, steps) -> x``; shortened ones as in `FixedSteps`."""

    def __init__(
        self, integrator: Integrator, flow: Drift, dt: float, rng: Random, advance: Callable[[Array, int], Array]
    ) -> None:
        super().__init__(integrator, flow, dt, rng)
        self._advance = advance

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        whole = math.floor((limit + self._tiny) / self._dt) - self.passed
        if whole < 1 or abs(t - self.passed * self._dt) > self._tiny:
            return super().step(t, x, limit)
        steps = min(whole, CHUNK)
        x = self._advance(x, steps)
        self.passed += steps
        self.taken += steps
        reached = self.passed * self._dt
        return (limit if abs(reached - limit) <= self._tiny else reached), x
