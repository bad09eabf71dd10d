"""How many clusters? Radius against temperature.

Tokens on the sphere until no group can hear another, or time 60. A radius of 2 is plain softmax, where several clusters
at large beta are long transients; a small radius keeps clusters apart for ever. Cells that had not settled are hatched.
The large map with its plane and a law for the radius is the last notebook.
"""

import sys

import krause_dynamics as kd

sphere = kd.Sphere()


def clusters(beta, radius, rng):
    """Clusters of one run, and whether no group can hear another any more."""
    rule, stop = kd.krause(beta**-0.5, kd.Within(radius)), kd.stopping.ClustersSettled(radius, diameter=0.01)
    run = kd.simulate(kd.Dynamics(rule, sphere), sphere.sample(48, 3, rng), 60.0, dt=0.2, save_at=[60.0], stop=stop)
    return {"clusters": kd.clusters.find(run.final, 0.05).count, "settled": run.meta["stopped"] == "clusters settled"}


grid = {"beta": [0.5, 1.0, 2.0, 4.0, 8.0], "radius": [0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.0]}
data = kd.sweep(clusters, grid, seeds=2, workers=0)
with kd.plots.style():
    kd.plots.phase(data, x="beta", y="radius", value="clusters", settled="settled").figure.savefig(sys.argv[1])
