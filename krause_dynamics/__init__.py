"""Tokens as interacting particles: softmax and Krause dynamics, their analysis, and the same rule as attention layers.

>>> import krause_dynamics as kd
>>> sphere = kd.Sphere()
>>> run = kd.simulate(kd.Dynamics(kd.softmax(beta=4.0), sphere), sphere.sample(64, 3, rng=0), t_end=20.0)

The core needs numpy only and is imported here; everything heavier loads on first use.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from krause_dynamics._moved import Finder
from krause_dynamics._version import __version__
from krause_dynamics.aggregate import aggregate, plan, statistics, supported, weights
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.dynamics.layer_norm import layer_normed
from krause_dynamics.dynamics.schedules import PerLayer
from krause_dynamics.errors import SimulationDiverged, UnsupportedImplementation, UnsupportedModel
from krause_dynamics.integrators import RK4, Adaptive, Euler, EulerMaruyama, LayerStep, Stiff
from krause_dynamics.interaction import (
    Causal,
    DotProduct,
    Everyone,
    Flat,
    Gaussian,
    Graph,
    Grid,
    Interaction,
    Others,
    Radial,
    RandomKeys,
    Segments,
    TopK,
    Window,
    Within,
    bounded_confidence,
    from_dict,
    krause,
    softmax,
)
from krause_dynamics.runs.events import Event
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Interval, Sphere, Torus
from krause_dynamics.trajectory import Trajectory

# First, so that a folder that an older checkout left behind hides nothing.
sys.meta_path.insert(0, Finder())

# Loaded on first access (PEP 562). A function listed here must not bear the name of its module: importing the
# module would replace it.
_SUBMODULES: tuple[str, ...] = (
    "checkpoints",
    "clusters",
    "datasets",
    "energies",
    "graphs",
    "initial",
    "matrices",
    "mean_field",
    "models",
    "nn",
    "measures",
    "observables",
    "operators",
    "opinions",
    "phase_diagrams",
    "plots",
    "report",
    "stopping",
    "theory",
    "theory_table",
    "training",
)
_FUNCTIONS: dict[str, str] = {
    "Deffuant": "krause_dynamics.opinions",
    "RandomRelocation": "krause_dynamics.opinions",
    "RoundingWarning": "krause_dynamics.opinions",
    "Sequential": "krause_dynamics.opinions",
    "StepNoise": "krause_dynamics.opinions",
    "Synchronous": "krause_dynamics.opinions",
    "TruthSeeking": "krause_dynamics.opinions",
    "analyze": "krause_dynamics.checkpoints",
    "compare": "krause_dynamics.checkpoints",
    "describe": "krause_dynamics.report.describing",
    "final_clusters": "krause_dynamics.opinions",
    "hegselmann_krause": "krause_dynamics.opinions",
    "hegselmann_krause_batch": "krause_dynamics.opinions",
    "hegselmann_krause_flow": "krause_dynamics.opinions",
    "jacobian": "krause_dynamics.integrators.linearise",
    "spectrum": "krause_dynamics.integrators.linearise",
    "krausify": "krause_dynamics.models.krausified",
    "open": "krause_dynamics.report.opening",
    "sweep": "krause_dynamics.sweeps",
    "unkrausify": "krause_dynamics.models.krausified",
}

__all__ = [
    "RK4",
    "Adaptive",
    "Causal",
    "Circle",
    "DotProduct",
    "Dynamics",
    "Euclidean",
    "Euler",
    "EulerMaruyama",
    "Event",
    "Everyone",
    "Flat",
    "Gaussian",
    "Graph",
    "Grid",
    "Interaction",
    "Interval",
    "LayerStep",
    "Others",
    "PerLayer",
    "Radial",
    "RandomKeys",
    "Segments",
    "SimulationDiverged",
    "Sphere",
    "Stiff",
    "TopK",
    "Torus",
    "Trajectory",
    "UnsupportedImplementation",
    "UnsupportedModel",
    "Window",
    "Within",
    "__version__",
    "aggregate",
    "bounded_confidence",
    "from_dict",
    "krause",
    "layer_normed",
    "plan",
    "simulate",
    "softmax",
    "statistics",
    "supported",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"krause_dynamics.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'krause_dynamics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, *_FUNCTIONS])
