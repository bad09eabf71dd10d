"""The energy along a run: its rate, its dissipation, and whether the run is the gradient flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.analysis.energies.state import energy, gradient, kappa, partition_masses
from krause_dynamics.interaction import Interaction
from krause_dynamics.interaction.rules import RULE
from krause_dynamics.spaces import SPACE, Euclidean, Space


@dataclass(frozen=True)
class GradientFlow:
    """Energy of a run between its saved states. All arrays are numpy.

    Attributes:
        times: (T,).
        energy: (T, *batch).
        rate: (T - 1, *batch) ``(E(t_{k+1}) - E(t_k)) / (t_{k+1} - t_k)``.
        dissipation: (T - 1, *batch) ``kappa sum_i g_i |u_i|^2`` of the velocities u measured between the saved states;
            the rate of a gradient flow equals it, up to the square of the time between them.
        velocity_error: (*batch) distance of the measured velocities from the gradient's, relative to their sizes, in
            the norm ``int sum_i g_i |.|^2 dt``: 0 for a gradient flow, about 1 for unrelated motion.
        tolerance: Largest velocity error of what counts as a gradient flow.
        climbs: Whether the flow of the rule increases the energy.
    """

    times: np.ndarray
    energy: np.ndarray
    rate: np.ndarray
    dissipation: np.ndarray
    velocity_error: np.ndarray
    tolerance: float
    climbs: bool

    @property
    def is_gradient_flow(self) -> bool:
        """Whether the velocities are the gradient's within the tolerance, in every run of a batch."""
        return bool(np.all(self.velocity_error <= self.tolerance))

    @property
    def is_monotone(self) -> bool:
        """Whether the energy never moves the wrong way by more than 1e-12 of its size (rounding of the sums)."""
        steps = np.diff(self.energy, axis=0) * (1 if self.climbs else -1)
        return bool(np.all(steps >= -1e-12 * np.abs(self.energy).max()))

    @property
    def balance_error(self) -> np.ndarray:
        """``|E(T) - E(0) - int dissipation dt|`` relative to ``int |dissipation| dt``: (*batch)."""
        length = _lengths(self.times, self.energy.ndim)
        gained = self.energy[-1] - self.energy[0]
        total = np.sum(length * np.abs(self.dissipation), axis=0)
        error = np.abs(gained - np.sum(length * self.dissipation, axis=0))
        return error / np.where(total > 0, total, 1.0)


@reads(rule=RULE, space=SPACE)
def along(rule: Interaction, run: Any, *, space: Space | None = None) -> np.ndarray:
    """The energy of every saved state of a `Trajectory` (its masses are used) or of positions (T, *batch, n, d).

    Args:
        rule: As in `energy`.
        run: A `Trajectory`, or positions.
        space: As in `energy`; by default that of a `Trajectory`.

    Returns:
        (T, *batch), numpy.

    Raises:
        ValueError: The rule has no energy, or no images in the space.
    """
    positions, log_mass, space = _arrays(run, space)
    states = enumerate(positions)
    return np.stack([to_numpy(energy(rule, x, log_mass=_at(log_mass, k, x), space=space)) for k, x in states])


@reads(rule=RULE, space=SPACE, tolerance=POSITIVE)
def gradient_flow(
    rule: Interaction, run: Any, times: Array | None = None, *, space: Space | None = None, tolerance: float = 0.05
) -> GradientFlow:
    """Compare the motion of a run with the gradient of the rule's energy.

    Between two saved states the velocity is their difference over the time, and the gradient is taken at their middle:
    both are right to second order in that time, so save densely where the motion is fast.

    Args:
        rule: The interaction that is supposed to drive the run.
        run: A `Trajectory`, or positions (T, *batch, n, d) in float64.
        times: (T,), needed for an array.
        space: Projects gradients and velocities and retracts middles; by default that of a `Trajectory`, else flat.
        tolerance: Largest relative velocity error of a gradient flow. 0.05 leaves room for the middle's error and for
            forces that jump at a radius (they add the square root of the time between states).

    Returns:
        Energies, rates, dissipation and the verdict.

    Raises:
        ValueError: The rule has no energy, fewer than two states, times that do not increase, or a run in which masses
            move instead of positions (`mean_field.solve`).
    """
    positions, log_mass, space = _arrays(run, space)
    if log_mass is not None and not np.array_equal(log_mass, np.broadcast_to(log_mass[:1], log_mass.shape)):
        raise ValueError(
            "run must move positions, not masses, to compare velocities; take mean_field.follow (along knows both)"
        )
    times = getattr(run, "times", None) if times is None else times
    if times is None or len(positions) < 2:
        raise ValueError("run must have two saved states and times; pass times= beside an array of positions")
    times = np.asarray(to_numpy(times), dtype=np.float64)
    if times.shape != (len(positions),) or np.any(np.diff(times) <= 0):
        raise ValueError(f"times must have shape ({len(positions)},) and increase, got {times}")
    rows = [
        _interval(rule, positions[k], positions[k + 1], times[k + 1] - times[k], _at(log_mass, k, positions[k]), space)
        for k in range(len(times) - 1)
    ]
    moved, missed, size = (np.stack(column) for column in zip(*rows, strict=True))
    values = along(rule, run, space=space)
    length = _lengths(times, values.ndim)
    total = np.sum(length * size, axis=0)
    error = np.sqrt(np.sum(length * missed, axis=0) / np.where(total > 0, total, 1.0))
    scale = kappa(rule)
    return GradientFlow(times, values, np.diff(values, axis=0) / length, scale * moved, error, tolerance, scale > 0)


def _interval(
    rule: Interaction, x: np.ndarray, y: np.ndarray, dt: float, log_mass: np.ndarray | None, space: Space
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``sum g |u|^2``, ``sum g |u - v|^2``, ``sum g (|u|^2 + |v|^2) / 2``; v: the gradient's velocity at the middle."""
    moved = space.difference(y, x)
    middle = space.retract(x + moved / 2)
    slope = space.project(middle, gradient(rule, middle, log_mass=log_mass, space=space))
    measured = space.project(middle, moved / dt)
    weight = partition_masses(rule, middle, log_mass, space)
    safe = np.where(weight > 0, weight, 1.0)[..., None]
    expected = np.where(weight[..., None] > 0, slope / (kappa(rule) * safe), 0.0)
    there = weight > 0
    moved, missed, expected_size = (
        np.sum(np.where(there, weight * np.sum(np.where(there[..., None], v, 0.0) ** 2, axis=-1), 0.0), axis=-1)
        for v in (measured, measured - expected, expected)
    )
    return moved, missed, (moved + expected_size) / 2


def _arrays(run: Any, space: Space | None) -> tuple[np.ndarray, np.ndarray | None, Space]:
    """Positions, masses, and the space: the one given, or that of a run."""
    space = getattr(run, "space", None) or Euclidean() if space is None else space
    positions, log_mass = to_numpy(getattr(run, "positions", run)), getattr(run, "log_mass", None)
    if positions.ndim < 3:
        raise ValueError(f"run must have positions (T, *batch, n, d), got {positions.shape}")
    if log_mass is None:
        return positions, None, space
    return positions, np.broadcast_to(to_numpy(log_mass), positions.shape[:-1]), space


def _at(log_mass: np.ndarray | None, k: int, x: np.ndarray) -> np.ndarray | None:
    return None if log_mass is None else log_mass[k].astype(x.dtype)


def _lengths(times: np.ndarray, ndim: int) -> np.ndarray:
    return np.diff(times).reshape(-1, *(1,) * (ndim - 1))
