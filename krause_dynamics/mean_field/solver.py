"""The continuity equation of a density under an interaction, and its diffusion (McKean-Vlasov), on a fixed grid."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from krause_dynamics._arguments import POSITIVE, Is, Maybe, Whole, reads
from krause_dynamics._progress import Progress
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.mean_field.cells import Cells
from krause_dynamics.mean_field.checks import check_resolution, check_rule, check_types
from krause_dynamics.mean_field.density import Density
from krause_dynamics.mean_field.diffusion import diffusion
from krause_dynamics.mean_field.finite_volumes import SHARE_PER_STEP, Rates, Transport, largest_step
from krause_dynamics.mean_field.runs import OnSave, StopRule, run_file, run_of, trajectory_of, words
from krause_dynamics.mean_field.velocity import Velocity
from krause_dynamics.runs.arguments import STATES, STEPS, asked_times, check_affordable
from krause_dynamics.runs.loop import StepFailed, Stepper
from krause_dynamics.runs.recording import AtTimes, Record
from krause_dynamics.runs.resuming import with_form
from krause_dynamics.spaces import Euclidean
from krause_dynamics.trajectory import Trajectory

MOST_NODES = 100_000  # of a ring: a thousand times what the sharpest affinity needs
SMALLEST_STEP = 1e-10  # of the run: below it the velocity grows without bound
EDGE_SHARE = 1e-6  # of the mean mass per cell: more than that at the edge of a box, moving out, is lost knowledge


@reads(t_end=POSITIVE, dt=Maybe(POSITIVE), max_dt=POSITIVE, ring_nodes=Maybe(Whole(1, MOST_NODES)))
def solve(
    dynamics: Dynamics,
    density: Density,
    t_end: float,
    *,
    dt: float | None = None,
    max_dt: float = 0.05,
    save_at: int | Sequence[float] = 101,
    stop: StopRule | None = None,
    on_save: OnSave | None = None,
    progress: bool | Progress = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
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
        progress: ``True`` draws a bar with the time left; or a function ``progress(t, t_end)`` called after every step.
        checkpoint: A file to resume from when it exists, and to write: a killed run then ends with the same numbers.
            A stop rule with memory offers ``state()`` (JSON-ready) and ``restore(state)``.
        checkpoint_every: Seconds between two writings.
        impl: How the interaction is computed; ``"auto"`` takes the convolution where it applies and pays.
        ring_nodes: Gauss-Jacobi nodes per latitude of a sphere; by default 16 and more for sharp affinities.

    Returns:
        A `Trajectory` with the cell centres as fixed positions and moving ``log_mass`` (T, cells); on a sphere the mass
        of a position is that of its latitude. ``steps`` counts time steps; ``meta["stopped"]`` is ``"t_end"``, the
        reason of the stop rule, or ``"interrupted"`` after Ctrl-C.

    Raises:
        TypeError: ``dynamics`` or ``density`` of another type.
        ValueError: A rule that is no function of the measure, cells too coarse for it or not those of the space,
            a forced ``dt`` over the bound, a checkpoint file of another run.
        SimulationDiverged: Infinite velocity (blow-up), or mass at the edge of a Euclidean box; carries the trajectory.
    """
    check_types(dynamics, density)
    _check_times(t_end, dt, max_dt)
    cells = density.cells
    cells.check_space(dynamics.space)
    check_rule(dynamics, cells)
    check_resolution(dynamics.rule_at(0.0), cells)
    times = _targets(save_at, t_end)
    stepper = with_form(
        lambda name: Transported(dynamics, cells, t_end, dt=dt, max_dt=max_dt, impl=name, nodes=ring_nodes),
        impl,
        checkpoint,
    )
    described = words(dynamics, cells, stepper.impl, "time", t_end=t_end, dt=dt, max_dt=max_dt)
    run = run_of(
        stepper,
        Record(0.0, density.mass, AtTimes(times)),
        cells,
        t_end,
        stop=stop,
        on_save=on_save,
        progress=progress,
        label="mean_field.solve",
        file=run_file(
            checkpoint, checkpoint_every, described | {"ring_nodes": ring_nodes}, density, times, stop, dynamics
        ),
    )
    return run.finish(trajectory_of(run, cells, described))


