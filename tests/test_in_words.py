"""Results say in one line what they are."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd


def test_a_run_in_one_line():
    rule = kd.krause(0.5, kd.Within(0.6))
    run = kd.simulate(kd.Dynamics(rule, kd.Euclidean()), np.zeros((20, 2)), 1.0, dt=0.25)
    words = "time 0 to 1, Gaussian(sigma=0.5) & Within(radius=0.6), ended: t_end"
    assert repr(run) == f"Trajectory: 5 states of 20 particles in R^2, {words}"
    runs = kd.Trajectory(np.arange(2.0), np.zeros((2, 3, 4, 1)), meta={"axis": "layer", "model": "tiny"})
    assert repr(runs) == "Trajectory: 2 states of 3 runs of 4 tokens in R^1, layer 0 to 1, tiny"
    on_circle = kd.simulate(kd.Dynamics(kd.softmax(2.0), kd.Circle()), kd.Circle().sample(4, 2, 0), 0.5)
    assert "4 particles in Circle" in repr(on_circle)
    assert "DotProduct(beta=2)" in repr(on_circle)


def test_clusters_in_one_line():
    found = kd.clusters.find(np.array([0.0, 0.1, 1.0]), 0.2)
    assert repr(found) == "Clusters: 2 of 3 points within 0.2 (euclidean), sizes 2, 1"
    assert repr(kd.clusters.find(np.arange(30.0), 0.2)).endswith("1, 1, 1, ...")
