"""Many runs: products of parameters and seeds into one Dataset, and the phase diagrams of the literature."""

from krause_dynamics.sweeps.evaluation import evaluate
from krause_dynamics.sweeps.sweeping import name_of, sweep

__all__ = ["evaluate", "name_of", "sweep"]