class Transported(Stepper):
    """Half a diffusion, transport, half a diffusion (Strang 1968): steps as long as the scheme allows.

    Attributes:
        impl: Name of the form that computes the velocity.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        cells: Cells,
        t_end: float,
        *,
        dt: float | None,
        max_dt: float,
        impl: str,
        nodes: int | None,
    ) -> None:
        periodic = cells.is_periodic(dynamics.space)
        faces = cells.edges[:-1] if periodic else cells.edges[1:-1]
        velocity = Velocity(dynamics, cells, faces, impl=impl, nodes=nodes)
        self.impl, self._noise = velocity.impl, dynamics.noise
        self._transport = Transport(cells, periodic, velocity)
        self._diffuse = diffusion(cells, periodic, dynamics.noise)
        self._dt, self._max_dt, self._shortest = dt, max_dt, SMALLEST_STEP * t_end
        self._boxed = isinstance(dynamics.space, Euclidean)

    def step(self, t: float, x: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        """One step of the masses ``x`` (count,) towards ``limit``."""
        rates = self._transport.rates(t, x)
        bound = largest_step(x, rates)
        if self._boxed and _reaches_edge(x, rates, self._noise):
            raise StepFailed(f"mass reached the edge of the cells at t = {t:g}; take wider ones", "edge")
        step = _step(t, limit, bound, self._dt, self._max_dt)
        while True:
            if step < self._shortest and step < limit - t:
                raise StepFailed(f"velocities grow without bound at t = {t:g}")
            moved = self._try(t, x, step, rates)
            if moved is not None:
                self.taken += 1
                return (limit if limit - t - step < 1e-9 * step else t + step), moved
            if self._dt is not None:
                raise ValueError(f"dt must be at most about {bound:.3g} at t = {t:g}, got {self._dt}; leave it out")
            step /= 2

    def _try(self, t: float, mass: np.ndarray, step: float, rates: Rates) -> np.ndarray | None:
        if self._diffuse is None:
            return self._transport.step(t, mass, step, rates)
        spread = self._diffuse(mass, step / 2)
        moved = self._transport.step(t, spread, step, self._transport.rates(t, spread))
        return None if moved is None else self._diffuse(moved, step / 2)


def _reaches_edge(mass: np.ndarray, rates: Rates, noise: float) -> bool:
    """Whether an end cell holds mass and gains more, which on a box means that the density wants to leave it."""
    enough, gains = EDGE_SHARE * mass.mean(), rates.change > 0
    return bool((mass[0] > enough and (gains[0] or noise > 0)) or (mass[-1] > enough and (gains[-1] or noise > 0)))


def _step(t: float, target: float, bound: float, dt: float | None, max_dt: float) -> float:
    """An equal share of the way to the target, at most the bound of the scheme."""
    if dt is not None and dt > bound:
        raise ValueError(
            f"dt must be at most {bound:.3g} at t = {t:g} (no cell may be emptied), got {dt}; leave it out"
        )
    wanted = min(SHARE_PER_STEP * bound, max_dt) if dt is None else dt
    return (target - t) / np.ceil((target - t) / wanted - 1e-9)


@reads(trajectory=Is(Trajectory, "mean_field.solve(...)"), index=Whole(-(10**9)))
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
    if isinstance(save_at, int | np.integer):
        if save_at < 2:
            raise ValueError(f"save_at must be at least 2 (first and last) or a list of times, got {save_at}")
        check_affordable("states to keep (save_at)", float(save_at), STATES)
        return [float(t) for t in np.linspace(0.0, t_end, save_at)[1:]]
    return asked_times(save_at, t_end)


def _check_times(t_end: float, dt: float | None, max_dt: float) -> None:
    check_affordable("steps", t_end / (max_dt if dt is None else dt), STEPS)
