"""A uniform density breaks up.

The mean field of softmax attention on the circle at beta = 9: a ripple of three crests grows into three clusters.
Colour is logarithmic.
"""

import sys

import numpy as np

import krause_dynamics as kd

cells = kd.mean_field.CircleCells(360)
start = kd.mean_field.from_function(cells, lambda angle: 1 + 0.01 * np.cos(3 * angle) + 0.004 * np.sin(2 * angle))
run = kd.mean_field.solve(kd.Dynamics(kd.softmax(9.0), kd.Circle()), start, 25.0)
with kd.plots.style():
    kd.plots.density(run).figure.savefig(sys.argv[1])
