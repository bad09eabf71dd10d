"""A run of particles: arguments in, the loop, a `Trajectory` out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from krause_dynamics._arguments import reads
from krause_dynamics._array import Array, is_torch, namespace
from krause_dynamics._progress import Progress
from krause_dynamics.aggregate import as_points, check_masses
from krause_dynamics.dynamics import Drift, Dynamics, check_dynamics
from krause_dynamics.dynamics.drift import NEVER
from krause_dynamics.integrators import RK4, EulerMaruyama, Integrator, ManySteps, refuse_if_stiff
from krause_dynamics.interaction import Graph
from krause_dynamics.interaction.adjacency import labels_of
from krause_dynamics.runs.arguments import check_callables, check_lengths, generator, save_times
from krause_dynamics.runs.description import memories, meta, run_file, seed_of
from krause_dynamics.runs.events import Event, Watch, check_events
from krause_dynamics.runs.fingerprints import fingerprint
from krause_dynamics.runs.loop import Run, Stepper, Stop
from krause_dynamics.runs.recording import AtTimes, Record, Save
from krause_dynamics.runs.resuming import with_form
from krause_dynamics.runs.stopping import StopRule, without_absent
from krause_dynamics.trajectory import Trajectory


@reads()
def simulate(
    dynamics: Dynamics,
    x0: Array,
    t_end: float,
    *,
    dt: float = 0.05,
    integrator: Integrator | None = None,
    save_every: int = 1,
    save_at: Sequence[float] | None = None,
    save: Save | None = None,
    log_mass: Array | None = None,
    rng: Any = None,
    stop: Stop | None = None,
    events: Sequence[Event] = (),
    on_save: Callable[[float, Array], None] | None = None,
    progress: bool | Progress = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    impl: str = "auto",
) -> Trajectory:
    """Run particles from ``x0`` to ``t_end``.

    Args:
        dynamics: Rule, space, and what else moves them.
        x0: Initial positions, (n, d) or (*batch, n, d), numpy or torch; (n,) is read as (n, 1). On a torus whole
            periods are taken off.
        t_end: Final time, positive; one layer is time 1.
        dt: Step, or for `Adaptive` and `Stiff` the grid of saved states; 0.05 keeps RK4 at 1e-6 for drifts
            of unit size.
        integrator: By default `RK4`, with noise `EulerMaruyama`.
        save_every: Keep every so-many multiples of dt (the first and the last state always).
        save_at: Times to keep instead; steps are shortened to land on them.
        save: A function of the positions (or a dictionary of such) kept instead of the positions: ``extras["saved"]``
            (or by name) over ``extras["saved_times"]``; positions are then kept at both ends only.
        log_mass: log m_i, (n,) or (*batch, n); by default -log n each; -inf is padding.
        rng: Seed or generator (numpy's, or torch's on its device); needed when ``dynamics.noise`` is positive.
        stop: ``stop(t, x, previous) -> reason or None``, asked after every step; the reason is kept in the metadata.
        events: Zero crossings to locate; times are kept as ``extras["event_<name>"]``.
        on_save: ``on_save(t, x)``, called at every saved state.
        progress: ``True`` draws a bar with the time left; or a function ``progress(t, t_end)`` called after every step.
        checkpoint: A file to resume from when it exists, and to write: a killed run then ends with the same numbers.
            One of another run (other values, data, or code behind a drift, score, event, stop rule or ``save``) is
            refused, and the message names what differs.
            ``stop``, ``save`` or their values with memory offer ``state()`` (JSON-ready) and ``restore(state)``.
        checkpoint_every: Seconds between two writings.
        impl: How the interaction is computed; ``"auto"`` chooses once for the run.

    Returns:
        A `Trajectory`; ``meta`` holds what reproduces the run, ``meta["stopped"]`` why it ended: ``"t_end"``, the
        reason of a stop rule, ``"event: <name>"``, or ``"interrupted"`` after Ctrl-C.

    Raises:
        TypeError: Mixed libraries, dtypes or devices; no ``rng`` though there is noise; a callback that is no function.
        ValueError: NaN or empty positions, positions off the space, dt or t_end not positive, a stiff rule with too
            large a step, a checkpoint file of another run.
        SimulationDiverged: A state became infinite; the exception carries the trajectory up to then.

    Examples:
        >>> import krause_dynamics as kd
        >>> sphere = kd.Sphere()
        >>> run = kd.simulate(kd.Dynamics(kd.softmax(2.0), sphere), sphere.sample(8, 3, rng=0), 30.0, save_every=100)
        >>> float(kd.observables.order_parameter(run.final).round(6))
        1.0
    """
    check_dynamics(dynamics)
    _check_labels(x0, dynamics)
    x = dynamics.space.wrap(as_points("x0", x0))
    integrator = integrator or (EulerMaruyama() if dynamics.noise > 0 else RK4())
    check_lengths(t_end, dt, save_every)
    _check_integrator(integrator, dynamics.noise)
    check_callables(stop=stop, on_save=on_save, progress=progress)
    check_events(events)
    namespace(x0=x, log_mass=log_mass)
    drift = with_form(lambda name: dynamics.bind(x, log_mass, impl=name), impl, checkpoint)
    _check_state(drift, x)
    refuse_if_stiff(integrator, drift, dt, t_end)
    times = save_times(t_end, dt, save_every, save_at)
    draws = generator(rng, needed=dynamics.noise > 0)
    words = _words(drift, integrator, x) | {"seed": seed_of(rng), "t_end": t_end, "dt": dt}
    held = {"dynamics": dynamics, "integrator": integrator, "events": list(events), "save": save}
    run = Run(
        _stepper(drift, integrator, dt, draws, watched=stop is not None or len(events) > 0),
        Record(0.0, x, AtTimes(times), save),
        x,
        t_end,
        stop=_located(stop, drift),
        on_save=on_save,
        progress=progress,
        watch=Watch(events, drift, drift.space, 0.0, x) if events else None,
        file=run_file(checkpoint, checkpoint_every, words, x, times, stop, draws, **held),
        rng=draws,
        memories=memories(stop, save),
        is_finite=drift.is_finite,
    )

    def trajectory(reason: str) -> Trajectory:
        found = {} if run.watch is None else run.watch.arrays()
        return run.record.trajectory(drift.log_mass, run.stepper.taken, words | {"stopped": reason}, found)

    return run.finish(trajectory)


def _words(drift: Drift, integrator: Integrator, x: Array) -> dict[str, Any]:
    rule, method = drift.dynamics.to_dict(), integrator.to_dict()
    return meta(x, drift.impl, dynamics=rule, integrator=method, log_mass=fingerprint(drift.log_mass))


def _stepper(drift: Drift, integrator: Integrator, dt: float, rng: Any, *, watched: bool) -> Stepper:
    """Many steps in one call, where the implementation offers that and nobody looks at the steps between."""
    advance = None if watched else drift.many_steps(integrator.scheme(), dt)
    return integrator.start(drift, dt, rng) if advance is None else ManySteps(integrator, drift, dt, rng, advance)


def _located(stop: Stop | None, drift: Drift) -> Stop | None:
    """A rule that knows where the particles live, how far they hear, and which of them are absent."""
    if not isinstance(stop, StopRule):
        return stop
    rule = stop.on(drift.space, drift.plan.interaction.reach)
    return without_absent(rule, drift.stand_ins) if drift.is_padded else rule


def _check_integrator(integrator: Integrator, noise: float) -> None:
    if not isinstance(integrator, Integrator):
        raise TypeError(f"integrator must be one such as kd.RK4() or kd.Euler(), got {integrator!r}")
    if noise > 0 and not integrator.noisy:
        name = type(integrator).__name__
        raise ValueError(f"integrator {name} knows no noise, but dynamics.noise = {noise}; use EulerMaruyama()")


def _check_state(drift: Drift, x: Array) -> None:
    if not drift.is_finite(x):
        raise ValueError("x0 must be finite, got NaN or infinity; set log_mass=-inf for padding")
    check_masses(drift.log_mass)
    points = x.detach() if is_torch(x) else x
    if drift.log_mass is not None:
        points = points[namespace(x=x).broadcast_to(drift.log_mass > NEVER, x.shape[:-1])]
    drift.space.check(points)


def _check_labels(x0: Any, dynamics: Dynamics) -> None:
    """Names of the particles that say another order than that in which a network knows them are not dropped."""
    labels = labels_of(x0)
    if labels is not None and labels != list(range(len(labels))) and dynamics.rule_at(0.0).find(Graph):
        raise ValueError(
            f"x0 has labels {labels[:5]} ..., but a kd.Graph knows particles by place; build it in that order, "
            "kd.Graph.from_networkx(graph, nodes=list(x0.index)), and pass x0.to_numpy()"
        )
