"""One step each: what a solver does with the drift. Every class states order and source."""

from krause_dynamics.integrators.adaptive import Adaptive
from krause_dynamics.integrators.base import FixedSteps, Integrator, ManySteps
from krause_dynamics.integrators.explicit import RK4, Euler
from krause_dynamics.integrators.layer import LayerStep
from krause_dynamics.integrators.stiff import Stiff, fastest_rate, refuse_if_stiff
from krause_dynamics.integrators.stochastic import EulerMaruyama
from krause_dynamics.runs.loop import StepFailed, Stepper

__all__ = [
    "RK4",
    "Adaptive",
    "Euler",
    "EulerMaruyama",
    "FixedSteps",
    "Integrator",
    "LayerStep",
    "ManySteps",
    "StepFailed",
    "Stepper",
    "Stiff",
    "fastest_rate",
    "refuse_if_stiff",
]
