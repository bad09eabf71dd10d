"""Phase diagrams as labelled data: what particles, the mean field and linear theory say on one grid of parameters.

Each function returns an xarray Dataset, and the function of the same name in ``kd.plots`` draws it.
Bounded confidence is in units of the radius: a longer interval is a smaller confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from krause_dynamics import mean_field, theory
from krause_dynamics._arguments import POSITIVE, Real, Reals, Whole, Word, reads
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.forms.near.merging import merging_run
from krause_dynamics.interaction import Within, bounded_confidence, softmax
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Torus
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

__all__ = ["branch_point", "clusters_over_length", "final_clusters", "order_over_beta", "order_over_noise"]

Model = Literal["discrete", "density", "normalised", "per_capita"]
MODELS = ("discrete", "density", "normalised", "per_capita")
MODEL = Word(MODELS)


@reads(
    betas=Reals(0.0, ends="()", ndim=1),
    times=Reals(0.0, ndim=1),
    tokens=Whole(0),
    kappa=Real(0.0),
    noise=Real(0.0),
    cells=Whole(),
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

    Returns:
        ``particles``, ``density`` (beta, time): order parameters; ``clusters`` (beta, time): particle groups further
        apart than 1/(2 sqrt(beta)); ``winning_mode``, ``linear_time`` (beta): its prediction, and the time of r = 1/2.
    """
    import xarray

    space, moments = Circle(), np.asarray(times, dtype=float)
    rng = np.random.default_rng(seed)
    start = mean_field.von_mises(cells=cells, kappa=kappa)
    lattice = space.from_angles(2 * np.pi * np.arange(tokens) / tokens + noise * rng.normal(size=tokens))
    results: dict[str, list[Any]] = {name: [] for name in ("particles", "density", "clusters")}
    for beta in betas:
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


@reads(lengths=Reals(0.0, ends="()", ndim=1), model=MODEL, count=Whole(2, 10**9))
def clusters_over_length(lengths: Sequence[float], model: Model = "discrete", *, count: int = 2001) -> xarray.Dataset:
    """The bifurcation diagram of Hegselmann-Krause: final clusters of a uniform density over interval length / radius.

    Args:
        lengths: interval lengths in units of the radius.
        model: ``"discrete"`` time (the map of quantiles, run until frozen), ``"density"`` (the same map on 200 cells a
            radius, 60 steps; blind to middle groups below 1e-3 of the mass), or continuous time, ``"normalised"`` or
            ``"per_capita"`` with density 1 (until t = 40 and 20, when groups are out of reach of one another or bound
            to merge).
        count: number of quantiles; odd, and 1e5 or more to resolve the branch points of the discrete map.

    Returns:
        ``position`` (relative to the centre, in radii) and ``mass`` (share), both (length, cluster), NaN where there
        are fewer; ``clusters`` (length).

    Raises:
        ValueError: No lengths, one that is not positive, or an unknown model.
    """
    import xarray

    if len(lengths) == 0:
        raise ValueError("lengths must hold at least one interval length, got none")
    found = [final_clusters(float(length), model, count=count) for length in lengths]
    most = max(len(clusters) for clusters in found)
    position, mass = np.full((2, len(found), most), np.nan)
    for row, clusters in enumerate(found):
        position[row, : len(clusters)] = [c.position for c in clusters]
        mass[row, : len(clusters)] = [c.mass for c in clusters]
    data = {
        "position": (("length", "cluster"), position),
        "mass": (("length", "cluster"), mass),
        "clusters": ("length", [len(clusters) for clusters in found]),
    }
    return xarray.Dataset(data, coords={"length": list(lengths)}, attrs={"model": model, "count": count})


