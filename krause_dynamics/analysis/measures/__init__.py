"""Distances between probability measures: particles, densities on a grid, states of a run, layers of a model.

A measure is points with log-masses, as everywhere in the package; masses are normalised to sum to 1. On a line the
Wasserstein distances are exact and cost a sort, so particles and a mean field on a grid are compared without binning.
All results are numpy or plain floats, whatever library holds the points.
"""

from krause_dynamics.analysis.measures.circle import wasserstein_circle
from krause_dynamics.analysis.measures.clouds import entropic, exact, sliced
from krause_dynamics.analysis.measures.line import wasserstein
from krause_dynamics.analysis.measures.runs import along, between_layers

__all__ = ["along", "between_layers", "entropic", "exact", "sliced", "wasserstein", "wasserstein_circle"]
