"""Rows of weighted networks: DeGroot's mean in discrete and continuous time."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import krause_dynamics as kd
from tests.keywords.row import row


def degroot(first, second, run):
    """``x <- W x``, and with a ball the mean over those near, weights renewed."""
    rng = np.random.default_rng(3)
    x, w = rng.random(6), rng.random((6, 6)) * (rng.random((6, 6)) < 0.6) + np.eye(6)
    w /= w.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="weights 0 and 1"):
        run(x, np.inf, graph=w, weighted=first)
    for graph in (w, sparse.csr_array(w), nx.from_numpy_array(w, create_using=nx.DiGraph)):
        np.testing.assert_allclose(run(x, np.inf, graph=graph, weighted=second), w @ x, rtol=1e-12)
    near = w * (np.abs(x[:, None] - x) <= 0.3)
    np.testing.assert_allclose(run(x, 0.3, graph=w, weighted=second), near @ x / near.sum(axis=1), rtol=1e-12)
    with pytest.raises(ValueError, match="needs a network"):
        run(x, 0.3, weighted=second)


@row("kd.hegselmann_krause", "weighted", False, True, "one step is W x (DeGroot); otherwise weights are refused")
def weighted(first, second):
    degroot(first, second, lambda x, r, **more: kd.hegselmann_krause(x, r, max_steps=1, **more).final[:, 0])
    x, w = np.array([0.0, 1.0]), np.array([[1.0, 3.0], [0.0, 1.0]])
    one_by_one = kd.hegselmann_krause(x, 9.0, graph=w, weighted=True, schedule=kd.Sequential("cyclic"), max_steps=1)
    np.testing.assert_allclose(one_by_one.final[:, 0], [0.75, 1.0])


@row("kd.hegselmann_krause_flow", "weighted", False, True, "the drift is W x - x; otherwise weights are refused")
def weighted_flow(first, second):
    degroot(
        first,
        second,
        lambda x, r, **more: kd.hegselmann_krause_flow(x, r, 1.0, dt=1.0, integrator=kd.Euler(), **more).final[:, 0],
    )
