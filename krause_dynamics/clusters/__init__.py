"""Clusters of a cloud of points: connected components at a radius, and how they change with the radius and in time.

A number of clusters without a radius means nothing: `find` answers for one radius, `curve` for all.
"""

from krause_dynamics.clusters.partition import Clusters, find
from krause_dynamics.clusters.tree import Curve, curve

__all__ = ["Clusters", "Curve", "curve", "find"]
