"""From a run to its `Trajectory`: which states are kept, and the clusters at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics.analysis import clusters
from krause_dynamics.trajectory import Trajectory

KEPT = 1 << 26  # numbers (512 MB) that a trajectory may hold before every second state is dropped
SAME = 1e-9  # of the range: settled opinions closer than this are one cluster
FEW = 4096  # distinct settled points up to which clusters are found by distances rather than by equality


class Record:
    """States kept every so-many units of time; without a wish, as many as fit, thinned by halves."""

    def __init__(self, x: np.ndarray, save_every: int | None) -> None:
        """Keep the initial state; ``save_every`` as in `hegselmann_krause`."""
        self.times, self.states = [0], [x]
        self.stride, self._free = save_every or 1, save_every is None

    def until_next(self, time: int) -> int:
        """Units of time until a state is due."""
        return self.stride - time % self.stride

    def wants(self, time: int, *, last: bool) -> bool:
        """Whether `keep` would look at the state."""
        return last or (time != self.times[-1] and time % self.stride == 0)

    def keep(self, time: int, x: np.ndarray, *, last: bool) -> bool:
        """Keep a state that is wanted; a last one at a time already kept replaces it. Whether it is a new one."""
        if time == self.times[-1]:
            self.states[-1] = x if last and time else self.states[-1]
            return False
        self.times.append(time)
        self.states.append(x)
        if self._free and not last and len(self.states) > 2 and len(self.states) * x.size > KEPT:
            self.stride *= 2
            kept = [t % self.stride == 0 for t in self.times]
            self.times = [t for t, k in zip(self.times, kept, strict=True) if k]
            self.states = [s for s, k in zip(self.states, kept, strict=True) if k]
        return True


class FinalClusters(NamedTuple):
    """Clusters at the end of a run, by increasing first coordinate.

    Attributes:
        positions: (k, d).
        masses: (k,) shares of the total weight.
        sizes: (k,) numbers of agents.
        labels: (n,) cluster of each agent.
    """

    positions: np.ndarray
    masses: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


def final_clusters(run: Trajectory, radius: float | None = None) -> FinalClusters:
    """Clusters of the last state of a run.

    Args:
        run: A trajectory of opinions (n, d).
        radius: Opinions at most this far apart are linked. By default what `hegselmann_krause` recorded: rounding
            (1e-9 of the initial range) for a run that froze, else the confidence bound.

    Raises:
        ValueError: No radius given nor recorded.
    """
    link = run.meta.get("cluster_link") if radius is None else radius
    if link is None:
        raise ValueError("radius must be given for a run that was not made by kd.hegselmann_krause")
    run = run.numpy()
    log_mass = run.log_mass_at(-1)
    masses = np.ones(run.final.shape[0]) if log_mass is None else np.exp(log_mass - log_mass.max())
    return group(run.final, masses, float(link))


def group(x: np.ndarray, masses: np.ndarray, link: float) -> FinalClusters:
    """Link opinions (n, d) of given masses (n,) at distance at most ``link``."""
    distinct, label = np.unique(x, axis=0, return_inverse=True)
    label = label.reshape(-1)
    if distinct.shape[1] == 1 or distinct.shape[0] <= FEW:
        label = clusters.find(distinct, link).labels[label]
    count = int(label.max()) + 1
    total = np.bincount(label, weights=masses, minlength=count)
    # Around one member, so that a cluster of equal opinions has exactly their position.
    first = np.full(count, x.shape[0])
    np.minimum.at(first, label, np.arange(x.shape[0]))
    centre = x[first]
    shift = np.stack([np.bincount(label, weights=masses * c, minlength=count) for c in (x - centre[label]).T], axis=1)
    positions = centre + shift / total[:, None]
    order = np.lexsort(positions.T[::-1])
    rank = np.empty_like(order)
    rank[order] = np.arange(count)
    sizes = np.bincount(label, minlength=count)
    return FinalClusters(positions[order], total[order] / total.sum(), sizes[order], rank[label])
