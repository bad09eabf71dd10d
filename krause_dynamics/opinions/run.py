"""Bounded confidence in one line: `hegselmann_krause`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from krause_dynamics._arguments import COUNT, FLAG, Maybe, reads
from krause_dynamics._array import as_floating, as_generator
from krause_dynamics._progress import Progress
from krause_dynamics._value import described
from krause_dynamics.interaction import Flat
from krause_dynamics.interaction.adjacency import labels_of
from krause_dynamics.interaction.scores import Score
from krause_dynamics.opinions.arguments import MOVED, External, Network, interaction, opinions, scale
from krause_dynamics.opinions.disturbances import Noise, TruthSeeking
from krause_dynamics.opinions.merging import Merging
from krause_dynamics.opinions.model import Model
from krause_dynamics.opinions.result import ending
from krause_dynamics.opinions.rounding import share_at_radius, warn_of_rounding
from krause_dynamics.opinions.schedules import Deffuant, Schedule, Sequential
from krause_dynamics.opinions.stepping import identity, stepper_of, translator
from krause_dynamics.opinions.stepwise import Stepwise
from krause_dynamics.runs.arguments import check_callables
from krause_dynamics.runs.description import memories, meta, seed_of
from krause_dynamics.runs.fingerprints import functions_in
from krause_dynamics.runs.loop import OnSave, Run, Stop
from krause_dynamics.runs.recording import Every, Record
from krause_dynamics.runs.resuming import FUNCTIONS, RunFile, with_form
from krause_dynamics.runs.stopping import Frozen
from krause_dynamics.trajectory import Trajectory

MAX_STEPS = 100_000  # far above every freezing time met in practice; a lattice near a branch point may need more


@reads(
    closed=FLAG,
    include_self=FLAG,
    normalised=FLAG,
    weighted=FLAG,
    max_steps=Maybe(COUNT),
    save_every=Maybe(COUNT),
)
def hegselmann_krause(
    x0: Any,
    radius: Any,
    *,
    closed: bool = True,
    include_self: bool = True,
    normalised: bool = True,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    external: External | TruthSeeking | None = None,
    influence: Score | None = None,
    graph: Network | None = None,
    weighted: bool = False,
    noise: Noise | None = None,
    schedule: Schedule | None = None,
    stop: Stop | None = None,
    max_steps: int | None = None,
    save_every: int | None = None,
    on_save: OnSave | None = None,
    progress: bool | Progress = False,
    rng: int | np.random.Generator | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    impl: str = "auto",
) -> Trajectory:
    """Run the Hegselmann-Krause model in discrete time until nothing moves.

    ``x_i <- mean of {x_j : |x_j - x_i| <= radius}``, all agents at once (Hegselmann & Krause 2002). A step counts when
    some coordinate moves by more than 1e-12 of the initial range. On a line a step costs O(n) and means are exact to
    one rounding; in more dimensions only near agents are looked at; equal opinions merge. A start that is symmetric
    up to rounding stays symmetric.

    Args:
        x0: Initial opinions, (n,) or (n, d), numpy; computed in float64 and returned in the dtype given.
        radius: Confidence bound, positive, in units of opinion; (n,) gives each listener its own.
        closed: Whether those exactly at the radius are heard.
        include_self: Whether the own opinion counts. Without it a period of two is possible, and reported.
        normalised: The mean of those heard; ``False``: ``x_i + sum_j m_j (x_j - x_i)`` over them with masses that sum
            to 1 (per capita, which conserves the mean).
        weights: Positive weights of the agents, (n,).
        fixed: Stubborn agents, heard but never moved: booleans (n,).
        external: A drift per step, ``external(t, x) -> (n, d)``, or `TruthSeeking`.
        influence: A score in place of the flat mean, such as ``kd.Radial(phi)``; the radius still cuts it
            (``np.inf`` does not).
        graph: A network: `kd.Graph`, networkx graph, (n, n) array (dense, sparse, pandas) or list of tuples (i, j), i
            hears j; only those linked and within the radius are heard, oneself always. Agents are nodes by number where
            the nodes are numbers, by label where opinions are a Series with labels, else in the graph's own order.
        weighted: Whether the weights of the network count: the mean ``sum_j w_ij x_j / sum_j w_ij`` of those heard,
            with infinite radius that of DeGroot (1974); the own opinion counts w_ii. By default weights other than 0
            and 1 are refused.
        noise: `StepNoise` or `RandomRelocation`, after each unit of time.
        schedule: `Synchronous` (default), `Sequential` or `Deffuant`; n draws are time 1.
        stop: A rule of `krause_dynamics.stopping`, or ``stop(t, x, previous) -> reason or None``, asked after every
            unit of time. `Frozen` with its tolerance is the default; a deterministic run ends when frozen in any case.
        max_steps: Units of time at most; 100 000 by default, to be given where noise never lets the run freeze.
        save_every: Keep every so-many states (the first and the last always). By default all, and when they exceed
            512 MB every second one, and so on.
        on_save: ``on_save(t, x)`` at every state kept.
        progress: ``True`` draws a bar towards ``max_steps``; or a function ``progress(t, max_steps)`` called after
            every unit of time (of many at once where nobody looks at the states between).
        rng: Seed or generator, needed where anything is drawn.
        checkpoint: A file to resume from when it exists, and to write: a killed run then ends with the same numbers.
            It holds the merged atoms and the generator's state; a stop rule with memory offers ``state()`` (JSON-ready)
            and ``restore(state)``. A run that came to ``max_steps`` may go on to more.
        checkpoint_every: Seconds between two writings.
        impl: ``"auto"``, which is ``"merging"`` (equal opinions merge) for the classical rule; or how `kd.aggregate`
            shall compute every step (for comparisons; merges nothing).

    Returns:
        A `Trajectory` with times 0, 1, ..., ``steps``, and in ``meta``: ``stopped`` ("frozen", "period of two",
        "max_steps", "interrupted" by Ctrl-C, or the reason of the stop rule), ``clusters`` (positions, masses, sizes)
        and ``pairs_at_radius``. `final_clusters` gives the clusters as arrays with labels.

    Raises:
        TypeError: torch opinions, or a missing ``rng``.
        ValueError: NaN, empty opinions, a radius that is not positive or not (n,), a network that does not fit, ...
        SimulationDiverged: An external drift drove opinions to infinity.

    Warns:
        RoundingWarning: More than 1 % of the pairs up to the radius lie within rounding of it and are decided both
            ways.

    Examples:
        >>> import krause_dynamics as kd
        >>> run = kd.hegselmann_krause([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], radius=1.0)
        >>> run.steps, run.meta["clusters"]["sizes"]
        (6, [3, 3])
    """
    check_callables(on_save=on_save, progress=progress)
    given = as_floating("x0", x0) if not hasattr(x0, "detach") else x0
    x = opinions(given)
    rule = interaction(
        len(x), radius, closed, include_self, normalised, influence, graph, weighted=weighted, labels=labels_of(x0)
    )
    model = Model.of(len(x), rule, weights, fixed, external, noise, schedule)
    _check(model, max_steps, stop)
    extent, share = scale(x, model.within.radius), _checked_share(model, x)
    draws = as_generator(rng) if model.needs_rng else None
    asked = None if isinstance(stop, Frozen) else stop
    tolerance = extent * (stop.tolerance if isinstance(stop, Frozen) else MOVED)
    stepper = with_form(stepper_of(model, x, tolerance, draws, watched=asked is not None), impl, checkpoint)
    file = None
    if checkpoint is not None:
        same = identity(model, stepper.impl, x, draws) | {"save_every": save_every, "closed": closed}
        held = {"influence": influence, "noise": noise, "schedule": schedule, "external": external}
        file = _file(checkpoint, checkpoint_every, same, stepper, stop, held)
    run = Run(
        stepper,
        Record(0.0, given if given.ndim == 2 else given[:, None], Every(save_every or 1, thinned=save_every is None)),
        x,
        float(MAX_STEPS if max_steps is None else max_steps),
        at_end="max_steps",
        goes_on=True,
        stop=asked,
        on_save=None if on_save is None else lambda t, state: on_save(t, state.astype(given.dtype, copy=False)),
        progress=progress,
        label="hegselmann_krause",
        file=file,
        rng=draws,
        memories=memories(asked),
    )

    def trajectory(reason: str) -> Trajectory:
        words = meta(given, stepper.form, model="hegselmann_krause", **model.describe(), seed=seed_of(rng))
        words |= {"stopped": reason, "pairs_at_radius": share, "mirrored": getattr(stepper, "mirrored", False)}
        words |= ending(model, run.x, extent, reason)
        return run.record.trajectory(model.log_mass, stepper.taken, words, {})

    return run.finish(trajectory)


def _check(model: Model, max_steps: int | None, stop: Stop | None) -> None:
    check_callables(stop=stop)
    if model.noise is not None and max_steps is None and (stop is None or isinstance(stop, Frozen)):
        raise ValueError("max_steps (or a stop rule) must be given with noise: such a run never freezes")
    if not isinstance(model.schedule, Sequential | Deffuant):
        return
    if model.external is not None:
        raise ValueError(f"external must be None with {type(model.schedule).__name__}; use Synchronous()")
    if isinstance(model.schedule, Deffuant) and not (isinstance(model.rule.score, Flat) and model.rule.normalised):
        raise ValueError("influence and normalised must be the defaults with Deffuant: a meeting has no mean")
    if isinstance(model.schedule, Deffuant) and model.rule.pair_bias is not None:
        raise ValueError(
            "weighted must be False with Deffuant: a meeting has no mean; use Sequential() or Synchronous()"
        )
    if isinstance(model.schedule, Deffuant) and model.masses is not None:
        raise ValueError("weights must be None with Deffuant: a meeting has no mean; use Sequential() or Synchronous()")


def _file(
    path: str | os.PathLike[str],
    every: float,
    same: dict[str, Any],
    stepper: Merging | Stepwise,
    stop: Stop | None,
    held: dict[str, Any],
) -> RunFile:
    """The checkpoint file of the run that ``same`` and the functions in ``held`` make this one."""
    same = same | {"stop": None if stop is None else described(stop), FUNCTIONS: functions_in(**held, stop=stop)}
    return RunFile(path, every, same, later=("impl",), translate=translator(stepper))


def _checked_share(model: Model, x: np.ndarray) -> float:
    """`share_at_radius`, with a warning where due; radii per agent and networks are not looked at."""
    if np.ndim(model.within.radius) or model.has_network:
        return 0.0
    share, both_ways = share_at_radius(x, model.within)
    warn_of_rounding(share, both_ways)
    return share
