"""Networks as lists of links: any description of one, means along the links alone, equal to the reference."""

from __future__ import annotations

import tracemalloc

import networkx
import numpy as np
import pytest
import torch
from scipy import sparse

import krause_dynamics as kd
from krause_dynamics.interaction import Edges

N = 30


@pytest.fixture
def adjacency(rng):
    return rng.random((N, N)) < 0.2


def test_every_description_of_a_network_is_the_same_network(adjacency):
    from_networkx = networkx.from_numpy_array(adjacency.astype(int), create_using=networkx.DiGraph)
    others = (
        torch.from_numpy(adjacency),
        sparse.csr_array(adjacency),
        sparse.coo_matrix(1.0 * adjacency),
        from_networkx,
    )
    for other in (adjacency.astype(int), Edges.of(adjacency), *others):
        assert kd.Graph(other) == kd.Graph(adjacency)
    np.testing.assert_array_equal(kd.Graph(sparse.csr_array(adjacency)).adjacency, adjacency)
    np.testing.assert_array_equal(Edges.of(adjacency).reversed(), adjacency.T)
    np.testing.assert_array_equal(Edges.of(adjacency).with_loops(), adjacency | np.eye(N, dtype=bool))


def test_stored_zeros_are_no_links():
    stored = sparse.csr_array((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 2))
    np.testing.assert_array_equal(kd.Graph(stored).adjacency, [[True, False], [False, False]])


def test_what_a_network_says_of_itself(adjacency):
    graph = kd.Graph(adjacency)
    assert graph.is_symmetric == (adjacency == adjacency.T).all()
    assert kd.Graph(adjacency | adjacency.T).is_symmetric
    assert not kd.Graph(adjacency & ~np.eye(N, dtype=bool)).hears_itself
    assert kd.Graph(adjacency | np.eye(N, dtype=bool)).hears_itself


@pytest.mark.parametrize("nodes", [3, 1025])  # described by the matrix, by the links
def test_a_network_survives_its_dictionary(nodes):
    ring = kd.Graph(networkx.cycle_graph(nodes))
    assert kd.from_dict(ring.to_dict()) == ring
    assert isinstance(ring.to_dict()["adjacency"], list) == (nodes == 3)


