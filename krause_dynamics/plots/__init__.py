"""Figures: functions that take a Trajectory or a Dataset, draw on Axes and return them; none of them shows or saves.

``style()`` switches on the common look, ``save_figure`` writes a PNG, PDF or SVG with its parameters beside it. Each
function takes ``ax=None`` (a new figure) and passes further keywords to the artists.
"""

from krause_dynamics.plots.angles import angles
from krause_dynamics.plots.bifurcation import bifurcation, largest_cluster
from krause_dynamics.plots.branches import branches, branches_figure
from krause_dynamics.plots.checkpoints import clusters, norm_ratio, sink_map, synchronization
from krause_dynamics.plots.circuits import ov_spectra
from krause_dynamics.plots.comparisons import difference, difference_figure, emergence, emergence_figure
from krause_dynamics.plots.confident import confidence, confidence_figure
from krause_dynamics.plots.density import density
from krause_dynamics.plots.diagrams import (
    cluster_numbers_over_length,
    clusters_over_beta,
    clusters_over_length,
    order_over_beta,
    order_over_noise,
)
from krause_dynamics.plots.followed import tracks
from krause_dynamics.plots.forecasts import forecast, forecast_figure
from krause_dynamics.plots.grid import phase
from krause_dynamics.plots.heads import head_map
from krause_dynamics.plots.inline import inline_svg
from krause_dynamics.plots.intervals import interval
from krause_dynamics.plots.merging import cluster_map, merge_tree, spectrum
from krause_dynamics.plots.moving import animate
from krause_dynamics.plots.pairs import cross_places, encoder_decoder_figure, stacks
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
    "branches",
    "branches_figure",
    "circle",
    "cluster_map",
    "cluster_numbers_over_length",
    "clusters",
    "clusters_and_sinks_figure",
    "clusters_figure",
    "clusters_over_beta",
    "clusters_over_length",
    "confidence",
    "confidence_figure",
    "cross_places",
    "density",
    "difference",
    "difference_figure",
    "emergence",
    "emergence_figure",
    "encoder_decoder_figure",
    "forecast",
    "forecast_figure",
    "head_map",
    "inline_svg",
    "interval",
    "largest_cluster",
    "layers_figure",
    "merge_tree",
    "new_axes",
    "norm_ratio",
    "opinions",
    "order_over_beta",
    "order_over_noise",
    "ov_spectra",
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
    "stacks",
    "style",
    "synchronization",
    "tracks",
    "training_curves",
    "training_figure",
    "verdicts",
]
