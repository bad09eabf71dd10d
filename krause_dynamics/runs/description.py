"""Words about a run: the metadata of its trajectory, and what its checkpoint file must agree with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from krause_dynamics._array import Array, is_torch
from krause_dynamics._value import described
from krause_dynamics._version import __version__
from krause_dynamics.runs.fingerprints import fingerprint, functions_in
from krause_dynamics.runs.resuming import FUNCTIONS, RunFile, random_state


def meta(x: Array, impl: str, *, axis: str = "time", **words: Any) -> dict[str, Any]:
    """Metadata that every run has, and ``words`` of the model; JSON-ready.

    Args:
        x: Initial state; library and dtype are taken from it.
        impl: The form that computes the interaction.
        axis: What `Trajectory.times` counts.
        **words: What else reproduces the run.
    """
    library, dtype = "torch" if is_torch(x) else "numpy", str(x.dtype).removeprefix("torch.")
    return {"axis": axis, "impl": impl, "library": library, "dtype": dtype, "version": __version__, **words}


def seed_of(rng: Any) -> int | None:
    """The seed where one was given, else ``None``: a generator has no seed that would reproduce it."""
    return int(rng) if isinstance(rng, int | np.integer) else None


def identity(
    words: Mapping[str, Any], x: Array, times: Any, stop: Any, rng: Any = None, **functions: Any
) -> dict[str, Any]:
    """What makes a run this one and no other, for `RunFile`.

    Args:
        words: Its metadata.
        x: Initial state.
        times: Times at which states are kept.
        stop: Stop rule, or ``None``.
        rng: Generator, or ``None``.
        **functions: Values by name that hold the caller's functions: their code and what it reads count as well.

    Raises:
        TypeError: A function or object whose content cannot be read.
    """
    started = {"x0": fingerprint(x), "random": random_state(rng), "save times": fingerprint(np.asarray(times))}
    same = {name: value for name, value in words.items() if name != "seed"} | started | {"stop": described(stop)}
    return same | {FUNCTIONS: functions_in(stop=stop, **functions)}


def run_file(
    path: str | os.PathLike[str] | None,
    every: float,
    words: Mapping[str, Any],
    x: Array,
    times: Any,
    stop: Any,
    rng: Any = None,
    **functions: Any,
) -> RunFile | None:
    """The checkpoint file of the run with this `identity`, ``None`` without a path.

    Args:
        path: Where, or ``None``.
        every: Seconds between two writings.
        words: As in `identity`, with all that follow.
        x: Initial state.
        times: Times at which states are kept.
        stop: Stop rule, or ``None``.
        rng: Generator, or ``None``.
        **functions: Values by name that hold the caller's functions.
    """
    return None if path is None else RunFile(path, every, identity(words, x, times, stop, rng, **functions))


def memories(*functions: Any) -> list[Any]:
    """Those of the caller's functions that remember something: they offer ``state()`` and ``restore(state)``."""
    single = [part for f in functions for part in ([f, *f.values()] if isinstance(f, Mapping) else [f])]
    return [part for part in single if hasattr(part, "restore")]
