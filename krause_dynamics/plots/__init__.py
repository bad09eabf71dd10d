"""Figures: functions that take a Trajectory or a Dataset, draw on Axes and return them; none of them shows or saves.

``style()`` switches on the common look, ``save_figure`` writes a PNG with its parameters beside it. Each function takes
``ax=None`` (a new figure) and passes further keywords to the artists.
"""

from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.checkpoints import clusters, norm_ratio, sink_map, synchronization
from krause_dynamics.plots.style import new_axes, save_figure, style
from krause_dynamics.plots.theory import verdicts

__all__ = [
    "angles",
    "clusters",
    "new_axes",
    "norm_ratio",
    "save_figure",
    "sink_map",
    "style",
    "synchronization",
    "verdicts",
]
