"""An adaptive embedded pair: Dormand & Prince 5(4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from krause_dynamics._arguments import COUNT, POSITIVE_PARAMETER
from krause_dynamics._array import Array, is_torch
from krause_dynamics.dynamics import Drift
from krause_dynamics.integrators.base import Integrator, Random
from krause_dynamics.runs.loop import StepFailed, Stepper

# Dormand & Prince, J. Comput. Appl. Math. 6 (1980) 19-26, table 2: nodes, stages, and fifth minus fourth order weights.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0  # Hairer, Norsett & Wanner, Solving ODEs I, section II.4


@dataclass(frozen=True, eq=False)
class Adaptive(Integrator):
    """Dormand-Prince 5(4) with local extrapolation; the steps follow the tolerances, dt is the grid of saved states.

    Order 5 for smooth rules; across the jump of `Within` the steps shrink until the jump is worth one tolerance.

    Attributes:
        rtol: Relative tolerance of one step.
        atol: Absolute tolerance of one step; unit: position.
        max_steps: A run that would need more is refused or broken off with an estimate.
    """

    rtol: float = 1e-6
    atol: float = 1e-9
    max_steps: int = 1_000_000
    order: ClassVar[int] = 5
    stability: ClassVar[float] = 3.3

    def __post_init__(self) -> None:
        POSITIVE_PARAMETER.read("rtol", self.rtol)
        POSITIVE_PARAMETER.read("atol", self.atol)
        COUNT.read("max_steps", self.max_steps)

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        """One step of exactly dt without error control (the fifth-order formula)."""
        return embedded_step(drift, t, x, drift(t, x), dt)[0]

    def start(self, drift: Drift, dt: float, rng: Random) -> Stepper:
        return _AdaptiveSteps(self, drift, dt)


def embedded_step(drift: Drift, t: float, x: Array, slope: Array, dt: float) -> tuple[Array, Array, Array]:
    """Fifth-order solution (retracted), the slope there, and the error estimate, from the slope at ``x``."""
    retract, slopes = drift.space.retract, [slope]
    for node, stage in zip(_NODES, _STAGES, strict=True):
        slopes.append(drift(t + node * dt, retract(x + dt * _combine(stage, slopes))))
    x_next = retract(x + dt * _combine(_FIFTH, slopes))
    slopes.append(drift(t + dt, x_next))
    return x_next, slopes[-1], dt * _combine(_ERROR, slopes)


def _combine(weights: tuple[float, ...], slopes: list[Array]) -> Array:
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)


class _AdaptiveSteps(Stepper):
    """Steps chosen by the error estimate; only the next step size survives from one step to the next."""

    def __init__(self, method: Adaptive, drift: Drift, dt: float) -> None:
        self._method, self._drift = method, drift
        self._slope: tuple[float, Array] | None = None  # first same as last
        self.size = dt

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        slope = self._slope[1] if self._slope is not None and self._slope[0] == t else self._drift(t, x)
        while True:
            whole = t + self.size < limit - 1e-9 * self.size
            size = self.size if whole else limit - t
            x_next, slope_next, error = embedded_step(self._drift, t, x, slope, size)
            excess = self._excess(x, x_next, error)
            factor = min(_GROW, max(_SHRINK, _SAFETY * excess**-0.2)) if 0 < excess < float("inf") else _GROW
            if excess <= 1:
                break
            self._shrink(t, size * (factor if excess < float("inf") else _SHRINK))
        t_next = t + size if whole else limit
        self.size = max(size * factor, self.size if not whole else 0.0)
        self.taken += 1
        self._slope = (t + size, slope_next)  # used where the next step starts at exactly that time
        if self.taken > self._method.max_steps:
            raise StepFailed(f"max_steps = {self.taken - 1} steps were taken, the last of size {size:.3g}")
        return t_next, x_next

    def _excess(self, x: Array, x_next: Array, error: Array) -> float:
        """Largest error in units of its tolerance; infinite where a stage became NaN or infinite."""
        scale = self._method.atol + self._method.rtol * self._drift.xp.maximum(abs(x), abs(x_next))
        largest = self._drift.present(abs(error) / scale).max()
        worst = float(largest.detach() if is_torch(largest) else largest)  # step sizes pass no gradient
        return worst if worst == worst else float("inf")

    def _shrink(self, t: float, size: float) -> None:
        if t + 1e-3 * size == t:
            raise StepFailed(f"the step fell to {size:.3g} at t = {t:.6g}: the drift is infinite there")
        self.size = size

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken, "size": self.size}