@reads(length=POSITIVE, model=MODEL, count=Whole(2, 10**9))
def final_clusters(length: float, model: Model = "discrete", *, count: int = 2001) -> list[mean_field.Cluster]:
    """Clusters of a uniform density on an interval about 0, radius 1; arguments as in `clusters_over_length`.

    Raises:
        ValueError: unknown model, or a length that is not positive.
    """
    if not length > 0:
        raise ValueError(f"length must be positive, got {length!r}")
    if model == "density":
        cells = mean_field.LineCells(round(200 * length), -length / 2, length / 2)
        rule = Dynamics(bounded_confidence(1.0))
        run = mean_field.iterate(rule, mean_field.uniform(cells), 60, save_every=60)
        return mean_field.clusters(run, gap=1.0)
    density = mean_field.uniform(mean_field.LineCells(64, -length / 2, length / 2), mass=length)
    x = density.quantiles(count)
    if model == "discrete":
        line = merging_run(x, Within(1.0), 1e-12 * length)
        line.advance(1_000_000)
        x = line.positions
    else:
        x = _settled_flow(x, length, model)
    # Gaps above the radius never close; what is joined by a chain within reach merges, if slowly.
    groups = np.split(x, 1 + np.flatnonzero(np.diff(x) > 1.0))
    return [mean_field.Cluster(float(g.mean()), len(g) / count, float(g.std())) for g in groups]


def _settled_flow(x: np.ndarray, length: float, model: Model) -> np.ndarray:
    """Quantiles (n, 1) of density 1 after the continuous-time transients: (n,)."""
    dynamics = Dynamics(bounded_confidence(1.0, normalised=model == "normalised"), Euclidean())
    log_mass = np.full(len(x), np.log(length / len(x)))
    for _ in range(40 if model == "normalised" else 20):
        x = simulate(dynamics, x, 1.0, dt=0.1, save_every=10, log_mass=log_mass, impl="sorted1d").final
        # The law is even. Rounding grows where the middle group is torn both ways, so parity is restored in time.
        x = 0.5 * (x - x[::-1])
    return x[:, 0]


@reads(lower=POSITIVE, upper=POSITIVE, model=MODEL, count=Whole(2, 10**9), width=POSITIVE)
def branch_point(
    lower: float, upper: float, model: Model = "discrete", *, count: int = 100_001, width: float = 1e-3
) -> float:
    """The length (in radii) between two at which consensus is lost or found, by bisection.

    Args:
        lower: length of one fate.
        upper: length of the other.
        model: as in `clusters_over_length`.
        count: number of quantiles, odd.
        width: of the final bracket.

    Raises:
        ValueError: both ends have the same fate.
    """
    fates = [len(final_clusters(end, model, count=count)) == 1 for end in (lower, upper)]
    if fates[0] == fates[1]:
        fate = "consensus" if fates[0] else "several clusters"
        raise ValueError(f"lower and upper must end differently, got {fate} at both {lower:g} and {upper:g}")
    while upper - lower > width:
        middle = 0.5 * (lower + upper)
        if (len(final_clusters(middle, model, count=count)) == 1) == fates[0]:
            lower = middle
        else:
            upper = middle
    return 0.5 * (lower + upper)


@reads(
    noises=Reals(0.0, ndim=1),
    radii=Reals(0.0, ends="()", ndim=1),
    t_end=POSITIVE,
    cells=Whole(),
    particles=Whole(0),
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
) -> xarray.Dataset:
    """Noisy bounded confidence, per capita, on a torus of length 1 over (noise, radius): order or disorder.

    Args:
        noises: sigma of dx = drift dt + sigma dB.
        radii: confidence radii, below 1/2.
        t_end: time; near the critical noise, growth is slow and the order still transient.
        cells: cells of the solver.
        particles: also run this many particles at every point (0: none), by Euler-Maruyama with dt = 0.05.
        seed: of the particles.

    Returns:
        ``density`` (radius, noise): |int e^{2 pi i x} rho| of the solver from a start of 1 + 0.1 cos(2 pi x);
        ``particles`` likewise, where asked for; ``critical_noise`` (radius): linear theory, first mode.
    """
    import xarray

    torus = Torus(1.0)
    grid = mean_field.LineCells(cells, 0.0, 1.0)
    start = mean_field.from_function(grid, lambda x: 1 + 0.1 * np.cos(2 * np.pi * x))
    orders, cloud = np.empty((2, len(radii), len(noises)))
    for row, radius in enumerate(radii):
        for column, noise in enumerate(noises):
            rule = bounded_confidence(float(radius), normalised=False)
            dynamics = Dynamics(rule, torus, noise=float(noise))
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
