"""Six clusters in the plane.

Two hundred particles in a square, Gaussian affinity within a radius: who is out of reach is never heard, and clusters
survive.
"""

import sys

import krause_dynamics as kd

x0 = kd.initial.uniform(200, 2, low=0.0, high=3.0, rng=0)
run = kd.simulate(kd.Dynamics(kd.krause(0.5, kd.Within(0.6)), kd.Euclidean()), x0, 12.0, dt=0.1)
with kd.plots.style():
    kd.plots.plane(run).figure.savefig(sys.argv[1])
