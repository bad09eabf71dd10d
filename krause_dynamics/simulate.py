"""The loop: steps, saves, stops; everything else is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from krause_dynamics._array import Array, all_finite, is_torch, namespace
from krause_dynamics.aggregate import as_points
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.integrators import RK4, Integrator
from krause_dynamics.trajectory import Trajectory

StopRule = Callable[[float, Array, Array], str | None]


def simulate(
    dynamics: Dynamics,
    x0: Array,
    t_end: float,
    *,
    dt: float = 0.05,
    integrator: Integrator | None = None,
    save_every: int = 1,
    save_at: Sequence[float] | None = None,
    log_mass: Array | None = None,
    rng: int | np.random.Generator | None = None,
    stop: StopRule | None = None,
    on_save: Callable[[float, Array], None] | None = None,
    impl: str = "auto",
) -> Trajectory:
    """Run particles from ``x0`` to ``t_end``.

    Args:
        dynamics: Rule, space, and what else moves them.
        x0: Initial positions, (n, d) or (*batch, n, d), numpy or torch; (n,) is read as (n, 1).
        t_end: Final time, positive; one layer is time 1.
        dt: Step; 0.05 keeps RK4 at 1e-6 for drifts of unit size.
        integrator: `RK4` by default.
        save_every: Keep every so-many steps (the first and the last state always).
        save_at: Times to keep instead; steps are shortened to land on them.
        log_mass: log m_i, (n,) or (*batch, n); by default -log n each; -inf is padding.
        rng: Seed or generator; needed when ``dynamics.noise`` is positive.
        stop: ``stop(t, x, previous) -> reason or None``, asked after every step; the reason is kept in the metadata.
        on_save: ``on_save(t, x)``, called at every saved state (progress, streaming statistics).
        impl: How the interaction is computed; ``"auto"`` chooses once for the run.

    Returns:
        A `Trajectory`; ``meta`` holds what reproduces the run.

    Raises:
        ValueError: NaN or empty positions, positions off the space, dt or t_end not positive.
        SimulationDiverged: A state became infinite; the exception carries the trajectory up to then.
    """
    x = as_points("x0", x0)
    _check(dynamics, x, t_end, dt, save_every, log_mass)
    integrator = RK4() if integrator is None else integrator
    chosen = dynamics.plan(x, log_mass, impl)
    meta = _meta(dynamics, integrator, chosen.impl, x, t_end=t_end, dt=dt, rng=rng)
    saved, times, reason, moved = [x], [0.0], "t_end", 0
    for t, t_next, keep in _steps(t_end, dt, save_every, save_at):
        previous = x
        x = integrator.step(dynamics, t, x, t_next - t, log_mass=log_mass, impl=chosen.impl)
        moved += 1
        stopped = stop(t_next, x, previous) if stop is not None else None
        if keep or stopped:
            if not all_finite(x):
                run = _trajectory(times, saved, log_mass, moved - 1, meta | {"stopped": "diverged"})
                raise SimulationDiverged(f"positions became infinite before t = {t_next:g}; reduce dt = {dt:g}", run)
            saved.append(x)
            times.append(t_next)
            if on_save is not None:
                on_save(t_next, x)
        if stopped:
            reason = stopped
            break
    return _trajectory(times, saved, log_mass, moved, meta | {"stopped": reason})


def _steps(
    t_end: float, dt: float, save_every: int, save_at: Sequence[float] | None
) -> Iterator[tuple[float, float, bool]]:
    """(t, next t, keep the state?) on the grid of multiples of dt, cut at the times to save and at the end."""
    wanted = iter([] if save_at is None else sorted(float(s) for s in save_at if 0 < s <= t_end))
    target, t, count, tiny = next(wanted, None), 0.0, 0, 1e-9 * dt
    while t < t_end - tiny:
        grid = (count + 1) * dt
        t_next = min(grid, t_end, np.inf if target is None else target)
        on_grid = t_next >= grid - tiny
        if on_grid:
            count, t_next = count + 1, min(grid, t_end)
        due = target is not None and t_next >= target - tiny
        keep = due if save_at is not None else (on_grid and count % save_every == 0)
        last = t_next >= t_end - tiny
        yield t, (t_end if last else t_next), keep or last
        t = t_next
        if due:
            target = next(wanted, None)


def _trajectory(
    times: list[float], saved: list[Array], log_mass: Array | None, steps: int, meta: dict[str, Any]
) -> Trajectory:
    xp = namespace(x=saved[0])
    return Trajectory(np.asarray(times), xp.stack(saved, axis=0), log_mass, steps=steps, meta=meta)


def _meta(
    dynamics: Dynamics, integrator: Integrator, impl: str, x: Array, *, rng: Any, **numbers: float
) -> dict[str, Any]:
    from krause_dynamics import __version__

    return {
        "axis": "time",
        "dynamics": dynamics.to_dict(),
        "integrator": integrator.to_dict(),
        "impl": impl,
        "library": "torch" if is_torch(x) else "numpy",
        "dtype": str(x.dtype).removeprefix("torch."),
        "seed": rng if isinstance(rng, int) else None,
        "version": __version__,
        **numbers,
    }


def _check(dynamics: Dynamics, x: Array, t_end: float, dt: float, save_every: int, log_mass: Array | None) -> None:
    for name, value in (("t_end", t_end), ("dt", dt)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if save_every < 1:
        raise ValueError(f"save_every must be at least 1, got {save_every!r}")
    namespace(x0=x, log_mass=log_mass)
    if not all_finite(x) and log_mass is None:
        raise ValueError("x0 must be finite, got NaN or infinity; set log_mass=-inf for padding")
    if log_mass is None:
        dynamics.space.check(x)
