"""Clusters on the sphere.

Sixty-four tokens within a radius of 0.9; what lies behind the sphere is faint.
"""

import sys

import krause_dynamics as kd

sphere = kd.Sphere()
run = kd.simulate(kd.Dynamics(kd.krause(0.5, kd.Within(0.9)), sphere), sphere.sample(64, 3, 0), 20.0, dt=0.1)
with kd.plots.style():
    kd.plots.sphere(run).figure.savefig(sys.argv[1])
