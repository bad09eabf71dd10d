"""One network has one reading, whatever holds it; weights, signs, names and directions are used or refused."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import krause_dynamics as kd

O = np.array([0.0, 0.5, 1.0])


def step(x, graph, radius=10.0, **options):
    return kd.hegselmann_krause(x, radius, graph=graph, max_steps=1, **options).final[:, 0]


def through_simulate(x, graph):
    rule = kd.bounded_confidence(10.0, graph if isinstance(graph, kd.Graph) else kd.Graph(graph))
    return kd.simulate(kd.Dynamics(rule), x, 1.0, dt=1.0, integrator=kd.Euler()).final[:, 0]


def directed(edges, nodes):
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    return graph


def test_nodes_that_are_numbers_are_the_agents_of_those_numbers():
    g = nx.DiGraph([(2, 0)])
    g.add_node(1)
    heard = [0.0, 0.5, 0.5]  # node 2 hears node 0
    spelled = [
        g,
        directed([("2", "0")], ["2", "0", "1"]),
        directed([(2.0, 0.0)], [2.0, 0.0, 1.0]),
        nx.to_numpy_array(g, nodelist=range(3)),
        nx.to_scipy_sparse_array(g, nodelist=range(3)),
        nx.to_pandas_adjacency(g),
        pd.DataFrame({"source": [2], "target": [0]}).assign(weight=1)[["source", "target"]].pipe(_with_node, 1),
        [(2, 0), (1, 1)],
        kd.Graph(g),
    ]
    for graph in spelled:
        np.testing.assert_allclose(step(O, graph), heard)
    for graph in spelled[:-1]:
        loops = kd.Graph(kd.Graph(graph).adjacency.with_loops())
        np.testing.assert_allclose(through_simulate(O, loops), heard)
    np.testing.assert_allclose(through_simulate(O, kd.Graph.from_networkx(g)), heard)
    for nodes in ([1, 2, 3], ["1", "2", "3"], [0, 1, "b"], [0, "0", 1]):
        with pytest.raises(ValueError, match="nodes 0 .. 2 for 3 agents"):
            step(O, directed([], nodes))


def _with_node(frame, node):
    return pd.concat([frame, pd.DataFrame({"source": [node], "target": [node]})], ignore_index=True)


def test_karate_club_reads_alike_with_and_without_nodetype(tmp_path):
    club = nx.karate_club_graph()
    nx.write_edgelist(club, tmp_path / "club.txt", data=False)
    x = np.random.default_rng(0).random(34)
    ends = [
        kd.hegselmann_krause(x, 0.3, graph=nx.read_edgelist(tmp_path / "club.txt", nodetype=kind)).final
        for kind in (int, str, float)
    ]
    np.testing.assert_array_equal(ends[1], ends[0])
    np.testing.assert_array_equal(ends[2], ends[0])
    with pytest.raises(ValueError, match="weights 0 and 1"):
        kd.hegselmann_krause(x, 0.3, graph=club)  # its edges have weights of contacts


def test_labels_of_the_opinions_say_who_is_who():
    names = directed([("ann", "cat")], ["bob", "cat", "ann"])
    s = pd.Series({"ann": 0.0, "bob": 0.5, "cat": 1.0})
    for graph in (names, nx.to_pandas_adjacency(names)):
        np.testing.assert_allclose(step(s, graph, 2.0), [0.5, 0.5, 1.0])  # ann hears cat
        np.testing.assert_allclose(step(s[["cat", "ann", "bob"]], graph, 2.0), [1.0, 0.5, 0.5])
        np.testing.assert_allclose(kd.hegselmann_krause_flow(s, 2.0, 50.0, graph=graph).final[0, 0], 1.0)
    np.testing.assert_allclose(step(O, names, 2.0), [0.0, 0.5, 0.75])  # no labels: the graph's own order, ann last
    numbers, places = pd.Series([1.0, 0.0, 0.5], index=[2, 0, 1]), nx.DiGraph([(2, 0), (1, 1)])
    np.testing.assert_allclose(step(numbers, places), [0.5, 0.0, 0.5])
    for x, graph, message in (
        (pd.Series({"ann": 0.0, "bob": 0.5, "dan": 1.0}), names, "must be the nodes of the network"),
        (pd.Series([0.0, 0.5, 1.0], index=["ann", "bob", "bob"]), names, "must be the nodes of the network"),
        (numbers, np.eye(3), "labels in the order"),
    ):
        with pytest.raises(ValueError, match=message):
            step(x, graph)
    with pytest.raises(ValueError, match="knows particles by place"):
        through_simulate(numbers, kd.Graph(np.eye(3)))


def test_weights_and_signs_are_used_or_refused():
    w = nx.Graph()
    w.add_weighted_edges_from([(0, 1, 0.0), (1, 2, 1.0)])
    held = [w, nx.to_numpy_array(w), nx.to_scipy_sparse_array(w), nx.to_pandas_adjacency(w), [(1, 2), (2, 1, 1.0)]]
    for graph in held:  # an edge of weight 0 is no link
        np.testing.assert_allclose(step(O, graph), [0.0, 0.75, 0.75])
    w[1][2]["weight"] = -3.0
    for graph in (w, nx.to_numpy_array(w), nx.to_scipy_sparse_array(w), nx.to_pandas_adjacency(w)):
        for read in (lambda g: step(O, g), kd.Graph):
            with pytest.raises(ValueError, match="weights 0 and 1, got -3"):
                read(graph)
        with pytest.raises(ValueError, match="positive weights"):
            step(O, graph, weighted=True)
    for bad, message in ((np.full((3, 3), np.nan), "finite weights"), (np.ones((2, 3)), "square"), ("abc", "network")):
        with pytest.raises((ValueError, TypeError), match=message):
            step(O, bad)
    for bad in (nx.Graph([(0, 1, {"weight": "much"})]), [(0, 1, "much")]):
        with pytest.raises(TypeError, match="numbers as weights"):
            kd.Graph(bad)
    with pytest.raises(ValueError, match="rows of one length"):
        kd.Graph([[0, 1], [1]])
    absent = np.ma.array(np.ones((3, 3)), mask=[[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(step(O, absent), [0.0, 0.75, 0.75])


def test_a_large_sparse_network_stays_sparse():
    """40 000 nodes: a matrix would have 1.6e9 entries."""
    rng = np.random.default_rng(5)
    n, links = 40_000, rng.integers(40_000, size=(2, 200_000))
    graph = sparse.coo_array((np.ones(links.shape[1], bool), links), shape=(n, n)).tocsr()
    x = rng.random(n)
    near = np.abs(x[graph.tocoo().row] - x[graph.tocoo().col]) <= 0.3
    rows, columns = np.unique(np.column_stack([graph.tocoo().row[near], graph.tocoo().col[near]]), axis=0).T
    kept = rows != columns
    total = x + np.bincount(rows[kept], weights=x[columns[kept]], minlength=n)
    expected = total / (1 + np.bincount(rows[kept], minlength=n))
    np.testing.assert_allclose(step(x, graph, 0.3), expected, rtol=1e-13)
