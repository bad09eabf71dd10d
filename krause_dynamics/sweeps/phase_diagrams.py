"""Phase diagrams as labelled data: what particles, the mean field and linear theory say on one grid of parameters.

Each function returns an xarray Dataset, and the function of the same name in ``kd.plots`` draws it.
Bounded confidence is in units of the radius: a longer interval is a smaller confidence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from krause_dynamics import mean_field, theory
from krause_dynamics._arguments import POSITIVE, Maybe, Real, Reals, Whole, Word, reads
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.forms.near.merging import merging_run
from krause_dynamics.interaction import Within, bounded_confidence, softmax
from krause_dynamics.runs.arguments import check_affordable
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Torus
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

__all__ = ["branch_point", "clusters_over_length", "final_clusters", "order_over_beta", "order_over_noise"]

Model = Literal["discrete", "density", "normalised", "per_capita"]
MODELS = ("discrete", "density", "normalised", "per_capita")
MODEL = Word(MODELS)
QUANTILES = Whole(2, 10**7)  # 80 MB; a branch point known to 1e-6 takes a hundredth of them
SIZES = Whole(1, 10**6)
PARTICLES = 20_000  # every one hears every other
LONGEST = 1e4  # radii of an interval of which all is kept in cells: two million of them
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
    for beta in _counted(betas, progress, "order_over_beta"):
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


def _counted(items: Sequence[Any], progress: bool | Progress, label: str) -> Iterator[Any]:
    """The items one by one, each told when it is done."""
    with drawn(progress, label) as bar:
        for done, item in enumerate(items):
            bar(done, len(items))
            yield item
        bar(len(items), len(items))


def _order_of(density: mean_field.Density) -> float:
    return float(np.hypot(*(density.mass @ density.cells.points(density.cells.centres))) / density.total)


def _order(run: Trajectory, index: int) -> float:
    return _order_of(mean_field.density_at(run, index))


def _groups(angles: np.ndarray, apart: float) -> int:
    settled = np.sort(angles)
    return max(1, int(np.sum(np.diff(np.append(settled, settled[0] + 2 * np.pi)) > apart)))


@reads(lengths=Reals(0.0, ends="()", ndim=1), model=MODEL, count=QUANTILES)
def clusters_over_length(
    lengths: Sequence[float], model: Model = "discrete", *, count: int = 2001, progress: bool | Progress = False
) -> xarray.Dataset:
    """The bifurcation diagram of Hegselmann-Krause: final clusters of a uniform density over interval length / radius.

    Args:
        lengths: interval lengths in units of the radius.
        model: ``"discrete"`` time (the map of quantiles, run until frozen), ``"density"`` (the same map on 200 cells a
            radius, 60 steps; blind to middle groups below 1e-3 of the mass), or continuous time, ``"normalised"`` or
            ``"per_capita"`` with density 1 (until t = 40 and 20, when groups are out of reach of one another or bound
            to merge).
        count: number of quantiles; odd, and 1e5 or more to resolve the branch points of the discrete map.
        progress: ``True`` draws a bar over lengths; or a function ``progress(done, total)``.

    Returns:
        ``position`` (relative to the centre, in radii) and ``mass`` (share), both (length, cluster), NaN where there
        are fewer; ``clusters`` (length).

    Raises:
        ValueError: No lengths, one that is not positive, or an unknown model.
    """
    import xarray

    if len(lengths) == 0:
        raise ValueError("lengths must hold at least one interval length, got none")
    rising = _counted(lengths, progress, "clusters_over_length")
    found = [final_clusters(float(length), model, count=count) for length in rising]
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


@reads(length=POSITIVE, model=MODEL, count=QUANTILES)
def final_clusters(length: float, model: Model = "discrete", *, count: int = 2001) -> list[mean_field.Cluster]:
    """Clusters of a uniform density on an interval about 0, radius 1; arguments as in `clusters_over_length`.

    Raises:
        ValueError: unknown model, a length that is not positive, or with ``"density"`` beyond 10^4 radii.
    """
    if model == "density":
        Real(0.0, LONGEST, "(]").read("length of a density", length)
        cells = mean_field.LineCells(max(round(200 * length), 8), -length / 2, length / 2)
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


@reads(lower=POSITIVE, upper=POSITIVE, model=MODEL, count=Maybe(QUANTILES), width=POSITIVE)
def branch_point(
    lower: float,
    upper: float,
    model: Model = "discrete",
    *,
    count: int | None = None,
    width: float = 1e-3,
    progress: bool | Progress = False,
) -> float:
    """The length (in radii) between two at which consensus is lost or found, by bisection.

    Args:
        lower: length of one fate.
        upper: length of the other.
        model: as in `clusters_over_length`.
        count: number of quantiles, odd; by default 100 001 for the discrete map, whose outcome hangs on a middle group
            of mass 1e-5, and 2001 in continuous time, where every length is a run of seconds.
        width: of the final bracket, at least the spacing of floats there.
        progress: ``True`` draws a bar over the halvings; or a function ``progress(done, total)``.

    Raises:
        ValueError: ``lower`` is above ``upper``, ``width`` is below the spacing of floats, or both ends have the
            same fate.
    """
    if lower > upper:
        raise ValueError(f"lower must not be above upper, got {lower:g} and {upper:g}")
    if width < np.spacing(upper):
        raise ValueError(f"width must be at least {np.spacing(upper):.2g}, the spacing of floats there, got {width:g}")
    count = (100_001 if model == "discrete" else 2001) if count is None else count
    fates = [len(final_clusters(end, model, count=count)) == 1 for end in (lower, upper)]
    if fates[0] == fates[1]:
        fate = "consensus" if fates[0] else "several clusters"
        raise ValueError(f"lower and upper must end differently, got {fate} at both {lower:g} and {upper:g}")
    halvings = range(max(0, math.ceil(math.log2((upper - lower) / width))))
    for _ in _counted(halvings, progress, "branch_point"):
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
        radii: confidence radii, below 1/2.
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
    for row, column in _counted(points, progress, "order_over_noise"):
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
