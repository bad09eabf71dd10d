"""Opinions on a line.

The Hegselmann-Krause rule: everybody takes the mean of those within a radius; a line is as wide as its
cluster is heavy.
"""

import sys

import numpy as np

import krause_dynamics as kd

run = kd.hegselmann_krause(np.arange(201.0), 20.0)  # whole numbers: pairs at the radius are decided exactly
with kd.plots.style():
    kd.plots.opinions(run).figure.savefig(sys.argv[1])
