"""What an integrator is: one step of a drift, and how a run takes such steps."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ClassVar

from krause_dynamics._array import Array
from krause_dynamics._value import Value
from krause_dynamics.dynamics import Drift
from krause_dynamics.interaction.steps import Scheme
from krause_dynamics.runs.loop import Stepper

Random = Any  # numpy.random.Generator, torch.Generator, or None for methods without noise


def takes_flow(step: Callable[..., Array]) -> Callable[..., Array]:
    """The step, which takes its first argument also by the former name ``flow``; goes with the next release."""

    @wraps(step)
    def called(self: Integrator, *args: Any, **named: Any) -> Array:
        if "flow" in named and "flow" not in signature(step).parameters:
            warnings.warn("the argument flow of step is now drift", DeprecationWarning, stacklevel=2)
            named["drift"] = named.pop("flow")
        return step(self, *args, **named)

    return called


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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = takes_flow(cls.step)  # type: ignore[method-assign]

    @abstractmethod
    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        """Positions at ``t + dt`` from positions ``x`` (*batch, n, d) at ``t``.

        Args:
            drift: The velocity, made by `Dynamics.bind`.
            t: Time.
            x: Positions.
            dt: Step.
            rng: Randomness, for methods that need it.
        """

    def scheme(self) -> Scheme | None:
        """The same in words that a form understands, which may then make many steps in one call; else ``None``."""
        return None

    def start(self, drift: Drift, dt: float, rng: Random) -> Stepper:
        """The method at work on the grid of multiples of ``dt``."""
        return FixedSteps(self, drift, dt, rng)


class FixedSteps(Stepper):
    """Steps to the next multiple of dt, shortened where a limit comes first; times never accumulate rounding."""

    def __init__(self, integrator: Integrator, drift: Drift, dt: float, rng: Random) -> None:
        self._integrator, self._drift, self._dt, self._rng = integrator, drift, dt, rng
        self._tiny = 1e-9 * dt
        self.passed = 0  # multiples of dt behind us

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        on_grid = abs(t - self.passed * self._dt) <= self._tiny
        grid = (self.passed + 1) * self._dt
        reached = grid <= limit + self._tiny
        t_next = grid if grid < limit - self._tiny else limit
        x = self._integrator.step(self._drift, t, x, self._dt if on_grid and reached else t_next - t, self._rng)
        self.passed += reached
        self.taken += 1
        return t_next, x

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken, "passed": self.passed}


CHUNK = 1000  # steps in one call at most, so that progress, checkpoints and Ctrl-C are never far


class ManySteps(FixedSteps):
    """Whole steps by the thousand through a compiled ``(x, steps) -> x``; shortened ones as in `FixedSteps`."""

    def __init__(
        self, integrator: Integrator, drift: Drift, dt: float, rng: Random, advance: Callable[[Array, int], Array]
    ) -> None:
        super().__init__(integrator, drift, dt, rng)
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
