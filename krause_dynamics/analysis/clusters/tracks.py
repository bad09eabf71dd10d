"""Clusters followed through time or layers: which cluster of one state is which of the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._arguments import Entries, Whole, reads
from krause_dynamics._array import to_numpy


@dataclass(frozen=True)
class Tracks:
    """Clusters that keep their number as long as they live. All arrays are numpy.

    Attributes:
        numbers: (T, n) track of each point in each state, -1 where it is absent or in a cluster that is too small.
        first: (k,) state in which a track begins.
        last: (k,) state in which it is seen last.
        parent: (k,) track that most of its first points came from, -1 where they were of none.
        heir: (k,) track that most of its last points went to, -1 where they went to none, or the run ends with it.
        sizes: (T, k) points.
    """

    numbers: np.ndarray
    first: np.ndarray
    last: np.ndarray
    parent: np.ndarray
    heir: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.first)

    def __repr__(self) -> str:
        """In one line."""
        lived = self.last - self.first + 1
        longest = "" if not len(self) else f", the longest through {int(lived.max())} states"
        return f"Tracks: {len(self)} clusters followed through {len(self.numbers)} states{longest}"


@reads(labels=Entries((2, 2)), members=Whole(1))
def track(labels: Any, *, members: int = 2) -> Tracks:
    """Follow clusters from state to state by the points that they share.

    Pairs of an old and a new cluster are taken in the order of shared points, most first (ties: the longer-lived old
    one), and each cluster once: where clusters merge, the one that brings most points lives on and the others end with
    it as their heir; where one splits, the part with most points lives on and the others begin with it as parent.

    Args:
        labels: (T, n) cluster of each point at each time, -1 for absent points (from `clusters.labels`).
        members: Clusters of fewer points have no track; 2 leaves out single points.

    Returns:
        The tracks, numbered in the order in which they begin, within one state the largest first.

    Raises:
        ValueError: ``labels`` is not (T, n).
        TypeError: It holds no whole numbers.

    Examples:
        >>> import krause_dynamics as kd
        >>> kd.clusters.track([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]).heir.tolist()
        [-1, 0]
    """
    states = np.asarray(to_numpy(labels))
    if states.ndim != 2:
        raise ValueError(f"labels must have shape (T, n), got {states.shape}")
    if states.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers, as clusters.labels gives them, got {states.dtype}")
    numbers = np.full(states.shape, -1)
    first: list[int] = []
    parent: list[int] = []
    for time, state in enumerate(states):
        before = numbers[time - 1] if time else np.full(state.shape, -1)
        found, sizes = np.unique(state[state >= 0], return_counts=True)
        found = found[sizes >= members][np.argsort(-sizes[sizes >= members], kind="stable")]
        taken = _matched(before, state, found)
        for label in found:
            here = state == label
            if label not in taken:
                taken[label] = len(first)
                first.append(time)
                parent.append(_most(before[here]))
            numbers[time, here] = taken[label]
    return _tracks(numbers, np.array(first, dtype=int), np.array(parent, dtype=int))


def _matched(before: np.ndarray, state: np.ndarray, found: np.ndarray) -> dict[Any, int]:
    """Old tracks by new label, one to one."""
    both = (before >= 0) & np.isin(state, found)
    pairs, shared = np.unique(np.stack([before[both], state[both]]), axis=1, return_counts=True)
    taken: dict[Any, int] = {}
    used: set[int] = set()
    for place in np.lexsort((pairs[1], pairs[0], -shared)):
        old, new = int(pairs[0, place]), pairs[1, place]
        if old not in used and new not in taken:
            taken[new] = old
            used.add(old)
    return taken


def _most(numbers: np.ndarray) -> int:
    """The number that stands most often, of equals the smallest; -1 where there is none."""
    counts = np.bincount(numbers[numbers >= 0])
    return int(counts.argmax()) if len(counts) else -1


def _tracks(numbers: np.ndarray, first: np.ndarray, parent: np.ndarray) -> Tracks:
    number, states = len(first), len(numbers)
    sizes = np.stack([np.bincount(row[row >= 0], minlength=number) for row in numbers]).reshape(states, number)
    last = np.array([np.flatnonzero(sizes[:, k])[-1] for k in range(number)], dtype=int)
    heir = np.array(
        [_most(numbers[at + 1][numbers[at] == k]) if at + 1 < states else -1 for k, at in enumerate(last)], dtype=int
    )
    return Tracks(numbers, first, last, parent, heir, sizes)
