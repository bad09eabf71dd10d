"""Clusters of a cloud of points: connected components at a radius, and how they change with the radius and in time.

A number of clusters without a radius means nothing: `find` answers for one radius, `curve` for all, `over_time` for all
states of a run, `choose_radius` gives a radius with the reason for it. Chains count as one cluster.
"""

from krause_dynamics.analysis.clusters._points import Cloud, Metric
from krause_dynamics.analysis.clusters.centres import density_modes, renyi_centres
from krause_dynamics.analysis.clusters.history import (
    Event,
    History,
    Plateau,
    events,
    labels,
    merge_times,
    over_time,
    plateaus,
)
from krause_dynamics.analysis.clusters.partition import Clusters, find
from krause_dynamics.analysis.clusters.scale import Choice, Persistence, choose_radius, linkage, persistence
from krause_dynamics.analysis.clusters.tracks import Tracks, track
from krause_dynamics.analysis.clusters.tree import Curve, curve

__all__ = [
    "Choice",
    "Cloud",
    "Clusters",
    "Curve",
    "Event",
    "History",
    "Metric",
    "Persistence",
    "Plateau",
    "Tracks",
    "choose_radius",
    "curve",
    "density_modes",
    "events",
    "find",
    "labels",
    "linkage",
    "merge_times",
    "over_time",
    "persistence",
    "plateaus",
    "renyi_centres",
    "track",
]
