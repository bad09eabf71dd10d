"""What moves a cloud of particles: `Dynamics` (a value), its drift bound to one kind of state, initial states."""

from krause_dynamics.dynamics.dynamics import Dynamics, Matrix

__all__ = ["Dynamics", "Matrix"]
