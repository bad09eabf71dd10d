"""Layers of a density: one step of the rule as a map, and the density pushed forward by it, on the same cells.

With bounded confidence and dt = 1 this is the Hegselmann-Krause map of a density, which makes atoms: a cell whose image
is one point gives its mass to the two nearest cells, in shares that keep the point as their mean, so that an atom stays
where it is and weighs what it should. Sharing smears a little mass over a cell at each layer; where the outcome hangs
on less than 1e-3 of the mass (near a branch point), take the Lagrangian form.
"""

from __future__ import annotations

import os

import numpy as np

from krause_dynamics._arguments import COUNT, POSITIVE, reads
from krause_dynamics._compiled import njit
from krause_dynamics._progress import Progress
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.mean_field.cells import LineCells
from krause_dynamics.mean_field.checks import check_resolution, check_rule, check_types
from krause_dynamics.mean_field.density import Density
from krause_dynamics.mean_field.finite_volumes import Transport
from krause_dynamics.mean_field.runs import OnSave, StopRule, run_file, run_of, trajectory_of, words
from krause_dynamics.mean_field.velocity import Velocity
from krause_dynamics.runs.loop import StepFailed, Stepper
from krause_dynamics.runs.recording import Every, Record
from krause_dynamics.runs.resuming import with_form
from krause_dynamics.trajectory import Trajectory

NARROW = 1e-4  # cells; a narrower image is treated as a point
STILL = 1e-12  # of the mass: what may move in a step that counts as none


@reads(steps=COUNT, dt=POSITIVE, save_every=COUNT)
def iterate(
    dynamics: Dynamics,
    density: Density,
    steps: int,
    *,
    dt: float = 1.0,
    save_every: int = 1,
    stop: StopRule | None = None,
    on_save: OnSave | None = None,
    progress: bool | Progress = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    impl: str = "auto",
) -> Trajectory:
    """Push a density on a line forward by ``x -> x + dt drift(x)``, up to ``steps`` times, or until it stands still.

    The edges of the cells move, each cell spreads its mass evenly between the images of its edges, and the images are
    shared out to the fixed cells with linear weights: mass and mean are kept to rounding, the variance grows by at most
    width^2/4 a step (second order).

    Args:
        dynamics: An exchangeable rule in a Euclidean space, an interval or a torus, without noise.
        density: On `LineCells`.
        steps: Most layers.
        dt: Length of a layer, in units of time; 1 replaces each position by the mean that it hears (relative drift).
        save_every: Keep every so-many states (first and last always).
        stop: ``stop(layer, density, previous) -> reason or None``, asked after every layer.
        on_save: ``on_save(layer, density)``, called at every saved layer.
        progress: ``True`` draws a bar with the time left; or ``progress(layer, steps)`` called after every layer.
        checkpoint: As in `solve`; a run that came to ``steps`` may go on to more.
        checkpoint_every: Seconds between two writings.
        impl: As in `solve`.

    Returns:
        A `Trajectory` over layers, as `solve` returns it; ``steps`` counts the layers in which something moved,
        ``meta["stopped"]`` is ``"steps"``, ``"still"``, the reason of the stop rule, or ``"interrupted"`` after Ctrl-C.

    Raises:
        ValueError: A rule or space that has no such map, cells too coarse, or a checkpoint file of another run.
        SimulationDiverged: Mass leaves the cells, as with ``dt`` beyond 1; carries the trajectory.
    """
    check_types(dynamics, density)
    cells = _checked(dynamics, density)
    stepper = with_form(lambda name: Layers(dynamics, cells, dt, name), impl, checkpoint)
    described = words(dynamics, cells, stepper.impl, "layer", dt=dt)
    run = run_of(
        stepper,
        Record(0.0, density.mass, Every(save_every)),
        cells,
        float(steps),
        at_end="steps",
        goes_on=True,
        stop=stop,
        on_save=on_save,
        progress=progress,
        label="mean_field.iterate",
        file=run_file(checkpoint, checkpoint_every, described, density, save_every, stop, dynamics),
    )
    return run.finish(trajectory_of(run, cells, described))


