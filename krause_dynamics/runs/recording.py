"""What a run keeps: states, or functions of them; and its `Trajectory` in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from krause_dynamics._array import Array, like, namespace, to_numpy
from krause_dynamics.trajectory import Trajectory

Save = Callable[[Array], Any] | Mapping[str, Callable[[Array], Any]]


class Record:
    """Times and what is kept at each: positions, or the values of ``save`` (then positions of both ends only)."""

    def __init__(self, save: Save | None, t: float, x: Array) -> None:
        self._functions = _by_name(save)
        self.times: list[float] = []
        self._positions: list[Array] = []
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in self._functions}
        self.add(t, x)

    def add(self, t: float, x: Array) -> None:
        """Keep the state at one time."""
        if self._functions and len(self._positions) > 1:
            self._positions[1] = x
        else:
            self._positions.append(x)
        self.times.append(t)
        for name, function in self._functions.items():
            self._values[name].append(np.asarray(to_numpy(function(x))))

    def trajectory(self, log_mass: Array | None, steps: int, meta: dict[str, Any], found: dict[str, Any]) -> Trajectory:
        """The result; statistics are ``extras`` over ``extras["saved_times"]``."""
        xp, times = namespace(x=self._positions[0]), np.asarray(self.times)
        extras = dict(found)
        if self._functions:
            extras |= {name: np.stack(values) for name, values in self._values.items()} | {"saved_times": times}
            times = times[[0, -1]] if len(self._positions) > 1 else times[:1]
        positions = xp.stack(self._positions, axis=0)
        return Trajectory(times, positions, log_mass, steps=steps, extras=extras, meta=meta)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything kept so far, for a checkpoint."""
        values = {f"value_{name}": np.stack(kept) for name, kept in self._values.items()}
        positions = np.stack([to_numpy(x) for x in self._positions])
        return {"times": np.asarray(self.times), "positions": positions, **values}

    def restore(self, arrays: Mapping[str, np.ndarray], x: Array) -> None:
        """The inverse of `arrays`, with positions in the library of ``x``."""
        self.times = [float(t) for t in arrays["times"]]
        self._positions = [like(positions, x) for positions in arrays["positions"]]
        self._values = {name: list(arrays[f"value_{name}"]) for name in self._functions}


def _by_name(save: Save | None) -> dict[str, Callable[[Array], Any]]:
    functions = {} if save is None else dict(save) if isinstance(save, Mapping) else {"saved": save}
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(
                f"save must be a function of the positions, or a dictionary of such, got {function!r} ({name})"
            )
    return functions
