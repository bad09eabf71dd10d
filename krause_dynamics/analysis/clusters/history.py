"""Clusters over time or layers: K(radius, t), plateaus and their lifetimes, merges and splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import Entries, Is, Maybe, Real, reads
from krause_dynamics._array import Array, namespace, to_numpy
from krause_dynamics.analysis.clusters._points import Metric
from krause_dynamics.analysis.clusters.partition import find
from krause_dynamics.analysis.clusters.tree import curve


@dataclass(frozen=True)
class History:
    """Clusters of many states at several radii. All arrays are numpy; leading axes are those of the positions.

    Attributes:
        radii: (r,); unit: of the metric.
        count: (..., r) number of clusters K(radius, t).
        effective_number: (..., r).
        groups: (..., r) clusters of at least two points.
        noise_share: (..., r) share of the mass in clusters of one point.
    """

    radii: np.ndarray
    count: np.ndarray
    effective_number: np.ndarray
    groups: np.ndarray
    noise_share: np.ndarray


@reads()
def over_time(
    positions: Any,
    radii: Any,
    *,
    metric: Metric = "euclidean",
    log_mass: Array | None = None,
    period: Any = None,
) -> History:
    """`curve` of every state: one spanning tree each, whatever the number of radii.

    Args:
        positions: (..., n, d), or a `Trajectory`, whose masses are then used.
        radii: (r,) radii, each at least 0; unit: of the metric.
        metric: As in `find`.
        log_mass: Broadcasts to (..., n); -inf takes a point out of that state.
        period: Length of a `Torus`, as in `find`; by default that of the trajectory.

    Returns:
        The history; for a trajectory the first axis is time.
    """
    period = positions.space.period if period is None and hasattr(positions, "space") else period
    positions, log_mass = _arrays(positions, log_mass)
    leading = tuple(positions.shape[:-2])
    curves = [
        curve(x, radii, metric=metric, log_mass=mass, period=period) for _, x, mass in _states(positions, log_mass)
    ]
    columns = {
        name: np.array([getattr(one, name) for one in curves]).reshape(*leading, -1)
        for name in ("count", "effective_number", "groups", "noise_share")
    }
    return History(radii=curves[0].radii, **columns)


@reads()
def labels(
    positions: Any,
    radius: float,
    *,
    metric: Metric = "euclidean",
    log_mass: Array | None = None,
    period: Any = None,
) -> np.ndarray:
    """Labels of `find` for every state; the numbers of different states are unrelated (see `events`).

    Args:
        positions: (..., n, d).
        radius: Points at most so far apart are joined; unit: position (on the unit sphere a chord).
        metric: As in `find`.
        log_mass: (..., n) log-masses; by default all points count alike.
        period: Period of each coordinate on a torus; by default none.

    Returns:
        numpy (..., n) of whole numbers.
    """
    period = positions.space.period if period is None and hasattr(positions, "space") else period
    positions, log_mass = _arrays(positions, log_mass)
    result = np.empty(tuple(positions.shape[:-1]), np.int64)
    for place, x, mass in _states(positions, log_mass):
        result[place] = find(x, radius, metric=metric, log_mass=mass, period=period).labels
    return result


def _arrays(positions: Any, log_mass: Array | None) -> tuple[Array, Array | None]:
    """Positions and masses of an array or of a Trajectory, told by its fields so that no producer is imported."""
    if hasattr(positions, "positions"):
        log_mass = positions.log_mass if log_mass is None else log_mass
        positions = positions.positions
    xp = namespace(positions=positions, log_mass=log_mass)
    if positions.ndim < 2:
        raise ValueError(f"positions must have shape (..., n, d), got {tuple(positions.shape)}")
    if log_mass is not None:
        try:
            log_mass = xp.broadcast_to(log_mass, positions.shape[:-1])
        except (ValueError, RuntimeError):
            wanted, given = tuple(positions.shape[:-1]), tuple(log_mass.shape)
            raise ValueError(f"log_mass must broadcast to (..., n) = {wanted}, got shape {given}") from None
    return positions, log_mass


def _states(positions: Array, log_mass: Array | None) -> Iterator[tuple[tuple[int, ...], Array, Array | None]]:
    for place in np.ndindex(tuple(positions.shape[:-2])):
        yield place, positions[place], None if log_mass is None else log_mass[place]


@dataclass(frozen=True)
class Plateau:
    """A stretch of constant number of clusters.

    Attributes:
        count: That number.
        start: First time at which it was seen.
        stop: First time at which it had changed, or the last time when it had not.
        ended: Whether it changed; else the lifetime is a lower bound.
    """

    count: int
    start: float
    stop: float
    ended: bool

    @property
    def lifetime(self) -> float:
        """``stop - start``."""
        return self.stop - self.start


@reads(count=Entries((1, 1)), times=Maybe(Entries((1, 1))), least=Real(0.0))
def plateaus(count: Any, times: Any = None, *, least: float = 0.0) -> tuple[Plateau, ...]:
    """Metastable plateaus: maximal stretches in which K(t) does not change.

    Args:
        count: (T,) number of clusters, for example ``over_time(run, [radius]).count[:, 0]``.
        times: (T,) increasing; by default 0, 1, ... (layers).
        least: Shortest lifetime to report. A plateau still going on at the end is reported whatever its length.

    Raises:
        ValueError: Shapes that do not fit, or times that do not increase.
    """
    count = np.asarray(to_numpy(count))
    times = np.arange(len(count), dtype=float) if times is None else np.asarray(to_numpy(times), dtype=float)
    if count.ndim != 1 or times.shape != count.shape or len(count) == 0:
        raise ValueError(f"count and times must have one shape (T,), got {count.shape} and {times.shape}")
    if np.any(np.diff(times) <= 0):
        raise ValueError("times must increase; sort the states first")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(count)) + 1])
    stops = np.concatenate([starts[1:], [len(count) - 1]])
    found = [
        Plateau(int(count[a]), float(times[a]), float(times[b]), ended=place + 1 < len(starts))
        for place, (a, b) in enumerate(zip(starts, stops, strict=True))
    ]
    return tuple(one for one in found if one.lifetime >= least or not one.ended)


@dataclass(frozen=True)
class Event:
    """Clusters that merged into one, or one that split, between two successive states.

    Attributes:
        kind: ``"merge"`` or ``"split"``.
        time: Of the later state.
        step: Index of the later state.
        parts: Labels of the several clusters: before a merge, after a split.
        whole: Label of the one cluster: after a merge, before a split.
        sizes: Points that each part shares with the whole.
    """

    kind: str
    time: float
    step: int
    parts: tuple[int, ...]
    whole: int
    sizes: tuple[int, ...]


@reads(labels=Entries((2, 2)), times=Maybe(Entries((1, 1))))
def events(labels: Any, times: Any = None) -> tuple[Event, ...]:
    """All merges and splits in the order of time; splits before merges within one step.

    Args:
        labels: (T, n) cluster of each point at each time, -1 for absent points (from `labels`).
        times: (T,), by default 0, 1, ...

    Returns:
        The events. A point that changes from one cluster to another is both a split and a merge.

    Raises:
        ValueError: ``labels`` is not (T, n), or times do not fit.
    """
    labels = np.asarray(to_numpy(labels))
    if labels.ndim != 2:
        raise ValueError(f"labels must have shape (T, n), got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers, as clusters.labels gives them, got {labels.dtype}")
    times = np.arange(len(labels), dtype=float) if times is None else np.asarray(to_numpy(times), dtype=float)
    if times.shape != labels.shape[:1]:
        raise ValueError(f"times must have shape ({len(labels)},), got {times.shape}")
    found: list[Event] = []
    for step in range(1, len(labels)):
        before, after = labels[step - 1], labels[step]
        there = (before >= 0) & (after >= 0)
        width = int(after.max(initial=0)) + 1
        pairs, shared = np.unique(before[there] * width + after[there], return_counts=True)
        old, new = pairs // width, pairs % width
        for kind, whole, part in (("split", old, new), ("merge", new, old)):
            for label in np.flatnonzero(np.bincount(whole) > 1):
                here = whole == label
                parts, sizes = tuple(part[here].tolist()), tuple(shared[here].tolist())
                found.append(Event(kind, float(times[step]), step, parts, int(label), sizes))
    return tuple(found)


@reads(found=Is((list, tuple), "clusters.events(labels)"))
def merge_times(found: Sequence[Event]) -> np.ndarray:
    """Times of merging in order, each merge of k clusters counted k - 1 times: how K falls, splits left out.

    Args:
        found: From `events`.

    Returns:
        (number of merges,), unit: that of the times of the events.
    """
    strangers = [event for event in found if not isinstance(event, Event)]
    if strangers:
        raise TypeError(f"found must hold events, as clusters.events(labels) gives them, got {strangers[0]!r}")
    return np.array([event.time for event in found if event.kind == "merge" for _ in event.parts[1:]])