class Layers(Stepper):
    """One layer a step, until nothing moves.

    Attributes:
        impl: Name of the form that computes the velocity.
    """

    def __init__(self, dynamics: Dynamics, cells: LineCells, dt: float, impl: str) -> None:
        self._cells, self._dt, self._periodic = cells, dt, cells.is_periodic(dynamics.space)
        self._velocity = Velocity(dynamics, cells, cells.edges, impl=impl)
        self._slopes = Transport(cells, self._periodic, self._velocity).slopes
        self.impl = self._velocity.impl

    def step(self, t: float, x: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        """The masses ``x`` (count,) of layer ``t`` pushed forward; the times of a rule are those of its ends."""
        cells, layer = self._cells, t + 1
        images = cells.edges + self._dt * self._velocity(layer * self._dt, x, self._slopes(x / cells.width))
        images = (images - cells.lower) / cells.width - 0.5
        _check_images(x, images, cells.count, self._periodic, layer)
        new = _deposit(x, images, self._periodic)
        moves = bool(np.abs(np.cumsum(new - x)).max() > STILL * x.sum())
        self.taken += moves
        self.ended = None if moves else "still"
        return layer, new


def _check_images(mass: np.ndarray, images: np.ndarray, count: int, periodic: bool, layer: float) -> None:
    """Mass stays on the cells, and no cell is spread around more than the whole torus.

    Raises:
        StepFailed: It does not, as where ``dt`` is beyond 1.
    """
    ends = np.stack([images[:-1], images[1:]])[:, mass > 0]
    if periodic:
        if (np.abs(ends[1] - ends[0]) > count).any():
            raise StepFailed(f"one cell is spread around the whole torus in layer {layer:g}; take a smaller dt", "edge")
    elif ends.min() < -0.5 - NARROW * count or ends.max() > count - 0.5 + NARROW * count:
        raise StepFailed(f"mass leaves the cells in layer {layer:g}; take a smaller dt, or wider cells", "edge")


def _checked(dynamics: Dynamics, density: Density) -> LineCells:
    cells = density.cells
    if not isinstance(cells, LineCells):
        raise ValueError(f"density must live on LineCells, got {type(cells).__name__}; layers on spheres: kd.simulate")
    cells.check_space(dynamics.space)
    check_rule(dynamics, cells)
    check_resolution(dynamics.rule_at(0.0), cells)
    if dynamics.noise:
        raise ValueError(f"a map has no noise, got noise={dynamics.noise}; mean_field.solve has")
    return cells


@njit()
def _hat_integral(s: float) -> float:
    """Integral from -infinity of the hat function of unit half-width."""
    if s <= -1.0:
        return 0.0
    if s >= 1.0:
        return 1.0
    return 0.5 * (s + 1.0) ** 2 if s < 0 else 0.5 + s - 0.5 * s * s


@njit()
def _share(a: float, b: float, k: float) -> float:
    """Mean over [a, b] of the hat function about k; its value where a = b."""
    if b > a:
        return (_hat_integral(b - k) - _hat_integral(a - k)) / (b - a)
    return max(1.0 - abs(a - k), 0.0)


@njit()
def _deposit(mass: np.ndarray, images: np.ndarray, periodic: bool) -> np.ndarray:
    """Share the masses out: cell i, spread evenly over ``images[i]..images[i + 1]`` (in cells, centres at integers)."""
    n = len(mass)
    result = np.zeros(n)
    for i in range(n):
        if mass[i] == 0.0:
            continue
        a, b = min(images[i], images[i + 1]), max(images[i], images[i + 1])
        if b - a < NARROW:
            a = b = 0.5 * (a + b)
        first, last = int(np.floor(a)), int(np.floor(b)) + 1
        total = 0.0
        for turn in range(2):
            for k in range(first, last + 1):
                share = _share(a, b, k)
                if turn == 0:
                    total += share
                else:
                    place = k % n if periodic else min(max(k, 0), n - 1)
                    result[place] += mass[i] * (share / total)
    return result
