"""Bounded confidence in one line: `hegselmann_krause`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from krause_dynamics._array import as_floating, as_generator
from krause_dynamics._value import described
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.interaction import Flat
from krause_dynamics.interaction.scores import Score
from krause_dynamics.opinions.disturbances import Noise, TruthSeeking
from krause_dynamics.opinions.engines import Engine, PlanEngine
from krause_dynamics.opinions.loop import Loop, Stop
from krause_dynamics.opinions.model import MOVED, External, Model, interaction, opinions, scale, stubborn, weights_of
from krause_dynamics.opinions.result import SAME, Record, group
from krause_dynamics.opinions.rounding import share_at_radius, warn_of_rounding
from krause_dynamics.opinions.schedules import Deffuant, Schedule, Sequential, Synchronous
from krause_dynamics.opinions.sequential import OneByOne, Pairwise
from krause_dynamics.opinions.stepwise import Stepwise
from krause_dynamics.runs.resuming import RunFile, fingerprint, random_state
from krause_dynamics.runs.stopping import Frozen
from krause_dynamics.trajectory import Trajectory

MAX_STEPS = 100_000  # far above every freezing time met in practice; a lattice near a branch point may need more


def hegselmann_krause(
    x0: Any,
    radius: Any,
    *,
    closed: bool = True,
    include_self: bool = True,
    normalised: bool = True,
    weights: Any = None,
    fixed: Any = None,
    external: External | TruthSeeking | None = None,
    influence: Score | None = None,
    graph: Any = None,
    noise: Noise | None = None,
    schedule: Schedule | None = None,
    stop: Stop | None = None,
    max_steps: int | None = None,
    save_every: int | None = None,
    on_save: Callable[[float, np.ndarray], None] | None = None,
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
        graph: A network: `kd.Graph`, networkx graph or (n, n) array; only those linked and within the radius are heard.
        noise: `StepNoise` or `RandomRelocation`, after each unit of time.
        schedule: `Synchronous` (default), `Sequential` or `Deffuant`; n draws are time 1.
        stop: A rule of `krause_dynamics.stopping`, or ``stop(t, x, previous) -> reason or None``, asked after every
            unit of time. `Frozen` with its tolerance is the default; a deterministic run ends when frozen in any case.
        max_steps: Units of time at most; 100 000 by default, to be given where noise never lets the run freeze.
        save_every: Keep every so-many states (the first and the last always). By default all, and when they exceed
            512 MB every second one, and so on.
        on_save: ``on_save(t, x)`` at every state kept.
        rng: Seed or generator, needed where anything is drawn.
        checkpoint: A file to resume from when it exists, and to write: a killed run then ends with the same numbers.
            It holds the merged atoms and the generator's state; a stop rule of your own must not remember anything.
        checkpoint_every: Seconds between two writings.
        impl: ``"auto"``, or how `kd.aggregate` shall compute every step (for comparisons; merges nothing).

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

    Example:
        >>> import krause_dynamics as kd
        >>> run = kd.hegselmann_krause([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], radius=1.0)
        >>> run.steps, run.meta["clusters"]["sizes"]
        (6, [3, 3])
    """
    given = as_floating("x0", x0) if not hasattr(x0, "detach") else x0
    x = opinions(given)
    n = x.shape[0]
    rule = interaction(n, radius, closed, include_self, normalised, influence, graph)
    schedule = Synchronous() if schedule is None else schedule
    model = Model(rule, weights_of(weights, n), stubborn(fixed, n), external, noise, schedule)
    _check(model, max_steps, save_every, stop)
    generator = as_generator(rng) if model.needs_rng else None
    extent = scale(x, model.within.radius)
    tolerance = extent * (stop.tolerance if isinstance(stop, Frozen) else MOVED)
    share, both_ways = _rounding(model, x)
    warn_of_rounding(share, both_ways)
    engine_ = _engine(model, x, tolerance, generator, impl)
    record = Record(given if given.ndim == 2 else given[:, None], save_every)
    file = None
    if checkpoint is not None:
        identity = {"x0": fingerprint(x), "random": random_state(generator), "save_every": save_every}
        identity |= {"stop": None if stop is None else described(stop)}
        identity |= {"weights": fingerprint(model.masses), "graph": fingerprint(model.adjacency), "closed": closed}
        file = RunFile(checkpoint, checkpoint_every, identity | model.describe())
    loop = Loop(engine_, record, generator, file)
    asked = None if stop is None or isinstance(stop, Frozen) else stop
    reason = loop.run(asked, MAX_STEPS if max_steps is None else max_steps, on_save)
    meta = _meta(model, engine_, given, rng, share, extent, reason)
    run = Trajectory(
        np.asarray(record.times, dtype=np.float64), np.stack(record.states), model.log_mass, engine_.steps, {}, meta
    )
    if reason == "diverged":
        raise SimulationDiverged(f"opinions became infinite after {engine_.time} steps", run)
    return run


