"""How many clusters? Radius against temperature.

Tokens on the sphere until time 30: a radius of 2 is plain softmax, where several clusters at large beta are long
transients; a small radius keeps clusters apart for ever. Cells that still moved are hatched.
"""

import sys

import numpy as np

import krause_dynamics as kd

sphere = kd.Sphere()


def clusters(beta, radius, rng):
    """Clusters of one run, and whether it had come to rest."""
    rule = kd.krause(beta**-0.5, kd.Within(radius))
    run = kd.simulate(kd.Dynamics(rule, sphere), sphere.sample(48, 3, rng), 30.0, dt=0.1)
    moved = np.abs(run.final - run.positions[-50]).max()
    return {"clusters": kd.clusters.find(run.final, 0.05).count, "settled": moved < 1e-3}


grid = {"beta": [0.5, 1.0, 2.0, 4.0, 8.0], "radius": [0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.0]}
data = kd.sweep(clusters, grid, seeds=2, workers=0)
with kd.plots.style():
    kd.plots.phase(data, x="beta", y="radius", value="clusters", settled="settled").figure.savefig(sys.argv[1])
