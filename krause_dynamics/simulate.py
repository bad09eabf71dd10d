"""The loop: steps, saves, stops, resumes; everything else is an argument."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._array import Array, as_generator, is_torch, like, namespace, to_numpy
from krause_dynamics._value import described
from krause_dynamics.aggregate import as_points, check_masses, form
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.dynamics.flow import Flow
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.integrators import RK4, EulerMaruyama, Integrator, ManySteps, StepFailed, Stepper, refuse_if_stiff
from krause_dynamics.runs.events import Event, Watch
from krause_dynamics.runs.interrupting import Interrupts
from krause_dynamics.runs.progress import ProgressBar
from krause_dynamics.runs.recording import Record, Save
from krause_dynamics.runs.resuming import RunFile, fingerprint, random_state, restore_random_state
from krause_dynamics.trajectory import Trajectory

logger = logging.getLogger(__name__)

StopRule = Callable[[float, Array, Array], str | None]
Progress = Callable[[float, float], None]


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
    stop: StopRule | None = None,
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
        x0: Initial positions, (n, d) or (*batch, n, d), numpy or torch; (n,) is read as (n, 1).
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
            ``stop``, ``save`` or their values with memory offer ``state()`` (JSON-ready) and ``restore(state)``.
        checkpoint_every: Seconds between two writings.
        impl: How the interaction is computed; ``"auto"`` chooses once for the run.

    Returns:
        A `Trajectory`; ``meta`` holds what reproduces the run, ``meta["stopped"]`` why it ended: ``"t_end"``, the
        reason of a stop rule, ``"event: <name>"``, or ``"interrupted"`` after Ctrl-C.

    Raises:
        TypeError: Mixed libraries, dtypes or devices; no ``rng`` though there is noise.
        ValueError: NaN or empty positions, positions off the space, dt or t_end not positive, a stiff rule with too
            large a step, a checkpoint file of another run.
        SimulationDiverged: A state became infinite; the exception carries the trajectory up to then.

    Example:
        >>> import krause_dynamics as kd
        >>> sphere = kd.Sphere()
        >>> run = kd.simulate(kd.Dynamics(kd.softmax(2.0), sphere), sphere.sample(8, 3, rng=0), 30.0, save_every=100)
        >>> float(kd.observables.order_parameter(run.final).round(6))
        1.0
    """
    x = as_points("x0", x0)
    integrator = integrator or (EulerMaruyama() if dynamics.noise > 0 else RK4())
    _check(dynamics, x, integrator, t_end, dt, save_every, log_mass)
    flow = dynamics.flow(x, log_mass, impl=impl)
    _check_state(flow, x)
    refuse_if_stiff(integrator, flow, dt, t_end)
    meta = _meta(flow, integrator, x, rng, t_end=t_end, dt=dt)
    targets = _targets(t_end, dt, save_every, save_at)
    generator = _generator(rng, needed=dynamics.noise > 0)
    watched = stop is not None or len(events) > 0
    run = _Run(
        flow,
        _stepper(flow, integrator, dt, generator, watched),
        generator,
        Record(save, 0.0, x),
        Watch(events, flow, 0.0, x),
        None
        if checkpoint is None
        else RunFile(checkpoint, checkpoint_every, _identity(meta, x, generator, targets, stop)),
        [part for part in (stop, save, *(save.values() if isinstance(save, dict) else ())) if hasattr(part, "restore")],
        x,
    )
    run.resume()
    report = ProgressBar() if progress is True else progress or None
    try:
        run.go(targets, stop, on_save, report)
    except StepFailed as error:
        raise SimulationDiverged(str(error), run.trajectory(meta | {"stopped": "diverged"})) from error
    finally:
        if isinstance(report, ProgressBar):
            report.close()
    return run.trajectory(meta | {"stopped": run.reason})


