"""Order parameters as labelled data: attention over inverse temperature, bounded confidence over noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics import mean_field, theory
from krause_dynamics._arguments import POSITIVE, Real, Reals, Whole, reads
from krause_dynamics._progress import Progress, counted
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.interaction import bounded_confidence, softmax
from krause_dynamics.runs.arguments import check_affordable
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Torus
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

SIZES = Whole(1, 10**6)
PARTICLES = 20_000  # every one hears every other
STEPS = 1e6  # of one run of a diagram: at 40 microseconds each, a minute


@reads(
    betas=Reals(0.0, ends="()", ndim=1),
    times=Reals(0.0, ends="()", ndim=1, rising=True),
    tokens=Whole(1, PARTICLES),
    kappa=Real(0.0),
    noise=Real(0.0),
    cells=SIZES,
    seed=Whole(0),
)
def order_over_beta(
    betas: Sequence[float],
    times: Sequence[float],
    *,
    tokens: int = 200,
    kappa: float = 0.1,
    noise: float = 1e-3,
    cells: int = 128,
    seed: int = 0,
    progress: bool | Progress = False,
) -> xarray.Dataset:
    """Softmax attention on the circle over (beta, time): order parameter and clusters.

    Particles start at the quantiles of a von Mises law (order) and at a lattice with a little noise (clusters); the
    solver starts at the same von Mises density. Linear theory: r(0) e^{rate t} of the first mode; the winning mode.

    Args:
        betas: inverse temperatures, increasing.
        times: times > 0, increasing.
        tokens: number of particles.
        kappa: concentration of the von Mises start, r(0) = kappa/2 about.
        noise: standard deviation of the angles about the lattice.
        cells: cells of the solver.
        seed: of the noise.
        progress: ``True`` draws a bar over betas; or a function ``progress(done, total)``.

    Returns:
        ``particles``, ``density`` (beta, time): order parameters; ``clusters`` (beta, time): particle groups further
        apart than 1/(2 sqrt(beta)); ``winning_mode``, ``linear_time`` (beta): its prediction, and the time of r = 1/2.

    Raises:
        ValueError: Times that do not rise, or so late that a run has more than 10^6 steps.
    """
    import xarray

    check_affordable("steps (the last of times / 0.1)", times[-1] / 0.1, STEPS)
    space, moments = Circle(), np.asarray(times, dtype=float)
    rng = np.random.default_rng(seed)
    start = mean_field.von_mises(cells=cells, kappa=kappa)
    lattice = space.from_angles(2 * np.pi * np.arange(tokens) / tokens + noise * rng.normal(size=tokens))
    results: dict[str, list[Any]] = {name: [] for name in ("particles", "density", "clusters")}
    for beta in counted(betas, progress, "order_over_beta"):
        dynamics = Dynamics(softmax(float(beta)), space)
        x0 = np.stack([start.quantiles(tokens), lattice])
        run = simulate(dynamics, x0, moments[-1], dt=0.1, save_at=list(moments)).positions[1:]
        solved = mean_field.solve(dynamics, start, moments[-1], save_at=list(moments))
        results["particles"].append(np.linalg.norm(run[:, 0].mean(axis=1), axis=-1))
        results["density"].append([_order(solved, index) for index in range(1, len(moments) + 1)])
        results["clusters"].append([_groups(space.to_angles(x), 0.5 / np.sqrt(beta)) for x in run[:, 1]])
    rates = np.array([float(theory.mode_growth(degree=1, beta=beta, dimension=2)) for beta in betas])
    data: dict[str, Any] = {
        name: (("beta", "time"), np.asarray(values, dtype=float)) for name, values in results.items()
    }
    data["winning_mode"] = ("beta", [theory.winning_mode(beta=beta) for beta in betas])
    data["linear_time"] = ("beta", np.log(0.5 / _order_of(start)) / rates)
    attributes = {"tokens": tokens, "kappa": kappa, "noise": noise, "cells": cells, "seed": seed}
    return xarray.Dataset(data, coords={"beta": list(betas), "time": moments}, attrs=attributes)


def _order_of(density: mean_field.Density) -> float:
    return float(np.hypot(*(density.mass @ density.cells.points(density.cells.centres))) / density.total)


def _order(run: Trajectory, index: int) -> float:
    return _order_of(mean_field.density_at(run, index))


def _groups(angles: np.ndarray, apart: float) -> int:
    settled = np.sort(angles)
    return max(1, int(np.sum(np.diff(np.append(settled, settled[0] + 2 * np.pi)) > apart)))


@reads(
    noises=Reals(0.0, ndim=1),
    radii=Reals(0.0, ends="()", ndim=1),
    t_end=POSITIVE,
    cells=SIZES,
    particles=Whole(0, PARTICLES),
    seed=Whole(0),
)
def order_over_noise(
    noises: Sequence[float],
    radii: Sequence[float],
    *,
    t_end: float = 40.0,
    cells: int = 64,
    particles: int = 0,
    seed: int = 0,
    progress: bool | Progress = False,
) -> xarray.Dataset:
    """Noisy bounded confidence, per capita, on a torus of length 1 over (noise, radius): order or disorder.

    Args:
        noises: sigma of dx = drift dt + sigma dB.
        radii: confidence radii, below 1/2; unit: position, of which the torus has 1.
        t_end: time; near the critical noise, growth is slow and the order still transient.
        cells: cells of the solver.
        particles: also run this many particles at every point (0: none), by Euler-Maruyama with dt = 0.05.
        seed: of the particles.
        progress: ``True`` draws a bar over the points; or a function ``progress(done, total)``.

    Returns:
        ``density`` (radius, noise): |int e^{2 pi i x} rho| of the solver from a start of 1 + 0.1 cos(2 pi x);
        ``particles`` likewise, where asked for; ``critical_noise`` (radius): linear theory, first mode.

    Raises:
        ValueError: Cells too coarse for a radius, or a time of more than 10^6 steps.
    """
    import xarray

    check_affordable("steps (t_end / 0.05)", t_end / 0.05, STEPS)
    torus = Torus(1.0)
    grid = mean_field.LineCells(cells, 0.0, 1.0)
    start = mean_field.from_function(grid, lambda x: 1 + 0.1 * np.cos(2 * np.pi * x))
    orders, cloud = np.empty((2, len(radii), len(noises)))
    points = list(itertools.product(range(len(radii)), range(len(noises))))
    for row, column in counted(points, progress, "order_over_noise"):
        rule = bounded_confidence(float(radii[row]), normalised=False)
        dynamics = Dynamics(rule, torus, noise=float(noises[column]))
        solved = mean_field.solve(dynamics, start, t_end, max_dt=0.5, save_at=[t_end])
        orders[row, column] = _fourier(grid.centres, mean_field.density_at(solved).mass)
        if particles:
            cloud[row, column] = _noisy_particles(dynamics, start, particles, t_end, seed)
    data: dict[str, Any] = {"density": (("radius", "noise"), orders)}
    if particles:
        data["particles"] = (("radius", "noise"), cloud)
    data["critical_noise"] = (
        "radius",
        np.array([theory.critical_noise(radius=radius, length=1.0) for radius in radii]),
    )
    attributes = {"t_end": t_end, "cells": cells, "particles": particles, "seed": seed}
    return xarray.Dataset(data, coords={"radius": list(radii), "noise": list(noises)}, attrs=attributes)


def _fourier(x: np.ndarray, mass: np.ndarray) -> float:
    return float(np.abs(np.exp(2j * np.pi * x) @ mass) / mass.sum())


def _noisy_particles(dynamics: Dynamics, start: mean_field.Density, count: int, t_end: float, seed: int) -> float:
    from krause_dynamics.integrators import EulerMaruyama

    run = simulate(
        dynamics, start.quantiles(count), t_end, dt=0.05, integrator=EulerMaruyama(), save_every=10**9, rng=seed
    )
    return _fourier(run.final[:, 0], np.ones(count))
