"""Implicit methods for stiff rules, through scipy; and the estimate that tells when a rule is stiff."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from krause_dynamics._arguments import POSITIVE_PARAMETER
from krause_dynamics._array import Array, is_torch, like, to_numpy
from krause_dynamics.dynamics import Drift
from krause_dynamics.integrators.adaptive import Adaptive
from krause_dynamics.integrators.base import Integrator, Random
from krause_dynamics.runs import interrupting
from krause_dynamics.runs.loop import GivenUp, StepFailed, Stepper
from krause_dynamics.spaces import Sphere

LARGEST_STATE = 4096  # unknowns; the Jacobian is dense and built by differences, one drift per unknown


@dataclass(frozen=True, eq=False)
class Stiff(Integrator):
    """scipy's implicit solvers, from one grid point to the next, the field extended off the space by retraction.

    For rules whose rates differ by orders of magnitude: per-capita softmax relaxes at e^beta near consensus. For
    at most 4096 unknowns; without gradients; the arrays keep their library and are solved on the host.

    Attributes:
        method: ``"Radau"`` (order 5; a one-step method, so that starting anew at each saved time costs
            nothing) or ``"BDF"``.
        rtol: Relative tolerance.
        atol: Absolute tolerance; unit: position.
    """

    method: Literal["Radau", "BDF"] = "Radau"
    rtol: float = 1e-6
    atol: float = 1e-9
    order: ClassVar[int] = 5

    def __post_init__(self) -> None:
        if self.method not in ("Radau", "BDF"):
            raise ValueError(f"method must be 'Radau' or 'BDF', got {self.method!r}")
        POSITIVE_PARAMETER.read("rtol", self.rtol)
        POSITIVE_PARAMETER.read("atol", self.atol)

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        """The state after dt, as accurate as the tolerances ask."""
        return self.solve(drift, t, x, t + dt)

    def solve(self, drift: Drift, t: float, x: Array, limit: float) -> Array:
        """The state at ``limit`` from the state ``x`` at ``t``.

        Raises:
            ValueError: Too many unknowns, or a tensor that records gradients.
            StepFailed: The solver gave up.
            GivenUp: A signal waits for the run to end.
        """
        from scipy.integrate import solve_ivp

        self._check(x)
        shape, retract = tuple(x.shape), drift.space.retract

        def slope(time: float, y: np.ndarray) -> np.ndarray:
            if interrupting.asked():
                raise GivenUp
            return to_numpy(drift(time, retract(like(y.reshape(shape), x)))).ravel()

        start = to_numpy(x).astype(np.float64).ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            result = solve_ivp(slope, (t, limit), start, self.method, t_eval=[limit], rtol=self.rtol, atol=self.atol)
        if not result.success:
            raise StepFailed(f"{self.method} gave up near t = {t:.6g}: {result.message}")
        return retract(like(result.y[:, -1].reshape(shape), x))

    def start(self, drift: Drift, dt: float, rng: Random) -> Stepper:
        return _Intervals(self, drift)

    def _check(self, x: Array) -> None:
        if math.prod(x.shape) > LARGEST_STATE:
            raise ValueError(
                f"kd.Stiff handles at most {LARGEST_STATE} unknowns, got {math.prod(x.shape)}: its Jacobian is dense; "
                "use kd.Adaptive() or fewer particles"
            )
        if is_torch(x) and x.requires_grad:
            raise ValueError("kd.Stiff passes no gradients; use kd.RK4() with a small dt, or x0.detach()")


class _Intervals(Stepper):
    """A step is the whole way to the limit, where the solver starts anew: so a resumed run repeats it exactly."""

    def __init__(self, method: Stiff, drift: Drift) -> None:
        self._method, self._drift = method, drift

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        try:
            solved = self._method.solve(self._drift, t, x, limit)
        except GivenUp:
            self.ended = "interrupted"
            return t, x
        self.taken += 1
        return limit, solved


def fastest_rate(drift: Drift) -> float:
    """Estimate of the fastest relaxation rate, per unit of time.

    Row-stochastic rules relax at rates of order 1. Per-capita softmax on the sphere relaxes at e^beta near consensus
    (1 - rho ~ exp(-2 e^beta t), 2312.10794 section 6): each particle is pulled with the full affinity.
    """
    rule, moved = drift.plan.interaction, drift.dynamics
    plain = moved.query is None and moved.key is None and moved.value is None
    return rule.score.rate if not rule.normalised and isinstance(drift.space, Sphere) and plain else 1.0


def refuse_if_stiff(integrator: Integrator, drift: Drift, dt: float, t_end: float) -> None:
    """Refuse steps that the estimated rate makes unstable, or far too many of them.

    Raises:
        ValueError: With the estimate, and what to use instead.
    """
    rate = fastest_rate(drift)
    if isinstance(integrator, Adaptive):
        steps = t_end * rate / integrator.stability
        if rate > 1e3 and steps > integrator.max_steps:
            raise ValueError(
                f"the rule is stiff: it relaxes at about {rate:.3g} per unit of time, so about {steps:.2g} explicit "
                f"steps are needed, more than max_steps = {integrator.max_steps}; use integrator=kd.Stiff()"
            )
    elif rate > 1 and dt * rate > integrator.stability:
        raise ValueError(
            f"the rule is stiff: it relaxes at about {rate:.3g} per unit of time, and {type(integrator).__name__} is "
            f"unstable for dt > {integrator.stability / rate:.3g}, got dt = {dt:g}; "
            "reduce dt, or use integrator=kd.Stiff() or kd.Adaptive()"
        )