@dataclass
class _Run:
    """What changes while a run goes on; all of it travels through the checkpoint file."""

    flow: Flow
    stepper: Stepper
    rng: Any
    record: Record
    watch: Watch
    file: RunFile | None
    memories: list[Any]
    x: Array
    t: float = 0.0
    reason: str | None = None

    def go(self, targets: list[float], stop: StopRule | None, on_save: Any, report: Progress | None) -> None:
        """Step from target to target, keeping the state at each, until the last one or a reason to end."""
        # Overflow is reported once, by SimulationDiverged with the trajectory, not by warnings from inside.
        with Interrupts() as interrupts, np.errstate(over="ignore", invalid="ignore"):
            for target in targets:
                if self.reason is not None or target <= self.t:
                    continue
                while self.t < target and self.reason is None:
                    self._step(target, stop)
                    if report is not None:
                        report(self.t, targets[-1])
                    if self.t < target:
                        self._checkpoint(asked=interrupts.reason is not None)
                    self.reason = self.reason or interrupts.reason
                landed = self.t >= target
                self._keep(on_save)
                if landed:  # a state kept only because the run was interrupted is no part of the run that goes on
                    self._checkpoint(asked=interrupts.reason is not None)
        self.reason = self.reason or "t_end"
        if self.reason == "interrupted":
            logger.warning("interrupted at t = %g of %g; the trajectory ends there", self.t, targets[-1])
        if self.file is not None and self.reason != "interrupted":
            self._write()

    def _step(self, target: float, stop: StopRule | None) -> None:
        t, previous = self.t, self.x
        self.t, self.x = self.stepper.step(t, previous, target)
        ended = self.watch.step(t, previous, self.t, self.x)
        if ended is not None:
            self.t, self.x, name = ended
            self.reason = f"event: {name}"
        elif stop is not None:
            self.reason = stop(self.t, self.x, previous)

    def _keep(self, on_save: Any) -> None:
        if not self.flow.is_finite(self.x):
            raise StepFailed(f"positions became infinite before t = {self.t:g}; reduce dt, or use kd.Adaptive()")
        self.record.add(self.t, self.x)
        if on_save is not None:
            on_save(self.t, self.x)

    def trajectory(self, meta: dict[str, Any]) -> Trajectory:
        return self.record.trajectory(self.flow.log_mass, self.stepper.taken, meta, self.watch.arrays())

    def _checkpoint(self, *, asked: bool) -> None:
        if self.file is not None and (asked or self.file.due()):
            self._write()

    def _write(self) -> None:
        header = {
            "t": self.t,
            "reason": None if self.reason == "interrupted" else self.reason,
            "stepper": self.stepper.state(),
            "random": random_state(self.rng),
            "events": self.watch.state(),
            "memories": [memory.state() for memory in self.memories],
        }
        self.file.write(header, {"x": to_numpy(self.x), **self.record.arrays()})  # type: ignore[union-attr]

    def resume(self) -> None:
        """Continue from the checkpoint file, where there is one."""
        found = None if self.file is None else self.file.read()
        if found is None:
            return
        header, arrays = found
        self.t, self.reason, self.x = header["t"], header["reason"], like(arrays["x"], self.x)
        self.stepper.restore(header["stepper"])
        restore_random_state(self.rng, header["random"])
        self.watch.restore(header["events"])
        for memory, state in zip(self.memories, header["memories"], strict=True):
            memory.restore(state)
        self.record.restore(arrays, self.x)


def _targets(t_end: float, dt: float, save_every: int, save_at: Sequence[float] | None) -> list[float]:
    """Times at which a state is kept, increasing, ``t_end`` last."""
    if save_at is not None:
        times = sorted({float(t) for t in save_at})
        if times and not (times[0] >= 0 and times[-1] <= t_end):
            raise ValueError(f"save_at must lie between 0 and t_end = {t_end:g}, got {times[0]:g} to {times[-1]:g}")
        return [t for t in times if 0 < t < t_end] + [t_end]
    spacing = save_every * dt
    count = int(np.ceil((t_end - 1e-9 * dt) / spacing))
    return [(k * save_every) * dt for k in range(1, count)] + [t_end]


def _stepper(flow: Flow, integrator: Integrator, dt: float, rng: Any, watched: bool) -> Stepper:
    """Many steps in one call, where the implementation offers that and nobody looks at the steps between."""
    offer = getattr(form(flow.impl), "advance", None)
    advance = None if offer is None or watched else offer(flow, integrator, dt)
    return integrator.start(flow, dt, rng) if advance is None else ManySteps(integrator, flow, dt, rng, advance)


def _generator(rng: Any, *, needed: bool) -> Any:
    if rng is None and not needed:
        return None
    return rng if hasattr(rng, "get_state") else as_generator(rng)


def _identity(meta: dict[str, Any], x: Array, rng: Any, targets: list[float], stop: StopRule | None) -> dict[str, Any]:
    started = {"x0": fingerprint(x), "random": random_state(rng), "save times": fingerprint(np.asarray(targets))}
    started["stop"] = described(stop)  # type: ignore[assignment]
    return {name: value for name, value in meta.items() if name != "seed"} | started


def _meta(flow: Flow, integrator: Integrator, x: Array, rng: Any, **numbers: float) -> dict[str, Any]:
    from krause_dynamics._version import __version__

    return {
        "axis": "time",
        "dynamics": flow.dynamics.to_dict(),
        "integrator": integrator.to_dict(),
        "impl": flow.impl,
        "library": "torch" if is_torch(x) else "numpy",
        "dtype": str(x.dtype).removeprefix("torch."),
        "seed": int(rng) if isinstance(rng, int | np.integer) else None,
        "version": __version__,
        "log_mass": fingerprint(flow.log_mass),
        **numbers,
    }


def _check(
    dynamics: Dynamics, x: Array, integrator: Integrator, t_end: float, dt: float, save_every: int, log_mass: Any
) -> None:
    for name, value in (("t_end", t_end), ("dt", dt)):
        if isinstance(value, str) or not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if isinstance(save_every, bool) or not isinstance(save_every, int | np.integer) or save_every < 1:
        raise ValueError(f"save_every must be at least 1 and whole, got {save_every!r}")
    if not isinstance(integrator, Integrator):
        raise TypeError(f"integrator must be one such as kd.RK4() or kd.Euler(), got {integrator!r}")
    if dynamics.noise > 0 and not integrator.noisy:
        name = type(integrator).__name__
        raise ValueError(
            f"integrator {name} knows no noise, but dynamics.noise = {dynamics.noise}; use EulerMaruyama()"
        )
    namespace(x0=x, log_mass=log_mass)


def _check_state(flow: Flow, x: Array) -> None:
    if not flow.is_finite(x):
        raise ValueError("x0 must be finite, got NaN or infinity; set log_mass=-inf for padding")
    check_masses(flow.log_mass)
    if flow.log_mass is None:
        flow.space.check(x.detach() if is_torch(x) else x)
