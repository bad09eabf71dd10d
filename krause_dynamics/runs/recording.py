"""What a run keeps, and when: states, or functions of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from krause_dynamics._array import Array, like, namespace, to_numpy
from krause_dynamics.trajectory import EVENT, Trajectory

KEPT = 1 << 26  # numbers (512 MB) that a thinned record may hold before every second state is dropped

# Names that a Trajectory, its files or its Dataset have already.
TAKEN = ("times", "positions", "log_mass", "saved_times", "saved_time", "time", "layer", "particle", "dimension")

Save = Callable[[Array], Any] | Mapping[str, Callable[[Array], Any]]


class AtTimes:
    """Given times."""

    def __init__(self, times: Sequence[float]) -> None:
        """Take increasing times."""
        self._times = [*times, float("inf")]

    def after(self, t: float) -> float:
        """The first time later than ``t``; infinite after the last."""
        return self._times[bisect_right(self._times, t)]


class Every:
    """Multiples of a stride; with ``thinned`` the stride doubles whenever the states exceed `KEPT` numbers."""

    def __init__(self, stride: int, *, thinned: bool = False) -> None:
        """Start from multiples of ``stride``."""
        self.stride, self.thinned = stride, thinned

    def after(self, t: float) -> float:
        """The first multiple later than ``t``."""
        return float((t // self.stride + 1) * self.stride)


class Record:
    """Times and what is kept at each: states, or the values of ``save`` (then states of both ends only).

    Attributes:
        times: Times kept so far.
        states: States kept, all in the dtype of the first.
    """

    def __init__(self, t: float, x: Array, when: AtTimes | Every, save: Save | None = None) -> None:
        """Keep the first state."""
        self._functions = _by_name(save)
        self._every = when if isinstance(when, Every) else None
        self._thinned = self._every if self._every is not None and self._every.thinned else None
        self.after = when.after  # time of the first state that is due later than t
        self.times: list[float] = []
        self.states: list[Array] = []
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in self._functions}
        self.add(t, x)

    def add(self, t: float, x: Array, *, last: bool = False) -> bool:
        """Keep the state at one time, or replace what was kept at that time; whether it is a new one.

        Args:
            t: Time.
            x: State.
            last: Whether the run ends here: then nothing is thinned. The state that the run began with stays as it is.
        """
        if self.states and x.dtype != self.states[0].dtype:
            x = like(x, self.states[0])
        if self.times and t == self.times[-1]:
            if len(self.times) > 1 and not self._functions:
                self.states[-1] = x
            return False
        self.times.append(t)
        if self._functions and len(self.states) > 1:
            self.states[1] = x
        else:
            self.states.append(x)
        for name, function in self._functions.items():
            self._values[name].append(_value(name, function(x), self._values[name]))
        if self._thinned is not None and not last:
            self._thin(self._thinned)
        return True

    def _thin(self, when: Every) -> None:
        """Drop every second state where they are too many."""
        if len(self.states) <= 2 or len(self.states) * self.states[0].size <= KEPT:
            return
        when.stride *= 2
        kept = [k for k, t in enumerate(self.times) if t % when.stride == 0]
        self.times, self.states = [self.times[k] for k in kept], [self.states[k] for k in kept]

    def stacked(self) -> Array:
        """All states kept, (T, ...)."""
        return namespace(x=self.states[0]).stack(self.states, axis=0)

    def trajectory(self, log_mass: Array | None, steps: int, meta: dict[str, Any], found: dict[str, Any]) -> Trajectory:
        """The result of a run of particles; statistics are ``extras`` over ``extras["saved_times"]``."""
        times, extras = np.asarray(self.times, dtype=np.float64), dict(found)
        if self._functions:
            extras |= {name: np.stack(values) for name, values in self._values.items()} | {"saved_times": times}
            times = times[[0, -1]] if len(self.states) > 1 else times[:1]
        return Trajectory(times, self.stacked(), log_mass, steps=steps, extras=extras, meta=meta)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside `arrays`: JSON-ready."""
        return {} if self._every is None else {"stride": self._every.stride}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything kept so far, for a checkpoint."""
        values = {f"value_{name}": np.stack(kept) for name, kept in self._values.items()}
        positions = np.stack([to_numpy(x) for x in self.states])
        return {"times": np.asarray(self.times), "positions": positions, **values}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """The inverse of `state` and `arrays`; what is read is taken out of ``arrays``."""
        first = self.states[0]
        if self._every is not None:
            self._every.stride = state["stride"]
        self.times = [float(t) for t in arrays.pop("times")]
        self.states = [like(positions, first) for positions in arrays.pop("positions")]
        self._values = {name: list(arrays.pop(f"value_{name}")) for name in self._functions}
        if not self.states or (not self._functions and len(self.states) != len(self.times)):
            raise ValueError(f"{len(self.times)} times need as many states, got {len(self.states)}")


def _value(name: str, given: Any, before: list[np.ndarray]) -> np.ndarray:
    """What a function of the caller returned, as it can be kept and stacked.

    Raises:
        TypeError: No numbers or text.
        ValueError: Another shape than before.
    """
    value = np.asarray(to_numpy(given))
    if value.dtype.hasobject:
        raise TypeError(f"save must return numbers or arrays of them, got {given!r} ({name})")
    if before and value.shape != before[0].shape:
        raise ValueError(f"save must return one shape, got {value.shape} after {before[0].shape} ({name})")
    return value


def _by_name(save: Save | None) -> dict[str, Callable[[Array], Any]]:
    functions = {} if save is None else dict(save) if isinstance(save, Mapping) else {"saved": save}
    for name, function in functions.items():
        if name in TAKEN or not isinstance(name, str) or "/" in name or name.startswith(EVENT):
            raise ValueError(f"save must name statistics otherwise than {', '.join(TAKEN)}, {EVENT}..., got {name!r}")
        if not callable(function):
            raise TypeError(
                f"save must be a function of the positions, or a dictionary of such, got {function!r} ({name})"
            )
    return functions
