"""The clusters at the end of a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._arguments import Is, Maybe, Real, reads
from krause_dynamics.analysis import clusters
from krause_dynamics.opinions.model import Model
from krause_dynamics.trajectory import Trajectory

SAME = 1e-9  # of the range: settled opinions closer than this are one cluster


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


@reads(run=Is(Trajectory, "kd.hegselmann_krause(x0, radius)"), radius=Maybe(Real(0.0)))
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


def ending(model: Model, x: np.ndarray, extent: float, reason: str) -> dict[str, Any]:
    """What the metadata of a run say of its last state: the distance that links opinions, and the clusters.

    Args:
        model: Whose run it was.
        x: Last opinions (n, d).
        extent: What "of the range" refers to.
        reason: Why it ended; a run that diverged has no clusters.
    """
    link = SAME * extent if reason == "frozen" else float(np.min(model.within.radius))
    if reason == "diverged":
        return {"cluster_link": link}
    masses = np.ones(x.shape[0]) if model.masses is None else model.masses
    found = group(x, masses, link)
    named = {name: getattr(found, name).tolist() for name in ("positions", "masses", "sizes")}
    return {"cluster_link": link, "clusters": named}


def group(x: np.ndarray, masses: np.ndarray, link: float) -> FinalClusters:
    """Link opinions (n, d) of given masses (n,) at distance at most ``link``."""
    distinct, label = np.unique(x, axis=0, return_inverse=True)
    label = clusters.find(distinct, link).labels[label.reshape(-1)]
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
