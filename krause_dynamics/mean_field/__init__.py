"""Densities instead of particles: what many tokens or agents do in the limit.

>>> import krause_dynamics as kd
>>> density = kd.mean_field.von_mises(cells=128, kappa=0.5)
>>> run = kd.mean_field.solve(kd.Dynamics(kd.softmax(beta=4.0), kd.Circle()), density, t_end=1.0)
"""

from krause_dynamics.mean_field.cells import Cells, CircleCells, LatitudeCells, LineCells
from krause_dynamics.mean_field.cluster_list import Cluster, clusters
from krause_dynamics.mean_field.density import Density
from krause_dynamics.mean_field.distance import wasserstein
from krause_dynamics.mean_field.initial_densities import (
    from_function,
    from_particles,
    gaussian,
    gaussian_nodes,
    uniform,
    von_mises,
)
from krause_dynamics.mean_field.lagrangian import Outcome, follow, settle
from krause_dynamics.mean_field.maps import iterate
from krause_dynamics.mean_field.solver import density_at, solve

__all__ = [
    "Cells",
    "CircleCells",
    "Cluster",
    "Density",
    "LatitudeCells",
    "LineCells",
    "Outcome",
    "clusters",
    "density_at",
    "follow",
    "from_function",
    "from_particles",
    "gaussian",
    "gaussian_nodes",
    "iterate",
    "settle",
    "solve",
    "uniform",
    "von_mises",
    "wasserstein",
]
