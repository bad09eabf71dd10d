"""Scores, neighbourhoods, rules, and the dense reference: what an interaction is."""

from krause_dynamics._value import from_dict
from krause_dynamics.interaction.index_rules import Causal, Grid, Segments, Window
from krause_dynamics.interaction.neighbourhoods import Everyone, Neighbourhood, Others, TopK, Within
from krause_dynamics.interaction.networks import Edges, Graph
from krause_dynamics.interaction.random_keys import RandomKeys
from krause_dynamics.interaction.request import Aggregate, Prepared, Request
from krause_dynamics.interaction.rules import Interaction, bounded_confidence, krause, softmax
from krause_dynamics.interaction.scores import DotProduct, Flat, Gaussian, Radial, Score

__all__ = [
    "Aggregate",
    "Causal",
    "DotProduct",
    "Edges",
    "Everyone",
    "Flat",
    "Gaussian",
    "Graph",
    "Grid",
    "Interaction",
    "Neighbourhood",
    "Others",
    "Prepared",
    "Radial",
    "RandomKeys",
    "Request",
    "Score",
    "Segments",
    "TopK",
    "Window",
    "Within",
    "bounded_confidence",
    "from_dict",
    "krause",
    "softmax",
]
