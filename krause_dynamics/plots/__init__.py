"""Figures: functions that take a Trajectory or a Dataset, draw on Axes and return them; none of them shows or saves.

``style()`` switches on the common look, ``save_figure`` writes a PNG, PDF or SVG with its parameters beside it. Each
function takes ``ax=None`` (a new figure) and passes further keywords to the artists.
"""

from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.bifurcation import bifurcation, largest_cluster
from krause_dynamics.plots.checkpoints import clusters, norm_ratio, sink_map, synchronization
from krause_dynamics.plots.comparisons import difference, difference_figure, emergence, emergence_figure
from krause_dynamics.plots.density import density
from krause_dynamics.plots.diagrams import (
    cluster_numbers_over_length,
    clusters_over_beta,
    clusters_over_length,
    order_over_beta,
    order_over_noise,
)
from krause_dynamics.plots.grid import phase
from krause_dynamics.plots.inline import inline_svg
from krause_dynamics.plots.merging import cluster_map, merge_tree, spectrum
from krause_dynamics.plots.moving import animate
from krause_dynamics.plots.panels import (
    clusters_and_sinks_figure,
    clusters_figure,
    layers_figure,
    particles_figure,
    sinks_figure,
)
from krause_dynamics.plots.particles import opinions, overview
from krause_dynamics.plots.pictures import picture_grid, save_pictures
from krause_dynamics.plots.places import circle, plane, sphere
from krause_dynamics.plots.sliders import sliders
from krause_dynamics.plots.style import new_axes, save_figure, style
from krause_dynamics.plots.theory import verdicts
from krause_dynamics.plots.training import training_curves, training_figure

__all__ = [
    "angles",
    "animate",
    "bifurcation",
    "circle",
    "cluster_map",
    "clusters",
    "clusters_and_sinks_figure",
    "clusters_figure",
    "cluster_numbers_over_length",
    "clusters_over_beta",
    "clusters_over_length",
    "density",
    "difference",
    "difference_figure",
    "emergence",
    "emergence_figure",
    "inline_svg",
    "largest_cluster",
    "layers_figure",
    "merge_tree",
    "new_axes",
    "norm_ratio",
    "opinions",
    "order_over_beta",
    "order_over_noise",
    "overview",
    "particles_figure",
    "phase",
    "picture_grid",
    "plane",
    "save_figure",
    "save_pictures",
    "sink_map",
    "sinks_figure",
    "sliders",
    "spectrum",
    "sphere",
    "style",
    "synchronization",
    "training_curves",
    "training_figure",
    "verdicts",
]
