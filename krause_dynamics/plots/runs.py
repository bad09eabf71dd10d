"""What figures of particles read from a run: one state after the other, masses, sizes of dots, paths, the clock."""

from __future__ import annotations

import numpy as np

from krause_dynamics.spaces import Space
from krause_dynamics.trajectory import Trajectory

DRAWN = 200  # particles drawn singly at most, so that a figure stays readable
OFF = 1e-3  # of |x|^2: a run on the sphere keeps its points much nearer


def single(trajectory: Trajectory, d: int | None) -> Trajectory:
    """One run on the host, of dimension d unless ``None``.

    Raises:
        ValueError: Several runs, or another dimension.
    """
    run = trajectory.numpy()
    if run.positions.ndim != 3 or (d is not None and run.positions.shape[-1] != d):
        wanted = "d" if d is None else str(d)
        raise ValueError(f"trajectory must hold one run, positions (T, n, {wanted}), got {run.positions.shape}")
    return run


def on_units(run: Trajectory) -> bool:
    """Whether all positions are unit vectors."""
    return bool(np.abs((run.positions**2).sum(-1) - 1).max(initial=0.0) <= OFF)


def masses(run: Trajectory) -> np.ndarray:
    """Shares of the particles at the end, adding up to one."""
    n, log_mass = run.positions.shape[1], run.log_mass_at(-1)
    shares = np.ones(n) if log_mass is None else np.exp(log_mass - np.max(log_mass))
    return np.asarray(shares / shares.sum())


def areas(run: Trajectory, index: int) -> np.ndarray:
    """Area of each dot: the mass of all within 0.01 of it; off the unit sphere, within that share of the extent."""
    from krause_dynamics import aggregate, bounded_confidence

    log_mass = np.log(np.maximum(masses(run), 1e-300))
    extent = 1.0 if on_units(run) else float(np.max(run.space.extent(run.positions[0]))) or 1.0
    at = run.positions[index]
    near = aggregate(bounded_confidence(0.01 * extent), at, log_mass=log_mass).log_partition
    return np.asarray(12.0 + 300.0 * np.exp(near))


def broken(space: Space, x: np.ndarray) -> np.ndarray:
    """Paths (T, n, d) with a gap where they cross a border."""
    if space.period is None:
        return x
    jumps = (np.abs(np.diff(x, axis=0, prepend=x[:1])) > np.asarray(space.period) / 2).any(-1, keepdims=True)
    return np.where(jumps, np.nan, x)


def clock(run: Trajectory, index: int) -> str:
    """The time of a state, in words."""
    return f"{run.meta.get('axis', 'time')} {float(run.times[index]):.4g}"
