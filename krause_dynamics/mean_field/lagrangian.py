"""The Lagrangian form: quantiles as particles, which follow a density into its atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import COUNT, LARGEST, POSITIVE, Is, Whole, reads
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.forms.near.merging import merging_run
from krause_dynamics.interaction import Within
from krause_dynamics.mean_field.cells import LineCells
from krause_dynamics.mean_field.checks import check_rule, check_types
from krause_dynamics.mean_field.cluster_list import Cluster
from krause_dynamics.mean_field.density import Density
from krause_dynamics.simulate import simulate
from krause_dynamics.trajectory import Trajectory


@reads(count=Whole(most=LARGEST))
def follow(dynamics: Dynamics, density: Density, t_end: float, *, count: int = 1001, **rest: Any) -> Trajectory:
    """Move the quantiles of a density: `simulate` from equal masses at levels (k + 1/2)/count.

    The order of quantiles on a line is kept, so the run is the quantile function over time. The error of the start is
    of order 1/count; at a radius, particles enter one at a time, so the drift too has errors of that order.

    Args:
        dynamics: An exchangeable rule on a line or circle, without noise (which would need random increments).
        density: Initial law.
        t_end: Final time.
        count: Number of quantiles; odd keeps one in the middle of a symmetric law.
        **rest: Further arguments of `simulate`; ``dt=1, integrator=kd.Euler()`` is the discrete-time map.

    Raises:
        ValueError: A rule that is no function of the measure, or noise.
    """
    check_types(dynamics, density)
    check_rule(dynamics, density.cells)
    density.cells.check_space(dynamics.space)
    if dynamics.noise:
        raise ValueError(f"quantiles follow a law without noise, got noise={dynamics.noise}; take mean_field.solve")
    log_mass = np.full(count, np.log(density.total / count))
    return simulate(dynamics, density.quantiles(count), t_end, log_mass=log_mass, **rest)


STILL = 1e-12  # of the initial range: less than this is rounding, not motion


@dataclass(frozen=True)
class Outcome:
    """How the discrete-time Hegselmann-Krause map of a law ends.

    Attributes:
        clusters: From left to right; masses are shares.
        steps: Steps in which something moved.
        frozen: Whether nothing moves any more; otherwise the steps were used up.
    """

    clusters: tuple[Cluster, ...]
    steps: int
    frozen: bool


@reads(density=Is(Density, "mean_field.uniform(cells)"), radius=POSITIVE, count=Whole(most=LARGEST), max_steps=COUNT)
def settle(density: Density, radius: float, *, count: int = 100_001, max_steps: int = 1_000_000) -> Outcome:
    """Run the Hegselmann-Krause map of a law to its end, on merging quantiles.

    Near a branch point the outcome hangs on a middle group of mass 1e-5, so ``count`` must be at least 1e5 and odd: an
    even number of quantiles has no middle one, and splits in two much earlier (Deffuant 2024).

    Args:
        density: Initial law on a line.
        radius: Closed confidence bound; unit: position.
        count: Number of quantiles.
        max_steps: Give up after so many.

    Raises:
        ValueError: A density that is not on a line, or numbers that are not positive.
    """
    if not isinstance(density.cells, LineCells):
        raise ValueError(f"density must live on LineCells, got {type(density.cells).__name__}")
    start = density.quantiles(count)
    line = merging_run(start, Within(radius), STILL * float(start[-1, 0] - start[0, 0]))
    line.advance(max_steps)
    edges = np.flatnonzero(np.diff(line.atoms) > radius) + 1
    places, masses = np.split(line.atoms, edges), np.split(line.masses / count, edges)
    found = tuple(_cluster(x, m) for x, m in zip(places, masses, strict=True))
    return Outcome(found, int(line.steps), bool(line.frozen))


def _cluster(place: np.ndarray, mass: np.ndarray) -> Cluster:
    total = mass.sum()
    mean = mass @ place / total
    return Cluster(float(mean), float(total), float(np.sqrt(mass @ (place - mean) ** 2 / total)))
