"""Many runs: products of parameters and seeds into one Dataset, and the phase diagrams of the literature."""

from krause_dynamics.sweeps.product import evaluate, name_of, sweep

__all__ = ["evaluate", "name_of", "sweep"]
