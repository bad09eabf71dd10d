"""What runs of densities share on the one loop: words, files, and densities for the caller's functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from krause_dynamics._progress import Progress
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.mean_field.cells import Cells
from krause_dynamics.mean_field.density import Density, log_of
from krause_dynamics.runs import description
from krause_dynamics.runs.arguments import check_callables
from krause_dynamics.runs.description import memories, meta
from krause_dynamics.runs.loop import Run, Stepper
from krause_dynamics.runs.recording import Record
from krause_dynamics.runs.resuming import RunFile
from krause_dynamics.trajectory import Trajectory

StopRule = Callable[[float, Density, Density], str | None]
OnSave = Callable[[float, Density], None]


def words(dynamics: Dynamics, cells: Cells, impl: str, axis: str, **numbers: Any) -> dict[str, Any]:
    """Metadata of a run; JSON-ready."""
    described = {"dynamics": dynamics.to_dict(), "cells": cells.to_dict()}
    return meta(np.empty(0), impl, axis=axis) | described | numbers


def run_file(
    path: str | os.PathLike[str] | None,
    every: float,
    same: dict[str, Any],
    density: Density,
    times: Any,
    stop: Any,
    dynamics: Dynamics,
) -> RunFile | None:
    """The checkpoint file of a run with the metadata ``same``, or ``None`` without a path."""
    check_callables(stop=stop)
    return description.run_file(path, every, same, density.mass, times, stop, dynamics=dynamics)


def run_of(
    stepper: Stepper,
    record: Record,
    cells: Cells,
    end: float,
    *,
    stop: StopRule | None,
    on_save: OnSave | None,
    progress: bool | Progress,
    label: str,
    file: RunFile | None,
    **rest: Any,
) -> Run:
    """A run whose state is the masses of the cells, (count,), and whose callbacks are handed densities."""
    check_callables(stop=stop, on_save=on_save, progress=progress)
    asked: Any = None if stop is None else lambda t, x, before: stop(t, Density(cells, x), Density(cells, before))
    told: Any = None if on_save is None else lambda t, x: on_save(t, Density(cells, x))
    return Run(
        stepper,
        record,
        record.states[0],
        end,
        stop=asked,
        on_save=told,
        progress=progress,
        label=label,
        file=file,
        memories=memories(stop),
        **rest,
    )


def trajectory_of(run: Run, cells: Cells, described: dict[str, Any]) -> Callable[[str], Trajectory]:
    """How a run becomes a `Trajectory` with the centres of the cells as fixed positions, given why it ended."""

    def trajectory(reason: str) -> Trajectory:
        points, times = cells.points(cells.centres), np.asarray(run.record.times)
        positions = np.broadcast_to(points, (len(times), *points.shape))
        log_mass = log_of(run.record.stacked())
        return Trajectory(times, positions, log_mass, steps=run.stepper.taken, meta=described | {"stopped": reason})

    return trajectory
