"""Where particles live: projection to the tangent space, retraction, sampling, distances, images and the border.

Whatever looks at positions asks the space: stop rules, events, graphs, matrices, observables, clusters, densities.
"""

from krause_dynamics.spaces.base import SPACE, Euclidean, Space
from krause_dynamics.spaces.bordered import Interval, Torus
from krause_dynamics.spaces.spheres import Circle, Sphere

__all__ = ["SPACE", "Circle", "Euclidean", "Interval", "Space", "Sphere", "Torus"]
