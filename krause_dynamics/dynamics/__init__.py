"""What moves a cloud of particles: `Dynamics` (a value), its drift bound to one kind of state, initial states."""

from krause_dynamics.dynamics.drift import Drift, target, velocity
from krause_dynamics.dynamics.dynamics import Dynamics, Matrix, check_dynamics

__all__ = ["Drift", "Dynamics", "Matrix", "check_dynamics", "target", "velocity"]