RULES = {
    "flat": lambda graph: kd.Interaction(kd.Flat(), graph),
    "flat within": lambda graph: kd.Interaction(kd.Flat(), kd.Within(0.7) & graph),
    "open ball": lambda graph: kd.Interaction(kd.Flat(), kd.Within(0.7, closed=False) & graph & kd.Others()),
    "own radii": lambda graph: kd.Interaction(kd.Flat(), kd.Within(np.linspace(0.1, 1.0, N)) & graph),
    "Gaussian": lambda graph: kd.krause(0.4, graph & kd.Others()),
    "dot product per capita": lambda graph: kd.softmax(2.0, kd.Within(1.0) & graph, normalised=False),
    "Radial": lambda graph: kd.Interaction(kd.Radial(lambda r: (r < 0.5) * (1 - r)), graph),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("masses", ["none", "some", "padding"])
def test_means_along_links_are_those_of_the_reference(adjacency, name, dimension, masses, rng):
    x, rule = rng.random((N, dimension)), RULES[name](kd.Graph(adjacency))
    log_mass = None if masses == "none" else rng.normal(size=N)
    if masses == "padding":
        log_mass[3:6], x[4] = -np.inf, np.nan
    ours, theirs = (kd.aggregate(rule, x, log_mass=log_mass, impl=impl) for impl in ("network", "reference"))
    heard = np.arange(N) != 4 if masses == "padding" else slice(None)  # what NaN hears is nothing anybody asks for
    np.testing.assert_allclose(ours.mean[heard], theirs.mean[heard], atol=1e-14)  # some roundings of numbers up to 1
    np.testing.assert_allclose(ours.log_partition[heard], theirs.log_partition[heard], atol=1e-14)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_neighbour_at_the_radius_is_heard_in_a_closed_ball_alone(dimension, closed, library):
    x = library(np.arange(8.0)[:, None] * np.eye(dimension)[0])  # each hears itself, and whoever is at distance 1
    rule = kd.krause(1.0, kd.Within(1.0, closed=closed) & kd.Graph(np.ones((8, 8))))
    heard = 1 + closed * np.exp(-0.5) * np.array([1, *[2] * 6, 1])
    np.testing.assert_allclose(kd.aggregate(rule, x, impl="network").log_partition, np.log(heard), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_gradients_are_those_of_the_reference(adjacency, dtype, rng):
    start = torch.from_numpy(rng.random((N, 2))).to(dtype)
    found = []
    for impl in ("network", "reference"):
        x, sigma = start.clone().requires_grad_(), torch.tensor(0.4, dtype=dtype, requires_grad=True)
        mean, log_partition = kd.aggregate(kd.krause(sigma, kd.Within(0.6) & kd.Graph(adjacency)), x, impl=impl)
        some = log_partition > -torch.inf
        (mean.square().sum() + log_partition[some].sin().sum()).backward()
        found.append((mean.detach(), x.grad, sigma.grad))
    tolerance = 200 * torch.finfo(dtype).eps  # sums of some ten terms, in another order
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_one_listener_at_a_time(adjacency, rng):
    x, rule = rng.random((N, 1)), kd.krause(0.4, kd.Graph(adjacency))
    all_at_once = kd.aggregate(rule, x, impl="reference").mean
    index = np.arange(N)
    hear = kd.plan(rule, x[:1], x, query_index=index[:1], source_index=index, impl="network")
    for i in (0, 7, 29):
        here = slice(i, i + 1)
        np.testing.assert_allclose(
            hear(x[here], x, query_index=index[here], source_index=index).mean[0], all_at_once[i]
        )


def test_what_it_cannot(adjacency, rng):
    x, graph = rng.random((N, 1)), kd.Graph(adjacency)
    cases = (
        (kd.krause(1.0), {}, "exactly one Graph"),
        (kd.krause(1.0, graph & kd.TopK(2)), {}, "exactly one Graph"),
        (kd.krause(np.ones(N), graph), {}, "one number"),
        (kd.krause(1.0, graph), {"source_index": np.arange(N)[::-1]}, "order of the nodes"),
    )
    for rule, rest, reason in cases:
        with pytest.raises(kd.UnsupportedImplementation, match=reason):
            kd.aggregate(rule, x, impl="network", **rest)
    with pytest.raises(ValueError, match="30 nodes, but particle 30"):
        kd.aggregate(kd.krause(1.0, graph), np.zeros((N + 1, 1)), impl="network")


def test_a_ring_of_thirty_thousand_needs_no_matrix():
    """Half of each agent's gap to its two neighbours' mean, in closed form; n^2 bytes would be 900 MB."""
    n = 30_000
    own = np.arange(n)
    neighbours = np.concatenate([own, (own + 1) % n, (own - 1) % n])
    ring = sparse.coo_array((np.ones(3 * n), (np.tile(own, 3), neighbours)), shape=(n, n))
    x = np.sin(2 * np.pi * own / n)[:, None]
    tracemalloc.start()
    rule = kd.Interaction(kd.Flat(), kd.Within(1.0) & kd.Graph(ring))
    drift = kd.Dynamics(rule).bind(x)
    velocity = drift(0.0, x)
    run = kd.hegselmann_krause(x[:, 0], 1.0, graph=ring, max_steps=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drift.impl == "network"
    factor = (1 + 2 * np.cos(2 * np.pi / n)) / 3  # of the mean of three neighbours of a sine
    np.testing.assert_allclose(velocity, (factor - 1) * x, atol=1e-15)
    np.testing.assert_allclose(run.final[:, 0], factor**2 * x[:, 0], atol=1e-15)
    assert peak < 100e6


def test_one_radius_a_run_is_refused_by_name():
    """The form takes one state; a radius of two axes is one of several runs."""
    x, graph = np.random.default_rng(0).random((5, 1)), kd.Graph(np.ones((5, 5)))
    rule = kd.bounded_confidence(np.full((2, 5), 0.3), graph)
    assert "radii without leading axes" in kd.supported(rule, x)["network"]
