"""Events: times at which a function of the state crosses zero, located inside a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import FLAG, Whole
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.spaces import Space
from krause_dynamics.trajectory import EVENT

Drift = Callable[[float, Array], Array]

BISECTIONS = 60  # halvings of a step: its sixtieth halving is below the spacing of floating-point times


@dataclass(frozen=True)
class Event:
    """``function(t, x)`` crosses zero, for example ``lambda t, x: 0.9 - float(kd.observables.order_parameter(x))``.

    Attributes:
        function: A real number from time and positions; its sign is watched after every step. A condition (true or
            false) has no zero to cross and is refused: write ``width - 1.0`` for ``width < 1.0``.
        name: The run keeps the times as ``extras["event_<name>"]``.
        terminal: Whether the run ends there.
        direction: +1 counts upward crossings only, -1 downward ones, 0 both.
    """

    function: Callable[[float, Array], Any]
    name: str = "event"
    terminal: bool = False
    direction: int = 0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable as function(t, x), got {self.function!r}")
        FLAG.read("terminal", self.terminal)
        if Whole(-1).read("direction", self.direction) > 1:
            raise ValueError(f"direction must be -1, 0 or 1, got {self.direction!r}")


def check_events(events: Any) -> None:
    """Refuse what is no list of events before anything else is looked at.

    Raises:
        TypeError: With the value.
    """
    if type(events) is tuple and not events:
        return
    if isinstance(events, str) or not isinstance(events, Sequence) or not all(isinstance(e, Event) for e in events):
        raise TypeError(f"events must be a list of kd.Event(function), got {events!r}")


class Watch:
    """Evaluates events along a run and keeps the times found.

    Within a step the state is the cubic Hermite interpolant of both ends and their drifts, retracted: an error of order
    dt^4, like that of `RK4`; events of a discrete-time run (dt = 1 steps) are therefore times of the interpolant.
    """

    def __init__(self, events: Sequence[Event], drift: Drift, space: Space, t: float, x: Array) -> None:
        """Watch from the state ``x`` at ``t``, moved by ``drift(t, x)`` in a space."""
        names = [event.name for event in events]
        if len(set(names)) != len(names):
            raise ValueError(f"events must have different names, got {names}")
        self._events, self._drift, self._space = tuple(events), drift, space
        self._values = [_value(event, t, x) for event in self._events]
        self.found: dict[str, list[float]] = {event.name: [] for event in self._events}

    def step(self, t: float, x: Array, t_next: float, x_next: Array) -> tuple[float, Array, str] | None:
        """Look at one step; the time, state and name of the first terminal event in it, if there is one."""
        before, self._values = self._values, [_value(event, t_next, x_next) for event in self._events]
        crossed = [
            (event, old)
            for event, old, new in zip(self._events, before, self._values, strict=True)
            if _crosses(event, old, new)
        ]
        if not crossed:
            return None
        between = self._hermite(t, x, t_next, x_next)
        located = sorted(
            ((_bisect(event, old, between, t, t_next), event) for event, old in crossed), key=lambda f: f[0]
        )
        for time, event in located:
            self.found[event.name].append(time)
            if event.terminal:
                return time, between(time), event.name
        return None

    def _hermite(self, t: float, x: Array, t_next: float, x_next: Array) -> Callable[[float], Array]:
        size, slope, slope_next = t_next - t, self._drift(t, x), self._drift(t_next, x_next)
        x_next = self._space.image(x_next, x)  # a step over the border is a short one

        def at(time: float) -> Array:
            s = (time - t) / size
            left = (1 + 2 * s) * (1 - s) ** 2 * x + s * (1 - s) ** 2 * size * slope
            right = s**2 * (3 - 2 * s) * x_next + s**2 * (s - 1) * size * slope_next
            return self._space.retract(left + right)

        return at

    def state(self) -> dict[str, Any]:
        """What the next step depends on, and the times found: JSON-ready."""
        return {"values": self._values, "found": self.found}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._values, self.found = state["values"], state["found"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Times found, by ``event_<name>``."""
        return {f"{EVENT}{name}": np.asarray(times) for name, times in self.found.items()}


def _value(event: Event, t: float, x: Array) -> float:
    """What an event's function says.

    Raises:
        TypeError: No real number; a condition never crosses zero.
        ValueError: NaN, which never does either.
    """
    value = event.function(t, x)
    number = to_numpy(value)
    if number.size != 1 or number.dtype.kind not in "iuf":
        raise TypeError(
            f"function of event {event.name!r} must return a real number that crosses zero, got {value!r}; "
            "for a condition such as width < 1.0 return width - 1.0"
        )
    if np.isnan(number).any():
        raise ValueError(f"function of event {event.name!r} returned NaN at t = {t:g}; its sign cannot be watched")
    return float(number.reshape(()))


def _crosses(event: Event, old: float, new: float) -> bool:
    upward, downward = old < 0 <= new, old > 0 >= new
    return (upward and event.direction >= 0) or (downward and event.direction <= 0)


def _bisect(event: Event, old: float, between: Callable[[float], Array], low: float, high: float) -> float:
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _crosses(event, old, _value(event, middle, between(middle))):
            high = middle
        else:
            low = middle
    return high
