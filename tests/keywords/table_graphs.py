"""Rows of `kd.graphs`: who hears whom against matrices, components by scipy, histories by hand."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import krause_dynamics as kd
from krause_dynamics import graphs
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_clusters_history import BY_HAND, LABELS, SWAP, SWAPPED, plain

X, Y = np.random.default_rng(12).normal(size=(2, 14, 2))
MASS = np.random.default_rng(13).normal(size=14)
CONFIDENCE, NEAREST = kd.bounded_confidence(0.7), kd.krause(0.8, kd.TopK(3))


def hearing(rule, x, log_mass=None):
    """Weights of the two rules used here, written out: (n, n)."""
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)
    mass = np.ones(len(x)) if log_mass is None else np.exp(log_mass)
    if rule is CONFIDENCE:
        weights = (squared <= 0.7**2) * mass
    else:
        score = -squared / (2 * 0.8**2) + np.log(mass)
        third = np.sort(score, axis=1)[:, -3:-2]
        weights = np.where(score >= third, np.exp(score), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


@against(
    "kd.graphs.interaction_graph",
    "an edge for each pair that hears, its weight from the rule written out with numpy; nodes know their place",
    read=lambda graph: np.hstack(
        [networkx.to_numpy_array(graph, range(14)), [graph.nodes[i]["position"] for i in range(14)]]
    ),
    rule=(CONFIDENCE, NEAREST), x=(X, Y), log_mass=(None, MASS),
)  # fmt: skip
def weights_and_places(rule, x, log_mass):
    return np.hstack([hearing(rule, x, log_mass), x])


RUNS = np.stack([X, Y])
NOBODY = np.where(np.arange(14) < 3, -np.inf, 0.0)


@against(
    "kd.graphs.components",
    "components of the graph of the rule written out, by scipy, numbered by first member; -1 without mass",
    rule=(NEAREST, CONFIDENCE), run=(RUNS, kd.Trajectory(np.arange(2.0), RUNS, log_mass=NOBODY)),
    connection=("weak", "strong"),
)  # fmt: skip
def components_by_scipy(rule, run, connection):
    there = slice(None)
    if isinstance(run, kd.Trajectory):
        run, there = run.positions, run.log_mass > -np.inf
    labels = np.full(run.shape[:2], -1)
    for step, x in enumerate(run[:, there]):
        _, found = connected_components(hearing(rule, x) > 0, connection=connection)
        first = np.unique(found, return_index=True)[1]
        labels[step, there] = first.argsort().argsort()[found]
    return labels


@row("kd.graphs.merges_and_splits", "labels", LABELS, SWAP, "merges and splits by hand")
def _(first, second):
    assert plain(graphs.merges_and_splits(first)) == BY_HAND
    assert plain(graphs.merges_and_splits(second)) == SWAPPED


@row(
    "kd.graphs.merges_and_splits",
    "times",
    None,
    [0.0, 0.5, 2.5, 9.0],
    "events at the later of two times; layers unless told",
)
def _(first, second):
    assert [event.time for event in graphs.merges_and_splits(LABELS, first)] == [1.0, 1.0, 2.0, 3.0]
    assert [event.time for event in graphs.merges_and_splits(LABELS, second)] == [0.5, 0.5, 2.5, 9.0]


def histories(tree):
    """Members, and edges with what they share, by members."""
    members = networkx.get_node_attributes(tree, "members")
    return set(members.values()), {
        (members[a], members[b]): shared for a, b, shared in tree.edges(data="shared")
    }  # fmt: skip


@row(
    "kd.graphs.merge_tree", "labels", LABELS, SWAP, "stretches of unchanged members, and where their points go, by hand"
)
def _(first, second):
    left, right, whole = (0, 1), (2, 3), (0, 1, 2, 3)
    assert histories(graphs.merge_tree(first)) == (
        {(0,), (1,), (2,), (3,), left, right, whole, (0, 1, 2)},
        {
            ((0,), left): 1, ((1,), left): 1, ((2,), right): 1, ((3,), right): 1, (left, whole): 2, (right, whole): 2,
            (whole, (0, 1, 2)): 3, (whole, (3,)): 1,
        },
    )  # fmt: skip
    assert histories(graphs.merge_tree(second)) == (
        {left, right, (0,), (1, 2, 3, 4)},
        {(left, (0,)): 1, (left, (1, 2, 3, 4)): 1, (right, (1, 2, 3, 4)): 2},
    )


@row(
    "kd.graphs.merge_tree",
    "times",
    None,
    [0.0, 0.5, 2.5, 9.0],
    "birth and death are the first and last time of the members",
)
def _(first, second):
    labels = LABELS[[0, 1, 1, 2]]  # the pairs live twice
    for times, birth, death, last in ((first, 1.0, 2.0, 3.0), (second, 0.5, 2.5, 9.0)):
        tree = graphs.merge_tree(labels, times)
        lives = {node["members"]: (node["birth"], node["death"], node["step"]) for _, node in tree.nodes(data=True)}
        assert lives[0, 1] == lives[2, 3] == (birth, death, 1)
        assert lives[0, 1, 2, 3] == (last, last, 3)
        assert lives[0,] == (0.0, 0.0, 0)
    with pytest.raises(ValueError, match=r"times must have shape \(4,\)"):
        graphs.merge_tree(labels, second[:2])
