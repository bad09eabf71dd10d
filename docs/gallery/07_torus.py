"""A border that is none.

On a torus particles hear one another through the border: paths break where they cross it.
"""

import sys

import krause_dynamics as kd

torus = kd.Torus(1.0)
run = kd.simulate(kd.Dynamics(kd.krause(0.15, kd.Within(0.2)), torus), torus.sample(150, 2, 3), 12.0, dt=0.1)
with kd.plots.style():
    kd.plots.plane(run).figure.savefig(sys.argv[1])
