"""The interaction graph against networkx's own algorithms, and merge trees by hand."""

from __future__ import annotations

from types import SimpleNamespace

import networkx
import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import clusters, graphs, operators


def test_graph_of_a_state() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    rule = kd.krause(0.4, kd.TopK(3))
    graph = graphs.interaction_graph(rule, x)
    weights = kd.weights(rule, x)
    assert graph.number_of_nodes() == 20
    assert np.array_equal(networkx.to_numpy_array(graph, nodelist=range(20)), weights)
    np.testing.assert_array_equal(graph.nodes[7]["position"], x[7])
    form = operators.structure(operators.support(rule, x))
    assert len(list(networkx.strongly_connected_components(graph))) == form.classes.max() + 1
    assert len(list(networkx.attracting_components(graph))) == form.multiplicity
    assert len(list(networkx.weakly_connected_components(graph))) == form.block_count


def test_components_of_bounded_confidence_are_the_clusters() -> None:
    rng = np.random.default_rng(1)
    run = SimpleNamespace(positions=rng.standard_normal((3, 40, 2)), log_mass=None)
    labels = graphs.components(kd.bounded_confidence(0.4), run)
    theirs = clusters.labels(run, 0.4)
    for ours, other in zip(labels, theirs, strict=True):
        assert len(set(zip(ours.tolist(), other.tolist(), strict=True))) == ours.max() + 1 == other.max() + 1
    strong = graphs.components(kd.krause(0.4, kd.TopK(2)), run.positions, connection="strong")
    assert np.all(strong.max(axis=1) >= graphs.components(kd.krause(0.4, kd.TopK(2)), run.positions).max(axis=1))


def test_points_without_mass_belong_to_nobody() -> None:
    run = SimpleNamespace(positions=np.zeros((1, 3, 1)), log_mass=np.array([0.0, -np.inf, 0.0]))
    assert graphs.components(kd.bounded_confidence(1.0), run).tolist() == [[0, -1, 0]]


def test_merge_tree_by_hand() -> None:
    """Pairs 01 and 23 form at t = 1, meet at t = 2, stay; point 3 leaves at t = 4."""
    labels = np.array([[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    tree = graphs.merge_tree(labels, times)
    members = {node: data["members"] for node, data in tree.nodes(data=True)}
    assert members == {
        0: (0,), 1: (1,), 2: (2,), 3: (3,), 4: (0, 1), 5: (2, 3), 6: (0, 1, 2, 3), 7: (0, 1, 2), 8: (3,)
    }  # fmt: skip
    assert sorted(tree.edges) == [(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (5, 6), (6, 7), (6, 8)]
    assert (tree.nodes[6]["birth"], tree.nodes[6]["death"]) == (2.0, 3.0)
    assert tree.edges[6, 7]["shared"] == 3
    before_the_split = graphs.merge_tree(labels[:4], times[:4])
    assert networkx.is_tree(before_the_split)
    kinds = [event.kind for event in graphs.merges_and_splits(labels, times)]
    assert kinds == ["merge", "merge", "merge", "split"]
    assert networkx.is_directed_acyclic_graph(tree)


def test_an_edge_of_the_tree_counts_the_points_that_went_that_way() -> None:
    """Of 012 | 34 point 2 changes sides: two of three stay, one goes over, two are joined."""
    tree = graphs.merge_tree(np.array([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]))
    members = {data["members"]: node for node, data in tree.nodes(data=True)}
    shared = {(parent, child): data["shared"] for parent, child, data in tree.edges(data=True)}
    left, right = members[0, 1, 2], members[3, 4]
    assert shared == {(left, members[0, 1]): 2, (left, members[2, 3, 4]): 1, (right, members[2, 3, 4]): 2}


def test_merge_tree_of_a_run() -> None:
    """Hegselmann-Krause on a line in exact gaps: as many leaves as agents, as many roots as final opinions."""
    x = np.linspace(0, 4, 41)[:, None]
    rule, states = kd.bounded_confidence(0.5), []
    for _ in range(15):
        states.append(x)
        x = kd.aggregate(rule, x).mean
    run = np.stack(states)
    tree = graphs.merge_tree(clusters.labels(run, 1e-6))
    assert sum(tree.in_degree(node) == 0 for node in tree) == 41
    final = clusters.find(run[-1], 1e-6).count
    assert sum(tree.out_degree(node) == 0 for node in tree) == final
    assert 1 < final < 10


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="connection"):
        graphs.components(kd.softmax(), np.zeros((1, 2, 1)), connection="loose")
    with pytest.raises(ValueError, match="choose one of the batch"):
        graphs.components(kd.softmax(), np.zeros((1, 2, 2, 1)))
    with pytest.raises(ValueError, match="labels"):
        graphs.merge_tree(np.zeros(3, int))
    with pytest.raises(ValueError, match="times"):
        graphs.merge_tree(np.zeros((2, 3), int), [0.0])