def _check(model: Model, max_steps: int | None, save_every: int | None, stop: Stop | None) -> None:
    for name, value in (("max_steps", max_steps), ("save_every", save_every)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(model.schedule, Schedule):
        raise TypeError(f"schedule must be kd.Synchronous(), kd.Sequential() or kd.Deffuant(), got {model.schedule!r}")
    if model.noise is not None and not isinstance(model.noise, Noise):
        raise TypeError(f"noise must be kd.StepNoise(std) or kd.RandomRelocation(probability), got {model.noise!r}")
    if model.noise is not None and max_steps is None and (stop is None or isinstance(stop, Frozen)):
        raise ValueError("max_steps (or a stop rule) must be given with noise: such a run never freezes")
    if not isinstance(model.schedule, Sequential | Deffuant):
        return
    if model.external is not None:
        raise ValueError(f"external must be None with {type(model.schedule).__name__}; use Synchronous()")
    if isinstance(model.schedule, Deffuant) and not (isinstance(model.rule.score, Flat) and model.rule.normalised):
        raise ValueError("influence and normalised must be the defaults with Deffuant: a meeting has no mean")
    if isinstance(model.schedule, Deffuant) and model.masses is not None:
        raise ValueError("weights must be None with Deffuant: a meeting has no mean; use Sequential() or Synchronous()")


def _rounding(model: Model, x: np.ndarray) -> tuple[float, bool]:
    """As `share_at_radius`; radii per agent and networks are not looked at."""
    if np.ndim(model.within.radius) or model.adjacency is not None:
        return 0.0, False
    return share_at_radius(x, model.within)


def _meta(
    model: Model, engine_: Engine, given: np.ndarray, rng: Any, share: float, extent: float, reason: str
) -> dict[str, Any]:
    from krause_dynamics._version import __version__

    link = SAME * extent if reason == "frozen" else float(np.min(model.within.radius))
    meta = {
        "axis": "time",
        "model": "hegselmann_krause",
        **model.describe(),
        "impl": engine_.impl,
        "library": "numpy",
        "dtype": str(given.dtype),
        "seed": rng if isinstance(rng, int) else None,
        "version": __version__,
        "stopped": reason,
        "pairs_at_radius": share,
        "mirrored": isinstance(engine_, PlanEngine) and bool(getattr(engine_.plan, "mirrored", False)),
        "cluster_link": link,
    }
    if reason != "diverged":
        masses = np.ones(given.shape[0]) if model.masses is None else model.masses
        found = group(engine_.positions, masses, link)
        meta["clusters"] = {name: getattr(found, name).tolist() for name in ("positions", "masses", "sizes")}
    return meta


def _engine(model: Model, x: np.ndarray, tolerance: float, rng: Any, impl: str) -> Engine:
    """The engine for a model; ``impl`` other than ``"auto"`` goes step by step through that implementation."""
    if model.is_classical and impl == "auto":
        return PlanEngine(model, x, tolerance)
    kind = {Sequential: OneByOne, Deffuant: Pairwise}.get(type(model.schedule), Stepwise)
    return kind(model, x, tolerance, rng, impl)
