"""The continuity equation of a density under an interaction, and its diffusion (McKean-Vlasov), on a fixed grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._value import check_number
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.mean_field.checks import check_resolution, check_rule, check_types
from krause_dynamics.mean_field.density import Density, log_of
from krause_dynamics.mean_field.diffusion import diffusion
from krause_dynamics.mean_field.finite_volumes import SHARE_PER_STEP, Rates, Transport, largest_step
from krause_dynamics.mean_field.velocity import Velocity
from krause_dynamics.spaces import Euclidean
from krause_dynamics.trajectory import Trajectory

StopRule = Callable[[float, Density, Density], str | None]

SMALLEST_STEP = 1e-10  # of the run: below it the velocity grows without bound
EDGE_SHARE = 1e-6  # of the mean mass per cell: more than that at the edge of a box, moving out, is lost knowledge


def solve(
    dynamics: Dynamics,
    density: Density,
    t_end: float,
    *,
    dt: float | None = None,
    max_dt: float = 0.05,
    save_at: int | Sequence[float] = 101,
    stop: StopRule | None = None,
    on_save: Callable[[float, Density], None] | None = None,
    impl: str = "auto",
    ring_nodes: int | None = None,
) -> Trajectory:
    """Move a density from time 0 to ``t_end``: ``d rho/dt = -div(rho drift[rho]) + noise^2/2 Laplace rho``.

    Masses are conserved to rounding and never negative; second order in the cell width for smooth densities. A density
    that collapses ends as one or two cells per cluster (`clusters` lists them). There it is pinned: what attracts a
    cluster by less than half a width per unit of time cannot move it any more, so slow merging needs `follow`.

    Args:
        dynamics: An exchangeable rule on a line, interval, torus, circle or (zonal densities) sphere.
        density: Initial density with its cells; total masses other than 1 matter to rules per capita.
        t_end: Final time, positive.
        dt: Force this step; by default the scheme takes the largest one in which no cell loses more than 80 % of its
            mass in a stage.
        max_dt: Largest step of the scheme, for accuracy in time (order 3): 0.05 gives 1e-6 for rates of order 1.
        save_at: Times to keep (0 and ``t_end`` always), or how many equally spaced ones.
        stop: ``stop(t, density, previous) -> reason or None``, asked after every step.
        on_save: ``on_save(t, density)``, called at every saved time.
        impl: How the interaction is computed; ``"auto"`` takes the convolution where it applies and pays.
        ring_nodes: Gauss-Jacobi nodes per latitude of a sphere; by default 16 and more for sharp affinities.

    Returns:
        A `Trajectory` with the cell centres as fixed positions and moving ``log_mass`` (T, cells); on a sphere the mass
        of a position is that of its latitude. ``steps`` counts time steps.

    Raises:
        TypeError: ``dynamics`` or ``density`` of another type.
        ValueError: A rule that is no function of the measure, cells too coarse for it or not those of the space,
            a forced ``dt`` over the bound.
        SimulationDiverged: Infinite velocity (blow-up), or mass at the edge of a Euclidean box; carries the trajectory.
    """
    check_types(dynamics, density)
    _check_times(t_end, dt, max_dt)
    density.cells.check_space(dynamics.space)
    check_rule(dynamics, density.cells)
    check_resolution(dynamics.rule_at(0.0), density.cells)
    run = _Run.start(dynamics, density, t_end, impl, ring_nodes)
    recorder = _Recorder(run, density, {"t_end": t_end, "dt": dt, "max_dt": max_dt}, on_save)
    mass, t = density.mass, 0.0
    for target in _targets(save_at, t_end):
        while t < target:
            previous = mass
            mass, t = run.advance(t, mass, target, dt, max_dt, recorder)
            recorder.steps += 1
            reason = stop(t, Density(density.cells, mass), Density(density.cells, previous)) if stop else None
            if reason:
                recorder.save(t, mass)
                return recorder.trajectory(reason)
        recorder.save(t, mass)
    return recorder.trajectory("t_end")


@dataclass(frozen=True)
class _Run:
    """What stays fixed during a run."""

    dynamics: Dynamics
    transport: Transport
    velocity: Velocity
    diffuse: Any
    shortest: float
    boxed: bool

    @classmethod
    def start(cls, dynamics: Dynamics, density: Density, t_end: float, impl: str, nodes: int | None) -> _Run:
        cells = density.cells
        periodic = cells.is_periodic(dynamics.space)
        faces = cells.edges[:-1] if periodic else cells.edges[1:-1]
        velocity = Velocity(dynamics, cells, faces, impl=impl, nodes=nodes)
        boxed = isinstance(dynamics.space, Euclidean)
        noise = diffusion(cells, periodic, dynamics.noise)
        return cls(dynamics, Transport(cells, periodic, velocity), velocity, noise, SMALLEST_STEP * t_end, boxed)

    def advance(
        self, t: float, mass: np.ndarray, target: float, dt: float | None, max_dt: float, recorder: _Recorder
    ) -> tuple[np.ndarray, float]:
        """One step towards ``target``: half a diffusion, transport, half a diffusion (Strang 1968)."""
        rates = self.transport.rates(t, mass)
        bound = largest_step(mass, rates)
        if self.boxed and _reaches_edge(mass, self.velocity_outward(rates, mass), self.dynamics.noise):
            raise SimulationDiverged(
                f"mass reached the edge of the cells at t = {t:g}; take wider ones", recorder.trajectory("edge")
            )
        step = _step(t, target, bound, dt, max_dt)
        while True:
            if step < self.shortest and step < target - t:
                raise SimulationDiverged(f"velocities grow without bound at t = {t:g}", recorder.trajectory("diverged"))
            moved = self._try(t, mass, step, rates)
            if moved is not None:
                return moved, (target if target - t - step < 1e-9 * step else t + step)
            if dt is not None:
                raise ValueError(f"dt must be at most about {bound:.3g} at t = {t:g}, got {dt}; leave it out")
            step /= 2

    def _try(self, t: float, mass: np.ndarray, step: float, rates: Rates) -> np.ndarray | None:
        if self.diffuse is None:
            return self.transport.step(t, mass, step, rates)
        spread = self.diffuse(mass, step / 2)
        moved = self.transport.step(t, spread, step, self.transport.rates(t, spread))
        return None if moved is None else self.diffuse(moved, step / 2)

    def velocity_outward(self, rates: Rates, mass: np.ndarray) -> tuple[bool, bool]:
        """Whether the end cells gain mass, which on a box means that the density wants to leave it."""
        return bool(rates.change[0] > 0), bool(rates.change[-1] > 0)


def _reaches_edge(mass: np.ndarray, outward: tuple[bool, bool], noise: float) -> bool:
    enough = EDGE_SHARE * mass.mean()
    return (mass[0] > enough and (outward[0] or noise > 0)) or (mass[-1] > enough and (outward[1] or noise > 0))


def _step(t: float, target: float, bound: float, dt: float | None, max_dt: float) -> float:
    """An equal share of the way to the target, at most the bound of the scheme."""
    if dt is not None and dt > bound:
        raise ValueError(
            f"dt must be at most {bound:.3g} at t = {t:g} (no cell may be emptied), got {dt}; leave it out"
        )
    wanted = min(SHARE_PER_STEP * bound, max_dt) if dt is None else dt
    return (target - t) / np.ceil((target - t) / wanted - 1e-9)


class _Recorder:
    """Collects the saved states of a run."""

    def __init__(
        self, run: _Run, density: Density, numbers: dict[str, Any], on_save: Callable[[float, Density], None] | None
    ) -> None:
        self.run, self.cells, self.numbers, self.on_save = run, density.cells, numbers, on_save
        self.times, self.saved, self.steps = [0.0], [density.mass], 0

    def save(self, t: float, mass: np.ndarray) -> None:
        self.times.append(t)
        self.saved.append(mass)
        if self.on_save is not None:
            self.on_save(t, Density(self.cells, mass))

    def trajectory(self, reason: str) -> Trajectory:
        from krause_dynamics._version import __version__

        points = self.cells.points(self.cells.centres)
        positions = np.broadcast_to(points, (len(self.times), *points.shape))
        meta = {
            "axis": "time",
            "dynamics": self.run.dynamics.to_dict(),
            "cells": self.cells.to_dict(),
            "impl": self.run.velocity.impl,
            "library": "numpy",
            "dtype": "float64",
            "version": __version__,
            "stopped": reason,
            **self.numbers,
        }
        return Trajectory(np.asarray(self.times), positions, log_of(np.stack(self.saved)), steps=self.steps, meta=meta)


def density_at(trajectory: Trajectory, index: int = -1) -> Density:
    """The density of a mean-field run at one saved time.

    Args:
        trajectory: From `solve`.
        index: Which saved time.

    Raises:
        ValueError: The trajectory holds no cells.
    """
    from krause_dynamics.interaction import from_dict

    cells, log_mass = trajectory.meta.get("cells"), trajectory.log_mass_at(index)
    if cells is None or log_mass is None:
        raise ValueError("trajectory must come from mean_field.solve; for particles take mean_field.from_particles")
    return Density(from_dict(cells), np.exp(log_mass))


def _targets(save_at: int | Sequence[float], t_end: float) -> list[float]:
    if isinstance(save_at, int):
        if save_at < 2:
            raise ValueError(f"save_at must be at least 2 (first and last) or a list of times, got {save_at}")
        return [float(t) for t in np.linspace(0.0, t_end, save_at)[1:]]
    inner = sorted({float(t) for t in save_at if 0 < t < t_end})
    return [*inner, float(t_end)]


def _check_times(t_end: float, dt: float | None, max_dt: float) -> None:
    check_number("t_end", t_end, positive=True)
    check_number("max_dt", max_dt, positive=True)
    if dt is not None:
        check_number("dt", dt, positive=True)
